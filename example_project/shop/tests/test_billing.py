from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from entitlements_app.access import has_entitlement
from entitlements_app.models import Customer
from entitlements_app.testing import StripeSimulator
from example_project.shop import billing, catalogue
from example_project.shop.billing import Bill
from example_project.shop.plans import ENTERPRISE, FREE, PRO, Plan

from .conftest import Buy


def test_the_catalogue_is_found_again_not_doubled(stripe_simulator: StripeSimulator) -> None:
    for _ in range(2):
        catalogue.find_or_create(billing.client())

    for path, expected in (("/v1/entitlements/features", 4), ("/v1/products", 2), ("/v1/prices", 2)):
        assert len(stripe_simulator.call("GET", path)["data"]) == expected, path


def test_a_catalogue_left_half_done_is_completed(stripe_simulator: StripeSimulator) -> None:
    catalogue.find_or_create(billing.client())
    product = str(catalogue.find_prices(billing.client())[PRO.price_lookup_key].product)
    stripe_simulator.detach_feature(product, _feature(stripe_simulator, "api_access"))

    catalogue.find_or_create(billing.client())

    attached = stripe_simulator.call("GET", f"/v1/products/{product}/features")["data"]
    assert {row["entitlement_feature"]["lookup_key"] for row in attached} == PRO.lookup_keys


def test_a_customer_is_found_again_when_the_database_began_anew(
    client: Client, ada: User, buy: Buy, stripe_simulator: StripeSimulator
) -> None:
    buy(ada, PRO)
    Customer.objects.all().delete()

    buy(ada, ENTERPRISE)

    assert len(stripe_simulator.call("GET", "/v1/customers")["data"]) == 1
    assert billing.get_bill(ada).plan is ENTERPRISE


def test_a_paid_plan_is_charged_to_the_test_card(ada: User, buy: Buy, stripe_simulator: StripeSimulator) -> None:
    buy(ada, PRO)

    (customer,) = stripe_simulator.call("GET", "/v1/customers")["data"]
    assert customer["invoice_settings"]["default_payment_method"].startswith("pm_")


def test_a_trial_opens_the_gates_until_it_ends(
    ada: User, client: Client, buy: Buy, stripe_simulator: StripeSimulator
) -> None:
    billing.start_trial(ada, PRO)
    stripe_simulator.deliver(client)

    assert has_entitlement(ada, "premium_support")
    bill = billing.get_bill(ada)
    assert (bill.plan, bill.is_trial, bill.ends) == (PRO, True, False)


def test_who_cancels_at_the_end_of_the_period_keeps_what_is_paid_for(
    ada: User, client: Client, buy: Buy, stripe_simulator: StripeSimulator
) -> None:
    buy(ada, PRO)

    billing.cancel_at_period_end(ada)
    stripe_simulator.deliver(client)

    bill = billing.get_bill(ada)
    assert (bill.plan, bill.ends) == (PRO, True)
    assert has_entitlement(ada, "premium_support")

    stripe_simulator.advance(timedelta(days=31))
    assert billing.get_bill(ada) == Bill(FREE)
    assert stripe_simulator.active_entitlements(_customer(ada)) == []


@pytest.mark.parametrize("plan", [PRO, ENTERPRISE])
def test_who_cancelled_and_orders_again_stays(ada: User, buy: Buy, plan: Plan) -> None:
    buy(ada, PRO)
    billing.cancel_at_period_end(ada)

    buy(ada, plan)

    bill = billing.get_bill(ada)
    assert (bill.plan, bill.ends) == (plan, False)


def _customer(user: User) -> str:
    return Customer.objects.get(subscriber=user).stripe_id


def _feature(stripe_simulator: StripeSimulator, lookup_key: str) -> str:
    features = stripe_simulator.call("GET", "/v1/entitlements/features", {"lookup_key": lookup_key})["data"]
    return str(features[0]["id"])
