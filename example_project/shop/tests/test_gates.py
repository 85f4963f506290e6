"""How a site tests its gates with its plans: a simulated Stripe, real orders, real webhooks, nothing patched."""

from __future__ import annotations

from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from entitlements_app.sync import sync_catalog, sync_customer
from entitlements_app.testing import StripeSimulator
from example_project.shop import billing, catalogue
from example_project.shop.plans import ENTERPRISE, FREE, PRO

from .conftest import Buy


def test_the_support_desk_is_open_for_who_pays_and_closed_for_others(client: Client, ada: User, buy: Buy) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/support/").status_code == 403

    buy(ada, PRO)

    assert client.get("/support/").status_code == 200
    assert client.get("/reports/").status_code == 403  # for Enterprise


def test_strangers_are_sent_to_sign_in_and_come_back(client: Client, db: None) -> None:
    assert client.get("/support/").headers["Location"] == "/sign-in/?next=/support/"


def test_a_cancelled_plan_closes_the_gates(
    client: Client, ada: User, buy: Buy, stripe_simulator: StripeSimulator
) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    buy(ada, ENTERPRISE)
    stripe_simulator.clock.advance(5)  # an event of the same second would be asked about, not believed

    buy(ada, FREE)

    assert client.get("/support/").status_code == 403
    assert client.get("/reports/").status_code == 403


# A fetch refuses to run inside a transaction, so this test is not wrapped in one.
@pytest.mark.django_db(transaction=True)
def test_a_lost_webhook_is_mended_by_asking_stripe(client: Client, ada: User, buy: Buy) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    buy(ada, FREE)
    billing.switch_plan(ada, PRO)  # whose webhook nobody delivers
    assert client.get("/support/").status_code == 403

    customer = billing.get_customer(ada)
    assert customer is not None
    assert sync_customer(customer).granted == PRO.lookup_keys

    assert client.get("/support/").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_the_page_after_a_checkout_waits_until_the_plan_is_known(
    client: Client, ada: User, buy: Buy, stripe_simulator: StripeSimulator
) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    buy(ada, FREE)

    welcome = client.post("/plan/", {"plan": "pro", "next": "/support/"}).headers["Location"]
    assert welcome == "/welcome/?plan=pro&next=%2Fsupport%2F"
    assert "Waiting for Stripe" in client.get(welcome).content.decode()
    stripe_simulator.deliver(client)

    assert client.get(welcome).headers["Location"] == "/support/"


def test_a_page_says_that_a_webhook_did_not_come(client: Client, ada: User, buy: Buy) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    buy(ada, FREE)
    client.post("/plan/", {"plan": "pro"})  # whose webhook nobody delivers
    assert "Waiting for Stripe’s webhook" in client.get("/gates/request/").content.decode()

    session = client.session
    session["ordered"] |= {"at": 0}
    session.save()

    assert "The webhook did not come." in client.get("/gates/request/").content.decode()


def test_the_api_names_what_is_missing(client: Client, ada: User, buy: Buy) -> None:
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")

    refused = client.get("/api/usage/")
    buy(ada, PRO)
    answered = client.get("/api/usage/")

    assert refused.status_code == 403
    assert refused.json()["missing"] == ["api_access"]
    assert answered.json() == {"user": "ada", "requests_this_month": 1284}


def test_each_key_that_the_site_asks_for_is_in_its_plans(stripe_simulator: StripeSimulator, db: None) -> None:
    catalogue.find_or_create(billing.client())
    sync_catalog()
    told = StringIO()

    call_command("entitlements_catalog", "unused", stdout=told)  # exits if one is missing

    assert "Each key that is asked for has a feature, and each feature is asked for." in told.getvalue()
