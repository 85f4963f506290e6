from __future__ import annotations

from typing import Any

import pytest
from djstripe.models import APIKey

from entitlements_app.contrib.djstripe.accounts import is_own_account, own_account

from .deliveries import OTHER_KEY

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def djstripe_has_the_other_key(two_accounts: Any, settings: Any) -> None:
    settings.STRIPE_TEST_SECRET_KEY = OTHER_KEY


def test_the_own_account_is_that_of_our_key() -> None:
    assert own_account() == "acct_ours"
    assert is_own_account("acct_ours")
    assert not is_own_account("acct_theirs")
    assert is_own_account(None)


def test_a_key_that_dj_stripe_has_not_seen_is_taken_for_one_of_its_default_account(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_" + "c" * 24
    assert own_account() == "acct_theirs"


def test_while_nobody_knows_everything_is_own() -> None:
    APIKey.objects.all().delete()
    assert own_account() is None
    assert is_own_account("acct_theirs")
