from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from django.db.models import Model

    from .override import override_entitlements
    from .simulator.stripe_simulator import StripeSimulator

# Every pytest run in the environment loads this plugin: it costs nothing, and imports nothing of Django, unless its
# fixtures or its marker are used.


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "entitlements(*lookup_keys): every subscriber is entitled to exactly these while the test runs, without keys "
        "to nothing. The marker that is closest to the test counts. (entitlements_app)",
    )


@pytest.fixture(autouse=True)
def _entitlements_of_marker(request: pytest.FixtureRequest) -> Iterator[None]:
    marker = request.node.get_closest_marker("entitlements")
    if marker is None:
        yield
        return
    if marker.kwargs:
        raise TypeError("The marker entitlements takes lookup keys only; for one subscriber use the fixture.")
    from .override import override_entitlements

    with override_entitlements(*marker.args):
        yield


class SetEntitlements(Protocol):
    """What the fixture `entitlements` is, for annotations."""

    def __call__(self, *keys: str, subscriber: Model | None = None) -> None: ...


@pytest.fixture
def entitlements() -> Iterator[SetEntitlements]:
    """A function that says what a subscriber is entitled to until the test ends: exactly these lookup keys.

        def test_the_support_desk_opens(client, django_user_model, entitlements):
            ada = django_user_model.objects.create_user("ada")
            client.force_login(ada)
            entitlements("premium_support", subscriber=ada)
            assert client.get("/support/").status_code == 200
            entitlements(subscriber=ada)
            assert client.get("/support/").status_code == 403

    Another call for the same subscriber takes the place of the one before. Without `subscriber` it says so of each one.
    As with nested `override_entitlements`, the last call that is about a subscriber counts.
    """
    from .override import override_entitlements

    in_force: list[tuple[Model | None, override_entitlements]] = []

    def set_entitlements(*keys: str, subscriber: Model | None = None) -> None:
        override = override_entitlements(*keys, subscriber=subscriber)
        for held in [held for held in in_force if held[0] == subscriber]:
            in_force.remove(held)
            held[1].disable()
        override.enable()
        in_force.append((subscriber, override))

    yield set_entitlements
    for _, override in in_force:
        override.disable()


@pytest.fixture
def stripe_simulator() -> Iterator[StripeSimulator]:
    """A running simulator with nothing in it, which the app asks and believes until the test ends.

        @pytest.mark.django_db
        def test_pro_opens_the_support_desk(client, django_user_model, stripe_simulator):
            ada = django_user_model.objects.create_user("ada")
            pro = stripe_simulator.create_product("Pro", features=[stripe_simulator.create_feature("premium_support")])
            customer = stripe_simulator.create_customer("ada@example.com")
            link(ada, customer["id"])

            stripe_simulator.subscribe(customer, stripe_simulator.create_price(pro))
            stripe_simulator.deliver(client)

            assert has_entitlement(ada, "premium_support")

    Four settings are overridden for that: ENTITLEMENTS_STRIPE_API_KEY, ENTITLEMENTS_STRIPE_API_BASE,
    ENTITLEMENTS_WEBHOOK_SECRETS and ENTITLEMENTS_LIVEMODE. Where Django is not configured it is just a simulator.
    """
    from django.conf import settings

    from .simulator.stripe_simulator import StripeSimulator

    with StripeSimulator() as simulator:
        if not settings.configured:
            yield simulator
            return
        from django.test import override_settings

        with override_settings(
            ENTITLEMENTS_STRIPE_API_KEY=simulator.api_key,
            ENTITLEMENTS_STRIPE_API_BASE=simulator.url,
            ENTITLEMENTS_WEBHOOK_SECRETS=[simulator.webhook_secret],
            ENTITLEMENTS_LIVEMODE=simulator.livemode,
        ):
            yield simulator
