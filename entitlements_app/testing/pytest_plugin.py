from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .simulator.stripe_simulator import StripeSimulator


# Every pytest run in the environment loads this plugin: it costs nothing unless the fixture is used.
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
