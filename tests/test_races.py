"""Two at once: each pair meets inside the database, and ends in the newest state with exactly the right changes."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from entitlements_app import fetches, inbox
from entitlements_app.access import get_entitlements
from entitlements_app.linking import link, unlink
from entitlements_app.models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    Feature,
    SubscriberState,
    WebhookEvent,
)
from entitlements_app.sync import sync_customer
from entitlements_app.testing import webhook_client
from tests.delivery import customer_deleted, deliver, store_only, subscription_updated, summary
from tests.rows import customer, effective, held, log, make_subscriber
from tests.shop import Shop
from tests.threads import Crowd, closed, meeting_at, together, wait_for_backends

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/v1/entitlements/active_entitlements"
DOORS = ["customer", "subscriberstate"]
NOW = 0


@pytest.fixture(autouse=True)
def _now() -> None:
    """When the test begins: an event of a minute earlier would count as late."""
    global NOW
    NOW = int(time.time())


def post(event: dict[str, Any]) -> Callable[[], None]:
    def work() -> None:
        assert deliver(event).status_code == 200

    return work


def replayed(subscriber: Any) -> set[str]:
    keys: set[str] = set()
    for change in EntitlementChange.objects.filter(subscriber=subscriber, effective=True).order_by("pk"):
        if change.kind == "granted":
            assert change.lookup_key not in keys, "granted twice"
            keys.add(change.lookup_key)
        else:
            assert change.lookup_key in keys, "revoked twice"
            keys.remove(change.lookup_key)
    return keys


def assert_consistent(*subscribers: Any) -> None:
    """The log, the announced answer and the gate say the same, and nothing is left over."""
    for subscriber in subscribers:
        answer = set(get_entitlements(subscriber))
        assert replayed(subscriber) == answer
        state = SubscriberState.objects.filter(subscriber=subscriber).first()
        assert state is None or set(state.announced) == answer
    assert not WebhookEvent.objects.exclude(status__in=["processed", "ignored"]).exists()


@pytest.fixture
def both() -> tuple[Any, str, str]:
    """One subscriber with two customers."""
    subscriber = make_subscriber()
    link(subscriber, "cus_one")
    link(subscriber, "cus_two")
    return subscriber, "cus_one", "cus_two"


@pytest.mark.parametrize("newest_first", [True, False])
def test_two_payloads_of_one_customer(acme: Any, newest_first: bool) -> None:
    deliver(summary("cus_acme", "old", created=NOW - 20))
    events = [summary("cus_acme", "new", created=NOW), summary("cus_acme", "old", "mid", created=NOW - 10)]
    meeting_at("customer", *(post(event) for event in (events if newest_first else events[::-1])))
    assert held() == {"new"}
    assert effective() in (["+old", "+new", "-old"], ["+old", "+mid", "+new", "-mid", "-old"])
    assert_consistent(acme)


def test_two_payloads_of_one_second_leave_one_of_them_and_a_question(acme: Any) -> None:
    Customer.objects.update(hinted_at=None, urgent=False)
    events = [summary("cus_acme", key, created=NOW) for key in "ab"]
    meeting_at("customer", *map(post, events))
    assert held() in ({"a"}, {"b"})
    assert customer().urgent
    assert_consistent(acme)


def test_the_same_event_delivered_eight_times_at_once_counts_once(acme: Any) -> None:
    Customer.objects.update(urgent=False)
    event = summary("cus_acme", "sso", created=NOW)
    with closed("customer") as wait_for:
        crowd = Crowd().start(*[post(event)] * 8)
        wait_for(1)
        time.sleep(0.2)  # the others find the event taken, and need no lock
    crowd.join()
    assert (WebhookEvent.objects.count(), customer().version, effective()) == (1, 1, ["+sso"])
    assert not customer().urgent, "no copy of it was taken for a second event"
    assert_consistent(acme)


def test_first_events_of_one_unknown_customer_make_one_row() -> None:
    events = [summary("cus_new", "sso", created=NOW - 60 + second) for second in range(6)]
    meeting_at("customer", *map(post, events))
    assert Customer.objects.count() == 1
    assert customer("cus_new").window_to == NOW - 55


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("answer_first", [True, False])
def test_a_payload_against_a_fetch_in_flight(shop: Shop, door: str, answer_first: bool) -> None:
    """The list was computed before the change, and both arrive at the same moment."""
    subscriber = make_subscriber()
    stripe_id = shop.customer()
    link(subscriber, stripe_id)
    subscription = shop.subscribe(stripe_id, "pro")
    sync_customer(customer(stripe_id))
    Customer.objects.update(next_fetch_at=timezone.now() + timedelta(days=1), hinted_at=None, urgent=False)
    shop.new_events()
    shop.stripe.clock.advance(30)
    with shop.stripe.hold("GET", LIST) as in_flight:
        fetching = Crowd().start(lambda: sync_customer(customer(stripe_id)))
        in_flight.wait_for_request()
        shop.stripe.change_plan(subscription, shop.prices["enterprise"])
        [changed] = [event for event in shop.new_events() if event["type"].endswith("summary.updated")]
        now = shop.stripe.clock.seconds
        with closed(door) as wait_for:
            if answer_first:
                in_flight.release()
                wait_for(1)
            applying = Crowd().start(lambda: deliver(changed, t=now))
            wait_for(2 if answer_first else 1)
            in_flight.release()
            wait_for(2)
        applying.join()
        fetching.join()
    # Whichever came first, the newer state stands, without another question.
    assert held(stripe_id) == {"sso", "export", "audit"}
    sync_customer(customer(stripe_id))
    assert held(stripe_id) == shop.holds(stripe_id) == {"sso", "export", "audit"}
    assert effective().count("+audit") == 1
    assert_consistent(subscriber)


@pytest.mark.parametrize("door", DOORS)
def test_two_customers_of_one_subscriber_both_lose_a_key(both: Any, door: str) -> None:
    subscriber, one, two = both
    deliver(summary(one, "sso", created=NOW - 10))
    deliver(summary(two, "sso", created=NOW - 10))
    meeting_at(door, post(summary(one, created=NOW)), post(summary(two, created=NOW)))
    assert effective() == ["+sso", "-sso"]
    assert_consistent(subscriber)


@pytest.mark.parametrize("door", DOORS)
def test_two_customers_of_one_subscriber_both_gain_a_key(both: Any, door: str) -> None:
    subscriber, one, two = both
    meeting_at(door, post(summary(one, "sso", created=NOW)), post(summary(two, "sso", created=NOW)))
    assert effective() == ["+sso"]
    assert [row[3] for row in log(lookup_key="sso")] == [True, False]
    assert_consistent(subscriber)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("loser_first", [True, False])
def test_one_customer_gains_the_key_that_the_other_loses(both: Any, door: str, loser_first: bool) -> None:
    subscriber, one, two = both
    deliver(summary(one, "sso", created=NOW - 10))
    events = [summary(one, created=NOW), summary(two, "sso", created=NOW)]
    meeting_at(door, *map(post, events if loser_first else events[::-1]))
    assert effective() in (["+sso"], ["+sso", "-sso", "+sso"])
    assert set(get_entitlements(subscriber)) == {"sso"}
    assert_consistent(subscriber)


def test_one_gains_another_key_while_the_other_loses_one(both: Any) -> None:
    subscriber, one, two = both
    deliver(summary(one, "sso", created=NOW - 10))
    meeting_at("subscriberstate", post(summary(one, created=NOW)), post(summary(two, "audit", created=NOW)))
    assert sorted(effective()) == ["+audit", "+sso", "-sso"]
    assert_consistent(subscriber)


def test_the_first_state_of_a_subscriber_is_made_once(both: Any) -> None:
    subscriber, one, two = both
    SubscriberState.objects.all().delete()
    meeting_at("subscriberstate", post(summary(one, "a", created=NOW)), post(summary(two, "b", created=NOW)))
    assert sorted(effective()) == ["+a", "+b"]
    assert_consistent(subscriber)


@pytest.mark.parametrize("link_first", [True, False])
def test_a_link_against_an_event(link_first: bool) -> None:
    subscriber = make_subscriber()
    deliver(summary("cus_new", "old", created=NOW - 10))
    work = [lambda: link(subscriber, "cus_new"), post(summary("cus_new", "sso", created=NOW))]
    meeting_at("customer", *(work if link_first else work[::-1]))
    assert effective() in (["+sso"], ["+old", "+sso", "-old"])
    assert set(get_entitlements(subscriber)) == {"sso"}
    assert_consistent(subscriber)


def test_a_link_against_the_first_event(acme: Any) -> None:
    subscriber = make_subscriber()
    meeting_at("customer", lambda: link(subscriber, "cus_new"), post(summary("cus_new", "sso", created=NOW)))
    assert effective() == ["+sso"]
    assert_consistent(subscriber, acme)


def test_two_subscribers_cannot_both_link_one_customer() -> None:
    from entitlements_app.exceptions import AlreadyLinked

    outcomes = []

    def claim(subscriber: Any) -> None:
        try:
            outcomes.append(link(subscriber, "cus_new").subscriber_id)
        except AlreadyLinked:
            outcomes.append(None)

    subscribers = [make_subscriber(), make_subscriber()]
    meeting_at("customer", *(lambda subscriber=subscriber: claim(subscriber) for subscriber in subscribers))
    assert outcomes.count(None) == 1
    assert customer("cus_new").subscriber_id in outcomes


def test_an_unlink_against_an_event(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW - 10))
    meeting_at("customer", lambda: unlink("cus_acme"), post(summary("cus_acme", "sso", "audit", created=NOW)))
    assert set(get_entitlements(acme)) == set()
    assert held() == {"sso", "audit"}
    assert_consistent(acme)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("deletion_first", [True, False])
def test_the_deletion_of_a_subscriber_against_events(both: Any, door: str, deletion_first: bool) -> None:
    subscriber, one, two = both
    deliver(summary(one, "sso", created=NOW - 10))
    work = [subscriber.delete, post(summary(one, created=NOW)), post(summary(two, "audit", created=NOW))]
    meeting_at(door, *(work if deletion_first else work[::-1]))
    assert not SubscriberState.objects.exists()
    assert (held(one), held(two)) == (set(), {"audit"})
    assert customer(one).subscriber is customer(two).subscriber is None


@pytest.mark.postgresql
def test_the_deletion_of_a_subscriber_of_both_modes_against_a_batch_of_both(settings: Any) -> None:
    """The live customer has the lower key, and the batch begins with test mode."""
    subscriber = make_subscriber()
    for livemode in (True, False):
        link(subscriber, f"cus_{livemode}", livemode=livemode)
        settings.ENTITLEMENTS_LIVEMODE = livemode
        store_only(webhook_client.customer_deleted(f"cus_{livemode}", livemode=livemode))
    with transaction.atomic():
        list(Customer.objects.filter(livemode=False).select_for_update())
        crowd = Crowd().start(lambda: inbox.process_due(deadline=time.monotonic() + 30))
        wait_for_backends(1)
        crowd.start(subscriber.delete)
        wait_for_backends(2)
    crowd.join()
    assert not WebhookEvent.objects.exclude(status="processed").exists()
    assert not Customer.objects.exclude(subscriber=None).exists()


@pytest.mark.postgresql
def test_what_a_fetch_tells_of_a_feature_does_not_wait_for_grants_of_it(shop: Shop) -> None:
    """Nor they for it: each might hold what the other wants next."""
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    asked, other = link(make_subscriber(), stripe_id), link(make_subscriber(), "cus_other")
    sync_customer(asked)
    Feature.objects.update(name="")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a commit checks them
        for feature in Feature.objects.all():
            ActiveEntitlement.objects.create(customer=other, feature=feature, lookup_key=feature.lookup_key)
        together(lambda: sync_customer(asked))
    assert not Feature.objects.filter(name="").exists()


def test_a_deletion_against_a_payload(acme: Any) -> None:
    meeting_at("customer", post(customer_deleted("cus_acme")), post(summary("cus_acme", "sso", created=NOW)))
    assert held() == set()
    assert_consistent(acme)


def test_no_two_workers_claim_the_same_customer() -> None:
    for number in range(8):
        link(make_subscriber(), f"cus_{number}")
    claimed: list[int] = []

    def claim() -> None:
        while wave := fetches.claim_wave(2):
            claimed.extend(fetch.pk for fetch in wave)

    meeting_at("customer", *[claim] * 4)
    assert sorted(claimed) == sorted(Customer.objects.values_list("pk", flat=True))


def test_a_crowd_of_webhooks_ends_in_the_newest_state_of_everybody() -> None:
    """Eight threads, a hundred events, two customers a subscriber; on SQLite none is ever locked out."""
    chance = random.Random(7)
    subscribers = {}
    for number in range(4):
        subscribers[number] = make_subscriber()
        link(subscribers[number], f"cus_{number}_a")
        link(subscribers[number], f"cus_{number}_b")
    events = []
    newest = {}
    for second in range(12):
        for number, which in itertools.product(range(4), "ab"):
            keys = tuple(sorted(chance.sample("vwxyz", chance.randrange(5))))
            stripe_id = f"cus_{number}_{which}"
            newest[stripe_id] = set(keys)
            events.append(summary(stripe_id, *keys, created=NOW - 50 + second))
            if chance.random() < 0.2:
                events.append(subscription_updated(stripe_id))
    chance.shuffle(events)
    shares = [events[start::8] for start in range(8)]
    together(*(lambda share=share: [post(event)() for event in share] for share in shares))
    assert {stripe_id: held(stripe_id) for stripe_id in newest} == newest
    assert_consistent(*subscribers.values())
