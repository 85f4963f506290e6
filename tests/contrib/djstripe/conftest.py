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
    """dj-stripe's endpoint of the own account, with a secret of its own. Stripe does not answer dj-stripe."""
    from .deliveries import KEY, account, djstripe_asks, make_endpoint

    djstripe_asks(monkeypatch)
    settings.STRIPE_TEST_SECRET_KEY = KEY
    return make_endpoint(account())
