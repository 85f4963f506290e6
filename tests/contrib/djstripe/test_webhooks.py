"""Events that reach dj-stripe's endpoint alone, or this app's as well: kept, each once, and processed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from djstripe.models import ActiveEntitlement as DjstripeEntitlement
from djstripe.models import Customer as DjstripeCustomer
from djstripe.models import Event as DjstripeEvent
from djstripe.models import Feature, Product, ProductFeature, Subscription, WebhookEndpoint, WebhookEventTrigger

from entitlements_app.contrib.djstripe import webhooks
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Customer, WebhookEvent
from entitlements_app.testing import StripeSimulator
from tests.delivery import customer_deleted, deliver, envelope_of, payload, subscription_updated, summary
from tests.receivers import Listener, connected
from tests.rows import customer, effective, held, make_subscriber
from tests.shop import Shop
from tests.threads import Crowd, meeting_at
from tests.workers import SilentBroker, wait_until

from .deliveries import OTHER_KEY, account, djstripe_asks, known_to_djstripe, make_endpoint, to_djstripe

pytestmark = pytest.mark.django_db(transaction=True)


def trigger() -> WebhookEventTrigger:
    return WebhookEventTrigger.objects.latest("id")


def test_a_summary_opens_the_gate_without_a_call(endpoint: WebhookEndpoint, acme: Any) -> None:
    signed = int(time.time()) - 5
    assert to_djstripe(endpoint, summary("cus_acme", "sso", created=signed - 1), t=signed).status_code == 200
    assert held() == {"sso"}
    assert effective() == ["+sso"]
    event = WebhookEvent.objects.get()
    assert (event.status, event.sent_at, event.account) == ("processed", signed, "")
    assert (trigger().valid, trigger().processed, trigger().exception) == (True, True, "")


def test_an_event_that_djstripe_discards_is_kept(endpoint: WebhookEndpoint, caplog: Any) -> None:
    assert to_djstripe(endpoint, summary("cus_nobody", "sso")).status_code == 200
    assert "Discarding event" in caplog.text
    assert held("cus_nobody") == {"sso"}


def test_a_deletion_revokes_at_once(endpoint: WebhookEndpoint, acme: Any) -> None:
    to_djstripe(endpoint, summary("cus_acme", "sso"))
    to_djstripe(endpoint, customer_deleted("cus_acme"))
    assert effective() == ["+sso", "-sso"]
    assert customer().deleted_at is not None


def test_a_sale_of_which_djstripe_is_told_everything(shop: Shop, settings: Any, monkeypatch: Any) -> None:
    """All that Stripe sends, to the one endpoint of the site."""
    djstripe_asks(monkeypatch, shop.stripe.url)
    settings.STRIPE_TEST_SECRET_KEY = shop.stripe.api_key
    endpoint, stripe_id = make_endpoint(), shop.customer()
    DjstripeCustomer.sync_from_stripe_data(DjstripeCustomer(id=stripe_id).api_retrieve())
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    events = shop.new_events()
    for event in events:
        assert to_djstripe(endpoint, event).status_code == 200, event["type"]
    assert held(stripe_id) == {"sso", "export"}
    told = {event["id"] for event in events if event["type"].startswith(("customer.subscription.", "entitlements."))}
    assert set(WebhookEvent.objects.values_list("stripe_id", flat=True)) == told
    assert len(told) < len(events) == DjstripeEvent.objects.count()
    assert Subscription.objects.get().customer.id == stripe_id


@pytest.mark.parametrize("kind", ["invoice.paid", "customer.updated", "charge.succeeded"])
def test_what_says_nothing_of_entitlements_is_left_to_djstripe(kind: str, endpoint: WebhookEndpoint) -> None:
    """The endpoint is sent dozens of types. Rows about them would be dj-stripe's own once more."""
    with CaptureQueriesContext(connection) as queries:
        to_djstripe(endpoint, envelope_of(kind, {"id": "", "object": "other"}))
    assert not WebhookEvent.objects.exists()
    assert not [query for query in queries if "entitlements_app" in query["sql"]]


def test_what_djstripe_holds_is_neither_needed_nor_disturbed(endpoint: WebhookEndpoint, acme: Any) -> None:
    owner = account()
    product = Product.objects.create(id="prod_1", livemode=False, djstripe_owner_account=owner)
    feature = Feature.objects.create(id="feat_1", livemode=False, stripe_data={"lookup_key": "sso", "name": "SSO"})
    ProductFeature.objects.create(id="prodft_1", livemode=False, product=product, entitlement_feature=feature)
    mirrors = (Feature, ProductFeature, DjstripeEntitlement)
    before = [list(model.objects.order_by("pk").values()) for model in mirrors]
    to_djstripe(endpoint, summary("cus_acme", "sso", "export"))
    to_djstripe(endpoint, summary("cus_acme", "sso", created=int(time.time()) + 1))
    assert held() == {"sso"}
    assert [list(model.objects.order_by("pk").values()) for model in mirrors] == before


# --- both endpoints


@pytest.mark.parametrize("ours_first", [True, False])
def test_an_event_that_comes_to_both_endpoints_counts_once(
    ours_first: bool, endpoint: WebhookEndpoint, acme: Any
) -> None:
    event, listener = summary("cus_acme", "sso"), Listener()
    deliveries = [lambda: deliver(event), lambda: to_djstripe(endpoint, event)]
    with connected(listener):
        for delivery in deliveries if ours_first else reversed(deliveries):
            assert delivery().status_code == 200
    assert WebhookEvent.objects.count() == 1
    assert listener.heard == ["+sso"]
    assert customer().version == 1


@pytest.mark.postgresql
def test_an_event_that_comes_to_both_endpoints_at_once_counts_once(endpoint: WebhookEndpoint, acme: Any) -> None:
    event, listener = summary("cus_acme", "sso"), Listener()
    answers: list[int] = []

    def ours() -> None:
        answers.append(deliver(event).status_code)

    def theirs() -> None:
        answers.append(to_djstripe(endpoint, event).status_code)

    with connected(listener):
        meeting_at("webhookevent", ours, theirs)
    assert answers == [200, 200]
    assert WebhookEvent.objects.count() == 1
    assert listener.heard == ["+sso"]
    assert customer().version == 1


@pytest.mark.parametrize("times", [2, 8])
def test_an_event_that_comes_to_djstripe_again_counts_once(times: int, endpoint: WebhookEndpoint, acme: Any) -> None:
    event, listener = summary("cus_acme", "sso"), Listener()
    with connected(listener):
        for _ in range(times):
            assert to_djstripe(endpoint, event).status_code == 200
    assert WebhookEvent.objects.count() == DjstripeEvent.objects.count() == 1
    assert listener.heard == ["+sso"]


# --- whose it is


def test_the_endpoint_of_another_account_changes_nothing_here(of_our_key: WebhookEndpoint, acme: Any) -> None:
    theirs = make_endpoint(account("acct_theirs", OTHER_KEY))
    assert to_djstripe(theirs, summary("cus_acme", "sso")).status_code == 200
    event = WebhookEvent.objects.get()
    assert (event.status, event.account, event.payload) == ("ignored", "acct_theirs", None)
    assert held() == set()


def test_an_event_of_another_account_does_not_stand_for_one_of_ours(of_our_key: WebhookEndpoint, acme: Any) -> None:
    theirs, event = make_endpoint(account("acct_theirs", OTHER_KEY)), summary("cus_acme", "sso")
    to_djstripe(theirs, event)
    to_djstripe(of_our_key, event)
    assert sorted(WebhookEvent.objects.values_list("account", "status")) == [
        ("", "processed"),
        ("acct_theirs", "ignored"),
    ]


def test_an_endpoint_of_nobody_is_ours(of_our_key: WebhookEndpoint, acme: Any) -> None:
    assert to_djstripe(make_endpoint(None), summary("cus_acme", "sso")).status_code == 200
    assert held() == {"sso"}


def test_a_connected_account_s_event_is_ignored(endpoint: WebhookEndpoint, acme: Any) -> None:
    account("acct_connected", OTHER_KEY)
    to_djstripe(endpoint, summary("cus_acme", "sso", account="acct_connected"))
    assert WebhookEvent.objects.values_list("status", "account").get() == ("ignored", "acct_connected")


def test_an_event_of_the_other_mode_is_ignored(endpoint: WebhookEndpoint, acme: Any) -> None:
    to_djstripe(endpoint, payload("event_summary_granted_two") | {"livemode": True})
    assert WebhookEvent.objects.values_list("status", "livemode").get() == ("ignored", True)
    assert not ActiveEntitlement.objects.exists()


# --- who does the work


def test_with_celery_a_worker_is_woken_for_a_committed_event_before_djstripe_asks_stripe(
    endpoint: WebhookEndpoint, acme: Any, queue: Any, monkeypatch: Any
) -> None:
    never_answers = SilentBroker()
    djstripe_asks(monkeypatch, f"http://{never_answers.address}")
    known_to_djstripe()
    queue.delete("celery")
    crowd = Crowd().start(lambda: to_djstripe(endpoint, summary("cus_acme", "sso")))
    wait_until(lambda: queue.llen("celery"))
    assert WebhookEvent.objects.get().status == "pending"
    [message] = queue.lrange("celery", 0, -1)
    assert b"process_events" in message
    wait_until(lambda: never_answers.connections)
    never_answers.close()
    crowd.join()
    assert queue.llen("celery") == 1


def on_hold(trigger: Any, api_key: str | None = None) -> None:
    """As a site's callback that leaves the work of dj-stripe to a queue."""


def test_with_a_callback_instead_of_djstripe_s_processing(
    of_our_key: WebhookEndpoint, acme: Any, settings: Any
) -> None:
    settings.DJSTRIPE_WEBHOOK_EVENT_CALLBACK = on_hold
    assert to_djstripe(of_our_key, summary("cus_acme", "sso")).status_code == 200
    assert held() == {"sso"}
    assert not trigger().processed
    trigger().process()
    assert WebhookEvent.objects.count() == 1


def test_reprocessing_is_djstripe_s_own(of_our_key: WebhookEndpoint, acme: Any) -> None:
    to_djstripe(of_our_key, summary("cus_acme", "sso"))
    WebhookEvent.objects.all().delete()
    DjstripeEvent.objects.all().delete()
    trigger().process()
    assert not WebhookEvent.objects.exists()


def test_with_atomic_requests_an_event_outlives_a_failure_of_djstripe(
    endpoint: WebhookEndpoint, acme: Any, monkeypatch: Any
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    known_to_djstripe()
    assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 500
    assert held() == {"sso"}


# --- what it costs


def test_what_a_delivery_costs_more(of_our_key: WebhookEndpoint, acme: Any) -> None:
    """As to this app's own endpoint, but for one query: whose account it is."""
    to_djstripe(of_our_key, summary("cus_acme", "sso"))
    Customer.objects.update(urgent=False, next_fetch_at=timezone.now() + timedelta(days=1))

    def queries_of(delivery: Any) -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            assert delivery().status_code == 200
        return [query["sql"] for query in queries]

    later = int(time.time()) + 1
    beside = queries_of(lambda: to_djstripe(of_our_key, summary("cus_acme", "sso", created=later)))
    own = queries_of(lambda: deliver(summary("cus_acme", "sso", created=later + 1)))
    webhooks.post_save.disconnect(sender=WebhookEventTrigger, dispatch_uid=webhooks._UID)
    webhooks.webhook_post_process.disconnect(dispatch_uid=webhooks._UID)
    try:
        alone = queries_of(lambda: to_djstripe(of_our_key, summary("cus_acme", "sso", created=later + 2)))
    finally:
        webhooks.connect()
    assert len(beside) - len(alone) == len(own) + 1, "\n".join(beside)
    assert len([sql for sql in alone if "entitlements_app" in sql]) == 0


def test_an_urgent_customer_is_fetched_at_once(endpoint: WebhookEndpoint, stripe: StripeSimulator) -> None:
    """A summary that is cut at ten does not say all."""
    stripe_id = stripe.create_customer()["id"]
    assert to_djstripe(endpoint, summary(stripe_id, "sso", has_more=True)).status_code == 200
    assert Customer.objects.get(stripe_id=stripe_id).fetched_at is not None


def test_a_subscription_event_is_a_question_for_later(endpoint: WebhookEndpoint, acme: Any) -> None:
    to_djstripe(endpoint, subscription_updated("cus_acme"))
    assert WebhookEvent.objects.get().status == "processed"
    assert customer().hinted_at is not None
