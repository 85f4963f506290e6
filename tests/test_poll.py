"""Lost webhooks are found by asking the Events API: how far back, how often, at what price."""

from __future__ import annotations

import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app.linking import link
from entitlements_app.models import AccountState, Customer, SyncRun, WebhookEvent
from entitlements_app.poll import PollReport, backfill_events, poll_if_due
from entitlements_app.testing.simulator import events
from tests.delivery import SUMMARY
from tests.rows import catalogue_is_read, customer, held, make_subscriber, polled
from tests.shop import Shop
from tests.threads import together

pytestmark = pytest.mark.django_db

HOUR = 3600
DAY = 24 * HOUR
EVENTS = "/v1/events"


@pytest.fixture(autouse=True)
def _stripe_s_clock_stands_still(request: pytest.FixtureRequest) -> None:
    if "shop" in request.fixturenames:
        request.getfixturevalue("shop").stripe.clock.freeze()


@pytest.fixture
def cus(shop: Shop) -> str:
    catalogue_is_read()
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    return stripe_id


def poll(seconds: float = 30) -> PollReport:
    AccountState.objects.update(next_call_at=None)  # any pause is over
    return backfill_events(deadline=time.monotonic() + seconds)


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=out)
    return out.getvalue()


def position() -> int | None:
    return AccountState.objects.get().polled_to


def later(shop: Shop, seconds: float) -> None:
    shop.stripe.clock.advance(seconds)


def caught_up(shop: Shop) -> None:
    """A poll has been here, and its calls are forgotten."""
    assert poll().problem == ""
    shop.calls()


def happen(shop: Shop, stripe_id: str, *, times: int = 1, kind: str = SUMMARY, **changed: Any) -> list[dict[str, Any]]:
    """Events that no webhook brings, with an envelope that is changed in places."""
    happened = []
    for _ in range(times):
        carried = {
            "object": "entitlements.active_entitlement_summary",
            "customer": stripe_id,
            "livemode": False,
            "entitlements": {"object": "list", "data": [], "has_more": False, "url": "/"},
        }
        event = events.record(shop.stripe._account, kind, carried)
        event.update(changed)
        happened.append(event)
    return happened


def statuses() -> list[str]:
    return sorted(WebhookEvent.objects.values_list("status", flat=True))


# --- a lost webhook


def test_a_lost_webhook_is_found_by_the_run_that_fetches_its_customer(shop: Shop, cus: str) -> None:
    Customer.objects.update(next_fetch_at=timezone.now() + timedelta(days=7), hinted_at=None, urgent=False)
    for _ in range(3):
        link(make_subscriber(), shop.customer())
    Customer.objects.update(next_fetch_at=timezone.now() + timedelta(days=7), hinted_at=None, urgent=False)
    shop.subscribe(cus, "pro")
    later(shop, 130)
    shop.calls()
    output = run()
    assert "Events API: 1 found that had not come, 1 call(s).\n" in output
    assert "Fetches: 1 answered, 1 of them changed" in output
    assert held(cus) == {"export", "sso"}
    assert shop.calls() == [EVENTS, "/v1/entitlements/active_entitlements"]


def test_what_is_found_is_a_hint_and_never_a_state(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    later(shop, 130)
    poll()
    event = WebhookEvent.objects.get()
    assert (event.status, event.sent_at, event.type) == ("pending", None, SUMMARY)
    shop.stripe.fail_requests(500, path="/v1/entitlements/active_entitlements")
    polled()
    run()
    assert held(cus) == set()
    assert customer(cus).urgent


def test_a_lost_deletion_is_found(shop: Shop, cus: str) -> None:
    caught_up(shop)
    shop.stripe.delete_customer(cus)
    later(shop, 601)
    polled_again = poll()
    assert polled_again.found >= 1
    polled()
    run()
    assert customer(cus).deleted_at is not None


def test_what_came_by_webhook_costs_one_call_and_no_fetch(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    shop.deliver()
    Customer.objects.update(next_fetch_at=timezone.now() + timedelta(days=7), hinted_at=None, urgent=False)
    later(shop, 601)
    shop.calls()
    for _ in range(3):
        assert poll().found == 0
        later(shop, 600)
    assert shop.calls() == [EVENTS] * 3
    run()
    assert customer(cus).hinted_at is None


def test_what_is_younger_than_two_minutes_is_left_to_its_webhook(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    later(shop, 119)
    assert poll().found == 0
    shop.deliver()
    assert held(cus) == {"export", "sso"}, "its payload counts"
    later(shop, 600)
    assert poll().found == 0


def test_a_webhook_that_comes_after_the_poll_is_a_hint_as_well(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    later(shop, 130)
    assert poll().found == 1
    shop.calls()
    shop.deliver(only=SUMMARY)
    event = WebhookEvent.objects.get(type=SUMMARY)
    assert (event.status, event.sent_at) == ("processed", None)
    assert held(cus) == {"export", "sso"}
    assert shop.calls() == ["/v1/entitlements/active_entitlements"], "by the fetch that follows a webhook"


# --- how far back


def test_the_first_poll_looks_an_hour_back(shop: Shop, cus: str) -> None:
    happen(shop, "cus_too_old")
    later(shop, 10)
    happen(shop, "cus_found")
    later(shop, HOUR - 5)
    assert poll().found == 1
    assert WebhookEvent.objects.get().customer_stripe_id == "cus_found"
    assert position() == shop.stripe.clock.seconds - 120


def test_the_first_poll_of_an_account_with_a_long_history_does_not_read_it(shop: Shop, cus: str) -> None:
    happen(shop, cus, times=350)
    later(shop, DAY)
    happen(shop, cus, times=2)
    later(shop, 600)
    shop.calls()
    assert poll().found == 2
    assert shop.calls() == [EVENTS] * 2
    assert position() == shop.stripe.clock.seconds - 120


@pytest.mark.parametrize(("days", "most"), [(3, 8), (29, 35)])
def test_an_outage_costs_about_a_call_a_day(shop: Shop, cus: str, days: int, most: int) -> None:
    caught_up(shop)
    later(shop, 60)
    happen(shop, "cus_first_day")
    later(shop, (days - 1) * DAY)
    happen(shop, "cus_last_day")
    later(shop, DAY)
    assert poll().found == 2
    assert len(shop.calls()) <= most
    assert position() == shop.stripe.clock.seconds - 120


def test_after_forty_days_what_stripe_still_lists_is_found(shop: Shop, cus: str, caplog: Any) -> None:
    caught_up(shop)
    later(shop, 60)
    happen(shop, "cus_forgotten")
    later(shop, 15 * DAY)
    happen(shop, "cus_found")
    later(shop, 25 * DAY)
    assert poll().found == 1
    assert WebhookEvent.objects.get().customer_stripe_id == "cus_found"
    assert "ENTITLEMENTS_CONFIRM_EVERY" in caplog.text
    assert len(shop.calls()) <= 37
    assert position() == shop.stripe.clock.seconds - 120


def test_an_event_that_comes_late_into_stripe_s_list_is_found_by_the_overlap(shop: Shop, cus: str) -> None:
    caught_up(shop)
    shop.stripe.lag_events(40 * 60)
    shop.subscribe(cus, "pro")
    found = []
    for _ in range(5):
        later(shop, 600)
        found.append(poll().found)
    assert found == [0, 0, 0, 1, 0]
    assert shop.calls() == [EVENTS] * 5


def test_created_out_of_order_within_the_overlap_is_found(shop: Shop, cus: str) -> None:
    later(shop, HOUR)
    caught_up(shop)
    shop.stripe.shift_created(-50 * 60)
    happen(shop, "cus_shifted")
    assert poll().found == 1


# --- many events


@pytest.mark.parametrize("spread", [0, 1])
def test_a_call_brings_a_hundred_events(shop: Shop, cus: str, spread: int) -> None:
    caught_up(shop)
    for number in range(250):
        happen(shop, f"cus_{number}")
        later(shop, spread)
    later(shop, 601)
    assert poll().found == 250
    assert shop.calls() == [EVENTS] * 3
    assert WebhookEvent.objects.count() == 250


def test_a_page_takes_as_many_queries_whatever_it_holds(shop: Shop, cus: str) -> None:
    caught_up(shop)
    happen(shop, cus)
    later(shop, 601)
    with CaptureQueriesContext(connection) as few:
        assert poll().found == 1
    happen(shop, cus, times=70)
    later(shop, 601)
    with CaptureQueriesContext(connection) as many:
        assert poll().found == 70
    assert len(many) == len(few)


def test_a_poll_that_has_too_little_time_makes_headway(shop: Shop, cus: str) -> None:
    """Not even the hour that is read again fits into one."""
    caught_up(shop)
    for _ in range(8):
        happen(shop, cus, times=100)
        later(shop, HOUR / 4)
    call = 0.05
    shop.stripe.slow(call, path=EVENTS)
    seconds = 4 * call  # all of it takes nine calls, and each of them that long or, on a busy machine, longer
    positions = [position()]
    polls = 0
    while positions[-1] != shop.stripe.clock.seconds - 120:
        poll(seconds)
        polls += 1
        assert polls < 40
        if position() == positions[-1]:
            seconds *= 1.25
        else:
            positions.append(position())
    assert positions == sorted(positions, key=int)
    assert len(positions) > 2
    assert WebhookEvent.objects.count() == 800


def killed_at_page(number: int) -> Any:
    """From when it begins to store that page the process does nothing any more."""
    pages = 0

    def wrapper(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal pages
        pages += "INSERT" in sql and "webhookevent" in sql
        if pages == number:
            raise KeyboardInterrupt
        return execute(sql, *args)

    return connection.execute_wrapper(wrapper)


def test_a_poll_that_is_killed_keeps_what_it_found_and_goes_on(shop: Shop, cus: str) -> None:
    caught_up(shop)
    before = position()
    happen(shop, cus, times=60)
    later(shop, HOUR)
    happen(shop, cus, times=170)
    later(shop, HOUR)
    with killed_at_page(3), pytest.raises(KeyboardInterrupt):
        poll()
    assert before is not None
    assert position() == before + HOUR, "the first slice is done"
    found = WebhookEvent.objects.count()
    assert 60 < found < 230
    shop.calls()
    assert poll_if_due(deadline=time.monotonic() + 30) is None, "it may still be at work"
    with time_machine.travel(time.time() + 660):
        report = poll_if_due(deadline=time.monotonic() + 30)
    assert report is not None
    assert report.found == 230 - found
    assert len(shop.calls()) <= 4
    assert position() == shop.stripe.clock.seconds - 120


@pytest.mark.django_db(transaction=True)
def test_two_polls_at_once_find_everything_once(shop: Shop, cus: str) -> None:
    caught_up(shop)
    happen(shop, cus, times=120)
    later(shop, 601)
    together(poll, poll)
    assert WebhookEvent.objects.count() == 120
    assert position() == shop.stripe.clock.seconds - 120


# --- clocks


@pytest.mark.parametrize("wrong", [-600, 600, -30 * DAY])
def test_our_clock_may_be_wrong(shop: Shop, cus: str, wrong: int) -> None:
    with time_machine.travel(time.time() + wrong, tick=True):
        happen(shop, "cus_lost")
        later(shop, 121)
        assert poll().found == 1
        assert position() == shop.stripe.clock.seconds - 120
        happen(shop, "cus_lost_too")
        later(shop, 601)
        assert poll().found == 1
        assert shop.calls()[-2:] == [EVENTS] * 2
        assert position() == shop.stripe.clock.seconds - 120


def test_without_a_date_our_clock_less_five_minutes_stands_in(shop: Shop, cus: str) -> None:
    shop.stripe.clock.unfreeze()
    shop.stripe.no_date()
    happen(shop, "cus_lost")
    later(shop, 400)
    now = int(time.time())
    with time_machine.travel(now + 400, tick=False):
        assert poll().found == 0
        assert position() == now + 400 - 300 - 120
    later(shop, 100)
    with time_machine.travel(now + 500, tick=False):
        assert poll().found == 1


def test_a_position_in_stripe_s_future_is_given_up(shop: Shop, cus: str, caplog: Any) -> None:
    """A simulated Stripe starts anew, or the database was copied."""
    caught_up(shop)
    AccountState.objects.update(polled_to=shop.stripe.clock.seconds + 90 * DAY)
    happen(shop, "cus_lost")
    later(shop, 601)
    assert poll().found == 1
    assert position() == shop.stripe.clock.seconds - 120
    assert "future" in caplog.text


# --- strange events


def test_events_of_others_are_stored_as_ignored(shop: Shop, cus: str) -> None:
    happen(shop, "cus_a", account="acct_1")
    happen(shop, "cus_b", context="org_1")
    happen(shop, "cus_c", livemode=True)
    happen(shop, "cus_d", object="v2.core.event")
    happen(shop, "cus_e")
    later(shop, 601)
    assert poll().found == 5
    assert statuses() == ["ignored"] * 4 + ["pending"]
    run()
    assert set(Customer.objects.values_list("stripe_id", flat=True)) == {cus, "cus_e"}
    assert poll().found == 0


def test_an_event_that_cannot_be_read_has_failed_and_its_customer_is_fetched(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    for event in shop.stripe._account.events.values():
        if event["type"] == SUMMARY:
            event["data"] = {"object": {"customer": cus, "entitlements": 7}}
    later(shop, 601)
    assert poll().found == 1
    assert statuses() == ["failed"]
    assert customer(cus).urgent
    polled()
    run()
    assert held(cus) == {"export", "sso"}
    assert poll().found == 0


def test_an_event_without_an_envelope_holds_up_no_other(shop: Shop, cus: str, caplog: Any) -> None:
    caught_up(shop)
    happen(shop, cus, times=99)
    happen(shop, cus, pending_webhooks=None, data=None, created=shop.stripe.clock.seconds, livemode="yes")
    happen(shop, cus, times=99)
    later(shop, 601)
    report = poll()
    assert (report.found, report.unreadable, report.problem) == (198, 1, "")
    assert "cannot be read: livemode" in caplog.text
    assert SyncRun.objects.latest("pk").failed == 1


def test_an_event_ignored_under_a_wrong_setting_counts_once_that_is_mended(shop: Shop, cus: str, settings: Any) -> None:
    shop.subscribe(cus, "pro")
    key = settings.ENTITLEMENTS_STRIPE_API_KEY
    settings.ENTITLEMENTS_STRIPE_API_KEY, settings.ENTITLEMENTS_LIVEMODE = None, True
    shop.deliver(only=SUMMARY)
    assert statuses() == ["ignored"]
    settings.ENTITLEMENTS_STRIPE_API_KEY, settings.ENTITLEMENTS_LIVEMODE = key, False
    later(shop, 601)
    assert poll().found == 1
    assert statuses() == ["pending"]


# --- when Stripe does not answer


@pytest.mark.parametrize("trouble", [401, 403, 429, 500, 503, "connection", "page"])
def test_what_stripe_prevents_is_recorded_and_made_up_for(shop: Shop, cus: str, trouble: Any) -> None:
    caught_up(shop)
    happen(shop, "cus_lost")
    later(shop, 601)
    before = position()
    if trouble == "connection":
        shop.stripe.drop_connections()
    elif trouble == "page":
        shop.stripe._account.events = {}
        happen(shop, "cus_lost", id="")
        happen(shop, "cus_lost", times=100, id="")
        later(shop, 601)
    else:
        shop.stripe.fail_requests(trouble)
    report = poll()
    assert report.problem == SyncRun.objects.latest("pk").error != ""
    assert report.stopped is (trouble == 401)
    assert position() == before
    if trouble == "page":
        return
    if report.stopped:
        assert poll_if_due(deadline=time.monotonic() + 30) is None
        AccountState.objects.update(stopped_at=None)
    assert poll().found == 1


def test_a_run_fails_when_the_poll_s_key_is_refused(shop: Shop, cus: str) -> None:
    shop.stripe.fail_requests(401, path=EVENTS)
    with pytest.raises(CommandError, match="refused the API key"):
        run()


def test_a_key_that_may_not_read_events_still_fetches_customers(shop: Shop, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_reader"
    shop.stripe.add_restricted_key("rk_test_reader", "entitlement_read", "customer_read", "product_read")
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    run()
    assert held(stripe_id) == {"sso", "export"}
    assert "must be allowed to read Events" in SyncRun.objects.get(kind="backfill").error
    SyncRun.objects.update(finished_at=timezone.now() - timedelta(minutes=50))
    assert poll_if_due(deadline=time.monotonic() + 30) is None
    SyncRun.objects.update(finished_at=timezone.now() - timedelta(minutes=61))
    assert poll_if_due(deadline=time.monotonic() + 30) is not None


def test_no_call_is_made_inside_a_transaction(shop: Shop, cus: str) -> None:
    shop.calls()
    with transaction.atomic(), pytest.raises(RuntimeError, match="cannot run inside"):
        poll()
    assert shop.calls() == []


# --- how often


def test_a_poll_is_due_every_ten_minutes(shop: Shop, cus: str) -> None:
    happen(shop, cus)
    later(shop, 601)
    now = time.time()
    due = []
    for minutes in range(0, 25, 3):
        with time_machine.travel(now + minutes * 60, tick=False):
            due.append(poll_if_due(deadline=time.monotonic() + 30) is not None)
    assert due == [True, False, False, False, True, False, False, False, True]
    first = SyncRun.objects.filter(kind="backfill").earliest("pk")
    assert (first.done, first.calls, first.failed, first.error) == (1, 1, 0, "")


def test_after_a_failure_it_is_due_in_a_minute(shop: Shop, cus: str) -> None:
    now = time.time()
    shop.stripe.fail_requests(500)
    due = []
    for seconds in (0, 30, 70):
        with time_machine.travel(now + seconds, tick=False):
            report = poll_if_due(deadline=time.monotonic() + 30)
            due.append(report and report.problem)
    assert "HTTP 500" in str(due[0])
    assert due[1:] == [None, ""]


def test_without_a_key_nothing_is_polled(settings: Any) -> None:
    assert poll_if_due(deadline=time.monotonic() + 30) is None
    assert not SyncRun.objects.exists()
