"""The simulator serves dj-stripe, unchanged and over HTTP, and its events are what dj-stripe expects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import stripe
from django.core.management import call_command
from django.urls import reverse
from djstripe import models
from djstripe.settings import DjstripeSettings

from entitlements_app.testing import StripeSimulator

pytestmark = pytest.mark.django_db


@pytest.fixture
def simulator(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeSimulator]:
    """dj-stripe reads STRIPE_API_HOST where its settings are made."""
    monkeypatch.setattr(stripe, "api_base", stripe.api_base)  # afterwards it is this again
    with StripeSimulator(seed=7) as simulator:
        settings.STRIPE_TEST_SECRET_KEY = simulator.api_key
        settings.STRIPE_API_HOST = simulator.url
        DjstripeSettings()
        yield simulator


@pytest.fixture
def endpoint(simulator: StripeSimulator) -> models.WebhookEndpoint:
    """Made as dj-stripe's form in the admin makes it, which itself refuses addresses of this machine."""
    uuid = str(uuid4())
    path = reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": uuid})
    created = models.WebhookEndpoint._api_create(
        url=f"http://127.0.0.1:8000{path}",
        api_version="2026-05-27.dahlia",
        enabled_events=["*"],
        metadata={"djstripe_uuid": uuid},
        connect=False,
    )
    return models.WebhookEndpoint.sync_from_stripe_data(created, api_key=simulator.api_key)


@pytest.fixture
def deliver(simulator: StripeSimulator, endpoint: models.WebhookEndpoint, client: Any) -> Any:
    def deliver() -> list[str]:
        """The types of the events, after dj-stripe has processed each."""
        path = reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": endpoint.djstripe_uuid})
        before = models.WebhookEventTrigger.objects.count()
        answers = simulator.deliver(client, path, secret=endpoint.secret)
        assert {answer.status_code for answer in answers} <= {200}
        triggers = models.WebhookEventTrigger.objects.order_by("pk")[before:]
        assert all(trigger.valid and trigger.processed for trigger in triggers)
        return [trigger.event.type for trigger in triggers]

    return deliver


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


def test_an_outage_of_stripe_is_one_for_dj_stripe(simulator: Any, endpoint: Any, client: Any, acme: Any) -> None:
    models.Customer.get_or_create(subscriber=acme)
    simulator.fail_requests(503, times=10)
    client.raise_request_exception = False
    path = reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": endpoint.djstripe_uuid})
    (answer,) = simulator.deliver(client, path, secret=endpoint.secret)
    assert answer.status_code == 500
    trigger = models.WebhookEventTrigger.objects.get()
    assert (trigger.valid, trigger.processed, bool(trigger.exception)) == (True, False, True)
