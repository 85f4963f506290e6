"""What dj-stripe asks for and this app does not. That it is served well: tests/contrib/djstripe."""

from __future__ import annotations

import re

import pytest
import stripe

from entitlements_app.testing import StripeSimulator
from tests.simulator.tools import client_for, error_body, plan


def test_the_own_account_is_told_and_is_the_only_one(simulator, client):
    own = client.v1.accounts.retrieve_current()
    assert (own.id, own.object, own.type) == (simulator.account_id, "account", "standard")
    assert client.v1.accounts.retrieve(own.id) == own
    assert client.v1.accounts.list().data == []
    status, body, _ = error_body(lambda: client.v1.accounts.retrieve("acct_other"))
    assert (status, body["error"]["code"]) == (403, "account_invalid")


def test_a_restricted_key_is_not_told_its_account(simulator):
    simulator.add_restricted_key("rk_test_reader", "customer_write", "entitlement_write")
    with pytest.raises(stripe.PermissionError):
        client_for(simulator, "rk_test_reader").v1.accounts.retrieve_current()


@pytest.mark.parametrize("livemode", [False, True])
def test_the_key_has_the_shape_of_a_real_one(livemode):
    mode = "live" if livemode else "test"
    assert re.fullmatch(rf"sk_{mode}_[a-zA-Z0-9]{{24,}}", StripeSimulator(livemode=livemode).api_key)


def test_what_is_left_out_of_an_answer_is_there_when_it_is_expanded(simulator, client):
    customer = simulator.create_customer()["id"]
    assert "sources" not in client.v1.customers.retrieve(customer)
    expand = {"expand": ["default_source", "sources"]}
    expanded = client.v1.customers.retrieve(customer, expand)
    assert (expanded.default_source, expanded.sources.data) == (None, [])
    (listed,) = client.v1.customers.list({"expand": ["data.default_source", "data.sources"]}).data
    assert listed.sources.url == f"/v1/customers/{customer}/sources"
    assert client.v1.customers.payment_sources.list(customer, {"object": "card"}).data == []
    price = plan(simulator, "sso")
    assert "currency_options" not in client.v1.prices.retrieve(price["id"])
    expanded = client.v1.prices.retrieve(price["id"], {"expand": ["currency_options", "product", "tiers"]})
    assert expanded.currency_options["usd"].unit_amount == price["unit_amount"]
    assert expanded.product.id == price["product"]
    assert "tiers" not in expanded
    subscription = simulator.subscribe(customer, price)["id"]
    assert client.v1.subscriptions.retrieve(subscription, {"expand": ["discounts"]}).discounts == []


def test_a_deleted_customer_is_shown_as_such_whatever_is_expanded(simulator):
    customer = simulator.create_customer()["id"]
    simulator.delete_customer(customer)
    gone = simulator.call("GET", f"/v1/customers/{customer}", {"expand": ["default_source", "sources"]})
    assert gone == {"id": customer, "object": "customer", "deleted": True}


def test_an_empty_text_is_none_in_a_customer(simulator, client):
    customer = client.v1.customers.create({"email": "ada@example.com", "name": ""})
    assert (customer.email, customer.name) == ("ada@example.com", None)
    client.v1.customers.update(customer.id, {"email": "", "metadata": {"plan": "pro"}})
    (event,) = simulator.events("customer.updated")
    assert event["data"]["previous_attributes"] == {"email": "ada@example.com", "metadata": {}}
    client.v1.customers.update(customer.id, {"metadata": ""})
    kept = simulator.call("GET", f"/v1/customers/{customer.id}")
    assert (kept["email"], kept["metadata"]) == (None, {})


def test_cards_can_be_read(simulator, client):
    acme, other = (simulator.create_customer()["id"] for _ in range(2))
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": acme}).id
    assert client.v1.payment_methods.retrieve(card).customer == acme
    assert [row.id for row in client.v1.payment_methods.list({"customer": acme, "type": "card"}).data] == [card]
    assert client.v1.payment_methods.list({"customer": other}).data == []


def test_an_endpoint_for_other_accounts_is_refused(client):
    params = {"url": "http://127.0.0.1:8000/", "enabled_events": ["*"]}
    assert client.v1.webhook_endpoints.create({**params, "connect": False}).status == "enabled"
    assert error_body(lambda: client.v1.webhook_endpoints.create({**params, "connect": True}))[0] == 400
