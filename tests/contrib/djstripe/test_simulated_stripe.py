"""The simulator serves dj-stripe, unchanged and over HTTP, and its events are what dj-stripe expects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from djstripe import models

from .deliveries import url_of

pytestmark = pytest.mark.django_db


def test_a_customer_subscribes_cancels_and_is_deleted(simulator: Any, deliver: Any, acme: Any) -> None:
    price = simulator.create_price(simulator.create_product("Pro", features=[simulator.create_feature("sso")]))
    customer, created = models.Customer.get_or_create(subscriber=acme)
    assert created
    assert models.Customer.get_or_create(subscriber=acme) == (customer, False)
    subscription = simulator.subscribe(customer.id, price)["id"]
    assert deliver() == [
        "product.created",
        "price.created",
        "customer.created",
        "customer.subscription.created",
        "entitlements.active_entitlement_summary.updated",
    ]
    customer.refresh_from_db()
    assert (customer.subscriber, customer.livemode, customer.djstripe_owner_account.id) == (
        acme,
        False,
        simulator.account_id,
    )
    assert customer.metadata == {"djstripe_subscriber": str(acme.pk)}
    row = models.Subscription.objects.get(id=subscription)
    assert (row.customer, row.status) == (customer, "active")
    assert [item.price.product.name for item in row.items.all()] == ["Pro"]

    simulator.cancel(subscription)
    assert deliver() == ["customer.subscription.deleted", "entitlements.active_entitlement_summary.updated"]
    row = models.Subscription.objects.get(id=subscription)
    assert (row.status, row.stripe_data["ended_at"] is None) == ("canceled", False)

    simulator.delete_customer(customer.id)
    assert deliver() == ["customer.deleted"]
    customer.refresh_from_db()
    assert (customer.subscriber, customer.date_purged is None) == (None, False)


def test_every_event_that_the_simulator_can_send_is_processed(simulator: Any, deliver: Any, acme: Any) -> None:
    call = simulator.call
    pro = simulator.create_product("Pro", features=[simulator.create_feature("sso")])
    price, yearly = simulator.create_price(pro), simulator.create_price(pro, interval="year")
    customer = models.Customer.get_or_create(subscriber=acme)[0].id
    trial = {"trial_period_days": 7, "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}}}
    paused = call("POST", "/v1/subscriptions", {"customer": customer, "items": [{"price": price["id"]}], **trial})
    told = deliver()
    simulator.advance(timedelta(days=8))
    told += deliver()
    card = call("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": customer})["id"]
    settings = {"invoice_settings": {"default_payment_method": card}, "name": "Ada"}
    call("POST", f"/v1/customers/{customer}", settings)
    call("POST", f"/v1/subscriptions/{paused['id']}/resume", {})
    call("POST", f"/v1/subscriptions/{paused['id']}", {"default_payment_method": card})
    simulator.change_plan(paused, yearly)
    simulator.set_status(paused, "past_due")
    call("POST", f"/v1/products/{pro['id']}", {"default_price": yearly["id"], "description": "All of it"})
    told += deliver()
    call("DELETE", f"/v1/products/{simulator.create_product('Free')['id']}")
    simulator.subscribe(simulator.create_customer("unknown@example.com"), price)
    simulator.delete_customer(customer)
    told += deliver()

    assert (
        set(told)
        == {event["type"] for event in simulator.all_events()}
        == {
            "customer.created",
            "customer.deleted",
            "customer.subscription.created",
            "customer.subscription.deleted",
            "customer.subscription.paused",
            "customer.subscription.resumed",
            "customer.subscription.trial_will_end",
            "customer.subscription.updated",
            "customer.updated",
            "entitlements.active_entitlement_summary.updated",
            "price.created",
            "product.created",
            "product.deleted",
            "product.updated",
        }
    )
    assert models.PaymentMethod.objects.get().id == card
    assert models.Product.objects.get().default_price.id == yearly["id"]
    assert models.Customer.objects.exclude(id=customer).get().email == "unknown@example.com"


def test_what_is_there_already_is_synced(simulator: Any, acme: Any) -> None:
    product = simulator.create_product("Pro", features=[simulator.create_feature("sso")])
    price = simulator.create_price(product)
    customer = models.Customer.get_or_create(subscriber=acme)[0].id
    simulator.subscribe(customer, price)
    simulator.call("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": customer})
    simulator.add_webhook_endpoint("http://127.0.0.1:8000/")
    names = ["Account", "Customer", "Product", "Price", "Subscription", "SubscriptionItem", "Feature"]
    names += ["ProductFeature", "PaymentMethod", "WebhookEndpoint"]
    call_command("djstripe_sync_models", *names, fail_on_error=True)
    counts = {name: getattr(models, name).objects.count() for name in names}
    assert counts == dict.fromkeys(names, 1)
    assert models.Account.objects.get().id == simulator.account_id
    assert models.Price.objects.get().product.name == "Pro"


def test_an_outage_of_stripe_is_one_for_dj_stripe(
    simulator: Any, simulated_endpoint: Any, client: Any, acme: Any
) -> None:
    models.Customer.get_or_create(subscriber=acme)
    simulator.fail_requests(503, times=10)
    client.raise_request_exception = False
    path = url_of(simulated_endpoint)
    (answer,) = simulator.deliver(client, path, secret=simulated_endpoint.secret)
    assert answer.status_code == 500
    trigger = models.WebhookEventTrigger.objects.get()
    assert (trigger.valid, trigger.processed, bool(trigger.exception)) == (True, False, True)
