from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from django.conf import settings
from django.test import Client

from entitlements_app.testing import StripeSimulator


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


@pytest.fixture
def two_accounts(db: None, settings: Any) -> dict[str, Any]:
    """Two Stripe accounts that dj-stripe knows; this app's key is of the first."""
    from .deliveries import KEY, OTHER_KEY, account

    settings.ENTITLEMENTS_STRIPE_API_KEY = KEY
    return {"ours": account(), "theirs": account("acct_theirs", OTHER_KEY)}


@pytest.fixture
def simulator(settings: Any, monkeypatch: Any) -> Iterator[StripeSimulator]:
    """A simulated Stripe that dj-stripe asks; it reads STRIPE_API_HOST where its settings are made."""
    from djstripe.settings import DjstripeSettings

    monkeypatch.setattr(stripe, "api_base", stripe.api_base)  # afterwards it is this again
    with StripeSimulator(seed=7) as simulator:
        settings.STRIPE_TEST_SECRET_KEY = simulator.api_key
        settings.STRIPE_API_HOST = simulator.url
        DjstripeSettings()
        yield simulator


@pytest.fixture
def simulated_endpoint(db: None, simulator: StripeSimulator) -> Any:
    """dj-stripe's endpoint, which it has made at the simulated Stripe."""
    from .deliveries import make_endpoint_at_stripe

    return make_endpoint_at_stripe(simulator.api_key)


@pytest.fixture
def deliver(simulator: StripeSimulator, simulated_endpoint: Any, client: Client) -> Callable[[], list[str]]:
    """Bring dj-stripe what has happened, all of which it processes. Returns the events' types."""
    from djstripe.models import WebhookEventTrigger

    from .deliveries import url_of

    def deliver() -> list[str]:
        before = WebhookEventTrigger.objects.count()
        answers = simulator.deliver(client, url_of(simulated_endpoint), secret=simulated_endpoint.secret)
        assert {answer.status_code for answer in answers} <= {200}
        triggers = WebhookEventTrigger.objects.order_by("pk")[before:]
        assert all(trigger.valid and trigger.processed for trigger in triggers)
        return [trigger.event.type for trigger in triggers]

    return deliver
