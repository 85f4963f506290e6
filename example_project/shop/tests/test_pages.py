"""How a site tests its gates by themselves, without Stripe."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client, TestCase

from entitlements_app.access import subscribers_with
from entitlements_app.linking import link
from entitlements_app.sync import sync_catalog
from entitlements_app.testing import (
    CustomerFactory,
    EntitlementOverrideFactory,
    StripeSimulator,
    WebhookClient,
    override_entitlements,
)
from entitlements_app.testing.pytest_plugin import SetEntitlements
from example_project.shop import billing, catalogue

PAGES = [
    ("/support/", "premium_support"),
    ("/reports/", "advanced_reporting"),
    ("/reports/2026/", "advanced_reporting"),
]


@pytest.fixture
def signed_in(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


@pytest.mark.parametrize(("page", "lookup_key"), PAGES)
def test_each_page_is_for_who_pays(signed_in: Client, page: str, lookup_key: str) -> None:
    with override_entitlements(lookup_key):
        assert signed_in.get(page).status_code == 200
    with override_entitlements():
        assert signed_in.get(page).status_code == 403


@override_entitlements("api_access")
class UsageTests(TestCase):
    def setUp(self) -> None:
        self.client.force_login(User.objects.create_user("ada"))

    def test_the_api_answers(self) -> None:
        assert self.client.get("/api/usage/").json()["user"] == "ada"

    @override_entitlements()
    def test_the_api_names_what_is_missing(self) -> None:
        assert self.client.get("/api/usage/").json()["missing"] == ["api_access"]


@pytest.mark.entitlements("premium_support")
def test_the_page_of_a_template_gate_is_open(signed_in: Client) -> None:
    assert "Call 555-0100" in signed_in.get("/gates/request/").content.decode()


def test_what_one_pays_for_is_not_the_other_s(client: Client, ada: User, entitlements: SetEntitlements) -> None:
    bob = User.objects.create_user("bob")
    entitlements("premium_support", subscriber=ada)
    statuses = {}
    for user in (ada, bob):
        client.force_login(user)
        statuses[user.username] = client.get("/support/").status_code
    assert statuses == {"ada": 200, "bob": 403}


def test_who_cancelled_finds_the_desk_closed_and_may_be_let_in(signed_in: Client, ada: User) -> None:
    CustomerFactory.create(subscriber=ada, lapsed=True)
    assert signed_in.get("/support/").status_code == 403
    EntitlementOverrideFactory.create(subscriber=ada, lookup_key="premium_support", reason="goodwill")
    assert signed_in.get("/support/").status_code == 200
    assert list(subscribers_with("premium_support")) == [ada]


def test_what_stripe_tells_opens_and_closes_the_desk(signed_in: Client, ada: User) -> None:
    link(ada, "cus_ada")
    stripe = WebhookClient()

    assert stripe.deliver(stripe.summary("cus_ada", "premium_support")).status_code == 200
    assert signed_in.get("/support/").status_code == 200

    assert stripe.deliver(stripe.customer_deleted("cus_ada")).status_code == 200
    assert signed_in.get("/support/").status_code == 403


def test_the_catalogue_is_our_copy_of_stripe_s(signed_in: Client, stripe_simulator: StripeSimulator) -> None:
    assert "has not been read yet" in signed_in.get("/catalogue/").content.decode()
    catalogue.find_or_create(billing.client())
    sync_catalog()
    page = signed_in.get("/catalogue/").content.decode()
    assert page.index(">Pro<") < page.index(">Enterprise<")
    assert (page.count(">included<"), page.count(">not included<")) == (6, 2)
    with override_entitlements("sso"):
        assert signed_in.get("/catalogue/").content.decode().count("data-entitled") == 1
