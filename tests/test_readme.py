"""What the README shows, done."""

from __future__ import annotations

from typing import Any

import pytest

from entitlements_app.linking import link
from entitlements_app.testing import StripeSimulator, override_entitlements
from tests.rows import make_subscriber, visitor_of

pytestmark = pytest.mark.django_db


def test_a_gate_is_open_or_closed_as_a_user_s_test_says(client: Any) -> None:
    client.force_login(visitor_of(make_subscriber()))
    with override_entitlements("premium_support"):
        assert client.get("/guarding/decorated/").status_code == 200
    with override_entitlements():
        assert client.get("/guarding/decorated/").status_code == 403


def test_a_plan_opens_a_gate_in_a_user_s_test(client: Any, stripe_simulator: StripeSimulator) -> None:
    subscriber = make_subscriber()
    feature = stripe_simulator.create_feature("premium_support")
    product = stripe_simulator.create_product("Pro", features=[feature])
    customer = stripe_simulator.create_customer()
    link(subscriber, customer["id"])
    client.force_login(visitor_of(subscriber))
    assert client.get("/guarding/decorated/").status_code == 403
    subscription = stripe_simulator.subscribe(customer, stripe_simulator.create_price(product))
    stripe_simulator.deliver(client)
    assert client.get("/guarding/decorated/").status_code == 200
    stripe_simulator.clock.advance(5)
    stripe_simulator.cancel(subscription)
    stripe_simulator.deliver(client)
    assert client.get("/guarding/decorated/").status_code == 403
