from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only where dj-stripe is installed: `make djstripe-test`."""
    return None if settings.DJSTRIPE else True


@pytest.fixture
def endpoint(db: None, settings: Any, monkeypatch: Any) -> Any:
    """dj-stripe's endpoint of the own account, with a secret of its own. Stripe answers neither dj-stripe nor us."""
    from .deliveries import NOWHERE, account, djstripe_asks, make_endpoint

    settings.ENTITLEMENTS_STRIPE_API_BASE = NOWHERE
    djstripe_asks(monkeypatch)
    return make_endpoint(account())


@pytest.fixture
def of_our_key(endpoint: Any, settings: Any) -> Any:
    """The own account is known by the key in dj-stripe's settings, which is ours as well."""
    from .deliveries import KEY

    settings.STRIPE_TEST_SECRET_KEY = KEY
    return endpoint
