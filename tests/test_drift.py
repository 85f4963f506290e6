"""Drift: a fetch found what no event had told. Which key, the likely cause, and what is no drift at all."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from entitlements_app import inbox, reconcile
from entitlements_app.linking import link
from entitlements_app.models import Customer, EntitlementChange, Feature, SyncRun, WebhookEvent
from entitlements_app.stripe_objects import parse_event
from tests.delivery import SUMMARY, customer_deleted, deliver, store_only, subscription_updated, summary
from tests.rows import catalogue_is_read, customer, held, make_subscriber, polled
from tests.shop import Shop

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def cus(shop: Shop) -> str:
    """A customer on plan `pro`, of whom there was news two hours ago; settled since."""
    polled()
    catalogue_is_read()
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    shop.deliver()
    run()
    shop.stripe.clock.advance(3600)
    Customer.objects.update(hinted_at=None, urgent=False, fetched_at=timezone.now() - HOUR)
    WebhookEvent.objects.update(received_at=timezone.now() - 2 * HOUR)
    EntitlementChange.objects.all().delete()
    SyncRun.objects.filter(kind="confirm").delete()
    return stripe_id


def move(shop: Shop, cus: str, plan: str) -> list[dict[str, Any]]:
    """Another plan at Stripe. Returns the summaries, which nobody has delivered."""
    [subscription] = shop.stripe.call("GET", "/v1/subscriptions", {"customer": cus})["data"]
    shop.stripe.change_plan(subscription["id"], shop.prices[plan])
    return [event for event in shop.new_events() if event["type"] == SUMMARY]


def poll(event: dict[str, Any]) -> None:
    """As when the Events API has told of this one."""
    inbox.process(inbox.store(parse_event(json.dumps(event)), sent_at=None))


def run(command: str = "entitlements_run", *args: str) -> str:
    out = StringIO()
    Customer.objects.filter(deleted_at=None).update(next_fetch_at=timezone.now())
    call_command(command, *args, stdout=out, stderr=out)
    return out.getvalue()


def news_was(ago: timedelta) -> None:
    """As when the queue was long: the last hint is so long ago."""
    Customer.objects.exclude(hinted_at=None).update(hinted_at=timezone.now() - ago)


def found() -> dict[str, str]:
    """What fetches changed, as +key and -key, with the cause of its drift, empty if it is none."""
    rows = EntitlementChange.objects.filter(cause="fetch")
    return {("+" if row.kind == "granted" else "-") + row.lookup_key: row.drift for row in rows}


def counted() -> dict[str, int]:
    causes = ("event_lost", "catalog", "unknown")
    rows = SyncRun.objects.filter(kind="confirm").values(*(f"drift_{cause}" for cause in causes))
    return {cause: number for cause in causes if (number := sum(row[f"drift_{cause}"] for row in rows))}


# --- causes


def test_of_what_nothing_is_known_the_cause_is_unknown(shop: Shop, cus: str, caplog: pytest.LogCaptureFixture) -> None:
    move(shop, cus, "reports")
    with caplog.at_level(logging.WARNING, "entitlements_app"):
        out = run()
    assert "1 answered, 1 of them changed something (1 of which no event had told)" in out
    assert found() == {"+reports": "unknown", "-sso": "unknown", "-export": "unknown"}
    assert counted() == {"unknown": 3}
    assert caplog.messages == [
        f"What we held of {cus} was wrong until now: export (unknown), reports (unknown), sso (unknown)."
    ]


def test_a_summary_found_by_polling_was_lost(shop: Shop, cus: str) -> None:
    move(shop, cus, "enterprise")
    shop.stripe.clock.advance(180)
    SyncRun.objects.filter(kind="backfill").delete()
    run()
    assert found() == {"+audit": "event_lost"}
    assert counted() == {"event_lost": 1}


def test_an_older_event_that_was_delivered_does_not_hide_that_the_next_was_lost(shop: Shop, cus: str) -> None:
    deliver(summary(cus, "sso", "export", created=shop.stripe.clock.seconds), t=shop.stripe.clock.seconds)
    [event] = move(shop, cus, "enterprise")
    poll(event)
    run()
    assert found() == {"+audit": "event_lost"}


def test_news_of_the_subscription_without_a_summary_says_that_one_was_lost(shop: Shop, cus: str) -> None:
    move(shop, cus, "enterprise")
    deliver(subscription_updated(cus))
    news_was(2 * timedelta(minutes=1))
    run()
    assert found() == {"+audit": "event_lost"}
    assert counted() == {"event_lost": 1}


def test_a_deletion_that_only_a_fetch_finds_was_lost(shop: Shop, cus: str) -> None:
    shop.stripe.delete_customer(cus)
    run()
    assert found() == {"-sso": "event_lost", "-export": "event_lost"}
    assert counted() == {"event_lost": 2}


def test_a_catalogue_that_changed_since_explains_its_own_keys_alone(shop: Shop, cus: str) -> None:
    now = timezone.now()
    Feature.objects.create(stripe_id=shop.features["reports"]["id"], livemode=False, lookup_key="reports")
    Feature.objects.filter(lookup_key__in=["reports", "export"]).update(attached_at=now - HOUR)
    Feature.objects.filter(lookup_key="sso").update(detached_at=now - 30 * 24 * HOUR)
    move(shop, cus, "reports")
    run()
    assert found() == {"+reports": "catalog", "-sso": "catalog", "-export": "unknown"}
    assert counted() == {"catalog": 2, "unknown": 1}


def test_a_catalogue_that_changed_more_than_a_period_ago_explains_nothing(shop: Shop, cus: str) -> None:
    Feature.objects.update(detached_at=timezone.now() - timedelta(days=400))
    move(shop, cus, "reports")
    run()
    assert set(found().values()) == {"unknown"}


def test_an_event_that_says_what_we_held_does_not_explain_what_a_late_fetch_finds(shop: Shop, cus: str) -> None:
    stripe_now = shop.stripe.clock.seconds
    deliver(summary(cus, "sso", "export", created=stripe_now), t=stripe_now)
    move(shop, cus, "enterprise")
    news_was(2 * timedelta(minutes=1))
    run()
    assert found() == {"+audit": "unknown"}


def test_by_hand_the_cause_is_told(shop: Shop, cus: str) -> None:
    move(shop, cus, "enterprise")
    assert run("entitlements_sync", "--all").splitlines()[1:] == [
        f"{cus}: +audit (no event had told; likely cause: unknown)",
        "Fetches: 1 answered, 1 of them changed something (1 of which no event had told), 0 failed.",
    ]
    assert run("entitlements_sync", "--customer", cus) == f"{cus}: no change\n"
    assert counted() == {"unknown": 1}


# --- no drift


def no_drift(*changes: str) -> bool:
    return found() == dict.fromkeys(changes, "") and counted() == {}


def test_the_first_look_at_a_customer(shop: Shop) -> None:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    run()
    assert no_drift("+sso", "+export")


def test_a_fetch_that_changes_nothing(shop: Shop, cus: str) -> None:
    assert "0 of them changed something, 0 failed" in run()
    assert no_drift()


def test_an_event_that_waits_to_be_processed(shop: Shop, cus: str) -> None:
    store_only(*move(shop, cus, "enterprise"))
    out = run("entitlements_sync", "--customer", cus)
    assert out == f"{cus}: +audit\n"
    assert no_drift("+audit")


def test_an_event_that_could_not_carry_all(shop: Shop, cus: str) -> None:
    keys = [f"k{number:02}" for number in range(11)]
    shop.prices["wide"] = shop.plan("wide", *keys)
    shop.new_events()
    move(shop, cus, "wide")
    deliver(summary(cus, *keys[:10], has_more=True))
    news_was(2 * timedelta(minutes=1))
    run()
    assert no_drift(*(f"+{key}" for key in keys), "-sso", "-export")


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(minutes=2)], ids=["at once", "after a long queue"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_two_events_of_one_second(shop: Shop, cus: str, newest_first: bool, ago: timedelta, settings: Any) -> None:
    shop.stripe.same_second(2)
    events = move(shop, cus, "enterprise") + move(shop, cus, "pro") + move(shop, cus, "reports")
    back, there = events[1], events[0]  # one of them says what we held
    store_only(*((there, back) if newest_first else (back, there)))
    settings.ENTITLEMENTS_STRIPE_API_KEY, key = None, settings.ENTITLEMENTS_STRIPE_API_KEY
    run()
    settings.ENTITLEMENTS_STRIPE_API_KEY = key
    news_was(ago)
    run()
    assert no_drift("+reports", "-sso", "-export")


def test_a_list_that_lags_and_corrects_itself(shop: Shop, cus: str) -> None:
    [event] = move(shop, cus, "enterprise")
    shop.stripe.lag_lists(30)
    delivery = shop.stripe.signed_delivery(event["id"], t=shop.stripe.clock.seconds)
    deliver(delivery.body, t=shop.stripe.clock.seconds)
    assert "audit" in held(cus)
    run()
    assert "audit" not in held(cus), "what the list says is believed for a minute"
    shop.stripe.lag_lists(0)
    news_was(2 * timedelta(minutes=1))
    run()
    assert "audit" in held(cus)
    assert set(found().values()) == {""}
    assert counted() == {}


def test_a_deletion_that_was_told(shop: Shop, cus: str) -> None:
    shop.stripe.delete_customer(cus)
    store_only(customer_deleted(cus))
    run("entitlements_sync", "--customer", cus)
    assert no_drift("-sso", "-export")
    run()
    assert customer(cus).deleted_at is not None


def test_what_somebody_waits_for_after_a_checkout_is_on_its_way(shop: Shop, cus: str) -> None:
    move(shop, cus, "enterprise")
    assert reconcile.fetch_awaited(customer(cus).subscriber, unless_within=timedelta(0))
    assert no_drift("+audit")
