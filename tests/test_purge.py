"""What is forgotten, and what never is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from entitlements_app import old_rows, runs
from entitlements_app.linking import link, unlink
from entitlements_app.models import Customer, EntitlementChange, SyncRun, WebhookEvent
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.purge import PurgeReport, purge_history, purge_if_due
from tests.delivery import customer_deleted, deliver, subscription_updated, summary
from tests.receivers import Listener, connected
from tests.rows import broken_processing, make_subscriber
from tests.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


def soon() -> float:
    return time.monotonic() + 30


def purge(**ages: timedelta) -> PurgeReport:
    return purge_history(**ages, deadline=soon())


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=StringIO())
    return out.getvalue()


def received(age: timedelta) -> None:
    """Make all events of today that old, as if the days had passed."""
    WebhookEvent.objects.filter(received_at__gt=timezone.now() - DAY).update(received_at=F("received_at") - age)


def changed(age: timedelta) -> None:
    EntitlementChange.objects.filter(created_at__gt=timezone.now() - DAY).update(created_at=F("created_at") - age)


def payloads() -> list[bool]:
    return [event.payload is not None for event in WebhookEvent.objects.order_by("pk")]


# --- events


def test_a_payload_is_forgotten_before_its_event(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    received(20 * DAY)
    deliver(summary("cus_acme", "audit"))
    received(6 * DAY)
    deliver(summary("cus_acme", "audit", "sso"))
    assert purge() == PurgeReport(payloads=1)
    assert payloads() == [False, True, True]
    received(14 * DAY)
    assert purge() == PurgeReport(payloads=1)
    assert payloads() == [False, True, False]


def test_an_event_is_forgotten_in_the_end(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    deliver(subscription_updated("cus_acme"))
    deliver(summary("cus_acme", "sso", livemode=True))
    received(34 * DAY)
    assert purge().events == 0
    received(2 * DAY)
    WebhookEvent.objects.update(received_at=F("received_at") - 2 * DAY)
    assert purge().events == 3
    assert not WebhookEvent.objects.exists()


def test_a_pending_event_is_never_forgotten_however_old(acme: Any) -> None:
    with broken_processing():
        deliver(summary("cus_acme", "sso"))
    received(400 * DAY)
    assert purge() == PurgeReport()
    run()
    assert payloads() == [True], "it was processed, and what it carried is still here to see"


def test_an_event_that_failed_keeps_its_payload_as_long_as_its_row(acme: Any) -> None:
    with broken_processing():
        deliver(summary("cus_acme", "sso"))
        WebhookEvent.objects.update(attempts=7)
        for _ in range(2):
            WebhookEvent.objects.update(next_attempt_at=timezone.now())
            run()
    assert WebhookEvent.objects.get().status == "failed"
    received(34 * DAY)
    assert purge() == PurgeReport()
    assert payloads() == [True]
    WebhookEvent.objects.update(received_at=F("received_at") - 2 * DAY)
    assert purge() == PurgeReport(events=1)


def test_an_event_whose_payload_was_forgotten_is_still_known(acme: Any) -> None:
    event = summary("cus_acme", "sso")
    deliver(event)
    received(20 * DAY)
    purge()
    deliver(event)
    assert [row.status for row in WebhookEvent.objects.all()] == ["processed"]


# --- changes


def customers_hold() -> dict[tuple[Any, str], str]:
    """What the newest row says of each customer and key, in the rows that replay to what customers hold."""
    return _newest(EntitlementChange.objects.filter(cause__in=["event", "fetch"]), "customer_id")


def answers() -> dict[tuple[Any, str], str]:
    return _newest(EntitlementChange.objects.filter(effective=True), "subscriber_id")


def _newest(rows: Iterable[EntitlementChange], whose: str) -> dict[tuple[Any, str], str]:
    ordered = sorted(rows, key=lambda row: row.pk)
    return {(getattr(row, whose), row.lookup_key): row.kind for row in ordered}


def held() -> set[tuple[Any, str]]:
    return {
        (row.pk, key)
        for row in Customer.objects.all()
        for key in row.active_entitlements.values_list("lookup_key", flat=True)
    }


def test_only_what_a_newer_row_says_again_is_forgotten(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    WebhookEvent.objects.update(created=F("created") - 10)
    Customer.objects.update(window_from=F("window_from") - 10, window_to=F("window_to") - 10)
    deliver(summary("cus_acme", "audit"))
    changed(500 * DAY)
    assert purge().changes == 1
    left = EntitlementChange.objects.order_by("pk").values_list("kind", "lookup_key")
    assert set(left) == {("granted", "audit"), ("revoked", "sso")}


@pytest.mark.once
@pytest.mark.parametrize("seed", range(2))
def test_the_log_replays_as_before(shop: Shop, seed: int) -> None:
    """Whatever has happened, in whatever order, and wherever the past begins."""
    chance = random.Random(seed)
    subscribers = [make_subscriber() for _ in range(2)]
    customers = [shop.customer() for _ in range(3)]
    subscriptions = [shop.subscribe(each, "pro") for each in customers]

    def change_plan() -> None:
        shop.stripe.clock.advance(3)
        shop.stripe.change_plan(chance.choice(subscriptions), shop.prices[chance.choice(["pro", "enterprise"])])
        shop.deliver()

    steps = [
        change_plan,
        lambda: link(chance.choice(subscribers), chance.choice(customers), move=True),
        lambda: unlink(chance.choice(customers)),
        lambda: chance.choice([grant, deny])(chance.choice(subscribers), "audit", force=True),
        lambda: clear(chance.choice(subscribers), "audit"),
    ]
    listener = Listener()
    for each in customers:
        link(chance.choice(subscribers), each)
    with connected(listener):
        for _ in range(40):
            listener.fails = chance.choice([0, 0, 0, 1])
            chance.choice(steps)()
            if chance.random() < 0.1:  # given up
                EntitlementChange.objects.waiting().update(parked_at=timezone.now(), next_attempt_at=None)
        pks = list(EntitlementChange.objects.order_by("pk").values_list("pk", flat=True))
        old = pks[int(len(pks) * chance.uniform(0.5, 1)) - 1]
        EntitlementChange.objects.filter(pk__lte=old).update(created_at=F("created_at") - 500 * DAY)
    before = customers_hold(), answers()
    assert {key for key, kind in before[0].items() if kind == "granted"} == held()
    undelivered = set(EntitlementChange.objects.undelivered().values_list("pk", flat=True))

    deleted = purge().changes

    assert deleted > 0
    assert (customers_hold(), answers()) == before
    assert set(EntitlementChange.objects.undelivered().values_list("pk", flat=True)) == undelivered
    assert purge().changes == 0


def test_what_is_undelivered_or_parked_is_never_forgotten(acme: Any) -> None:
    listener = Listener()
    with connected(listener):
        listener.fails = 1
        grant(acme, "sso", force=True)
        clear(acme, "sso")
        grant(acme, "sso", force=True)
        changed(500 * DAY)
        assert purge().changes == 0
        EntitlementChange.objects.filter(delivered_at=None).update(parked_at=timezone.now())
        assert purge().changes == 0
    assert EntitlementChange.objects.undelivered().count() == 3


def test_answers_of_subscribers_that_are_gone_are_forgotten(acme: Any) -> None:
    grant(acme, "sso", force=True)
    acme.delete()
    changed(500 * DAY)
    assert purge().changes == 1


def test_the_rows_of_one_mode_do_not_stand_for_those_of_the_other(acme: Any) -> None:
    grant(acme, "sso", force=True)
    clear(acme, "sso")
    EntitlementChange.objects.filter(kind="revoked").update(livemode=True)
    changed(500 * DAY)
    assert purge().changes == 0


def test_a_row_that_changed_no_answer_does_not_stand_for_one_that_did(acme: Any) -> None:
    link(acme, "cus_second")
    deliver(summary("cus_acme", "sso"))
    deliver(summary("cus_second", "sso"))
    EntitlementChange.objects.filter(customer__stripe_id="cus_acme").update(cause="link")
    changed(500 * DAY)
    assert [row.effective for row in EntitlementChange.objects.order_by("pk")] == [True, False]
    assert purge().changes == 0


# --- runs


def test_of_each_kind_the_latest_run_stays_and_what_is_at_work() -> None:
    for kind in (runs.Kind.CATALOG, runs.Kind.BACKFILL):
        for _ in range(3):
            run = runs.start(kind)
            assert run
            runs.finish(run)
            SyncRun.objects.filter(kind=kind).update(
                started_at=F("started_at") - 100 * DAY, finished_at=F("finished_at") - 100 * DAY
            )
    at_work = runs.start(runs.Kind.CATALOG)
    assert at_work
    SyncRun.objects.filter(pk=at_work.pk).update(started_at=timezone.now() - 95 * DAY)
    assert purge() == PurgeReport(runs=5)
    assert {(row.kind, row.finished_at is None) for row in SyncRun.objects.all()} == {
        ("catalog", True),
        ("backfill", False),
    }


# --- when, and how much


def test_a_run_forgets_once_a_day_also_without_a_key(acme: Any) -> None:
    for _ in range(2):
        deliver(summary("cus_acme", "sso"))
        received(20 * DAY)
        said = run()
    assert "Purged" not in said
    (done,) = SyncRun.objects.filter(kind="purge")
    assert (done.done, done.error) == (1, "")
    SyncRun.objects.update(finished_at=F("finished_at") - DAY)
    assert "Purged: 1 payload(s), 0 event(s), 0 change(s), 0 run(s).\n" in run()


def test_a_run_forgets_while_stripe_refuses_the_key(shop: Shop, acme: Any) -> None:
    shop.stripe.fail_requests(401)
    with pytest.raises(CommandError, match="refused"):
        run()
    assert SyncRun.objects.filter(kind="purge").exists()


def test_what_there_was_no_time_for_is_forgotten_by_the_next_pass(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    received(40 * DAY)
    report = purge_if_due(deadline=time.monotonic())
    assert report == PurgeReport(finished=False)
    assert "There is more" in report.as_line()
    assert purge_if_due(deadline=soon()) is None, "in a minute"
    SyncRun.objects.update(finished_at=F("finished_at") - timedelta(minutes=2))
    assert purge_if_due(deadline=soon()) == PurgeReport(payloads=1, events=1)


def test_many_rows_are_forgotten_in_short_transactions(acme: Any, django_assert_max_num_queries: Any) -> None:
    many = 2 * old_rows.BATCH + 1
    long_ago = timezone.now() - 40 * DAY
    WebhookEvent.objects.bulk_create(
        WebhookEvent(
            stripe_id=f"evt_{number}", livemode=False, type="x", status="processed", payload={}, received_at=long_ago
        )
        for number in range(many)
    )
    with django_assert_max_num_queries(60):
        assert purge() == PurgeReport(payloads=many, events=many)


@pytest.mark.parametrize(
    "ages",
    [
        {"events": 30 * DAY},
        {"payloads": 36 * DAY},
        {"payloads": 40 * DAY, "events": 39 * DAY},
        {"payloads": -DAY},
        {"changes": -DAY},
        {"runs": 6 * DAY},
    ],
)
def test_ages_that_make_no_sense_are_refused(ages: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError, match=r"kept|forgotten"):
        purge(**ages)


@pytest.mark.parametrize("deleted", [True, False])
def test_the_last_old_row_is_found_however_the_numbers_lie(acme: Any, deleted: bool) -> None:
    for number in range(20):
        deliver(customer_deleted(f"cus_{number}"))
    pks = list(WebhookEvent.objects.order_by("pk").values_list("pk", flat=True))
    if deleted:
        WebhookEvent.objects.filter(pk__in=pks[5:9]).delete()
    now = timezone.now()
    for old in (0, 1, 5, 9, 19, 20):
        WebhookEvent.objects.update(received_at=now)
        WebhookEvent.objects.filter(pk__in=pks[:old]).update(received_at=now - 50 * DAY)
        found = old_rows.last_before(WebhookEvent.objects.all(), "received_at", now - DAY)
        kept = [pk for pk in pks if WebhookEvent.objects.filter(pk=pk).exists()]
        assert [pk for pk in kept if pk <= found] == [pk for pk in kept if pk in pks[:old]]
