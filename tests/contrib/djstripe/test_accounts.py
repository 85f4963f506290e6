from __future__ import annotations

from typing import Any

import pytest
from djstripe.models import Account, APIKey

from entitlements_app.contrib.djstripe.accounts import is_own, own_account

OURS, THEIRS = "sk_test_" + "a" * 24, "sk_test_" + "b" * 24

pytestmark = pytest.mark.django_db


@pytest.fixture
def two_accounts(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = OURS
    settings.STRIPE_TEST_SECRET_KEY = THEIRS
    for key, name in ((OURS, "acct_ours"), (THEIRS, "acct_theirs")):
        account = Account.objects.create(id=name, livemode=False)
        APIKey.objects.create(secret=key, type="secret", livemode=False, djstripe_owner_account=account)


def test_the_own_account_is_that_of_our_key(two_accounts: None) -> None:
    assert own_account() == "acct_ours"
    assert is_own("acct_ours")
    assert not is_own("acct_theirs")
    assert is_own(None)


def test_a_key_that_dj_stripe_has_not_seen_is_taken_for_one_of_its_default_account(
    two_accounts: None, settings: Any
) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_" + "c" * 24
    assert own_account() == "acct_theirs"


def test_while_nobody_knows_everything_is_own(two_accounts: None) -> None:
    APIKey.objects.all().delete()
    assert own_account() is None
    assert is_own("acct_theirs")
