"""A pass of fetches: many customers at once, urgent first, within the budget; and what is left when it is cut short."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import DateTimeField, ExpressionWrapper, F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app import fetches, settle
from entitlements_app.budget import Allowance
from entitlements_app.models import AccountState, Customer, SyncRun
from entitlements_app.testing import StripeSimulator
from entitlements_app.windows import LEASE
from tests.delivery import deliver, summary
from tests.rows import catalogue_is_read, customer, held, polled
from tests.server import Server
from tests.shop import Shop
from tests.threads import Crowd
from tests.workers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/v1/entitlements/active_entitlements"
MINUTE = timedelta(minutes=1)


def due(*stripe_ids: str) -> list[str]:
    """Rows whose time has come, the first one first. Nothing but customers is asked about."""
    polled()
    catalogue_is_read()
    now = timezone.now()
    Customer.objects.bulk_create(
        Customer(stripe_id=stripe_id, livemode=False, next_fetch_at=now - MINUTE + number * timedelta(microseconds=1))
        for number, stripe_id in enumerate(stripe_ids)
    )
    return list(stripe_ids)


def due_customers(shop: Shop, number: int, *plans: str) -> list[str]:
    """Customers of Stripe's, with these plans, of whom we know nothing yet."""
    ids = [shop.customer() for _ in range(number)]
    for stripe_id in ids:
        for plan in plans:
            shop.subscribe(stripe_id, plan)
    shop.calls()
    return due(*ids)


def strangers(shop: Shop, number: int) -> list[str]:
    """Ever so many, of whom Stripe says that they hold nothing."""
    shop.stripe.missing_customer = "empty"  # type: ignore[assignment]
    return due(*(f"cus_{count}" for count in range(number)))


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=out)
    return out.getvalue()


def asked(shop: Shop) -> list[str]:
    return [request.params["customer"] for request in shop.stripe.requests if request.path == LIST]


def unasked() -> Any:
    return Customer.objects.filter(fetched_at=None)


@contextmanager
def running(shop: Shop, rate: float) -> Iterator[Any]:
    """A pass in a process of its own."""
    process = Server(shop.stripe, TEST_SERVER_RATE=str(rate)).popen("entitlements_run")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# --- the budget, and not the latency


def test_the_budget_and_not_the_latency_is_the_bound(shop: Shop, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 20
    ids = due_customers(shop, 24)
    shop.stripe.slow(0.8, LIST)
    began = time.monotonic()
    assert "24 answered" in run()
    assert 24 / 20 < time.monotonic() - began < 15, "one after the other that would be nineteen seconds"
    assert sorted(asked(shop)) == sorted(ids)


def test_two_processes_keep_the_rate_together_and_ask_about_nobody_twice(shop: Shop) -> None:
    ids = due_customers(shop, 32)
    Allowance(seconds=1).take()
    later = ExpressionWrapper(Now() + timedelta(seconds=40), output_field=DateTimeField())
    AccountState.objects.update(next_call_at=later)  # until both are ready
    moments: list[float] = []
    with running(shop, rate=8), running(shop, rate=8):
        wait_until(lambda: Customer.objects.exclude(claim="").values("claim").distinct().count() == 2)
        began = time.monotonic()
        AccountState.objects.update(next_call_at=None)
        wait_until(lambda: bool(_note(shop, moments)))
    assert sorted(asked(shop)) == sorted(ids)
    for number, moment in enumerate(moments):  # noted late at times, but never early; four may catch up
        assert moment - began > (number - 4) / 8


def _note(shop: Shop, moments: list[float]) -> bool:
    new = len(asked(shop)) - len(moments)
    moments += [time.monotonic()] * new
    return len(moments) >= 32


def test_who_is_urgent_does_not_wait_behind_thousands(shop: Shop, settings: Any) -> None:
    keys = [f"k{number:02}" for number in range(11)]
    shop.prices["wide"] = shop.plan("wide", *keys)
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "wide")
    strangers(shop, 3000)
    with running(shop, rate=10):
        wait_until(lambda: len(asked(shop)) > 5)
        settings.ENTITLEMENTS_STRIPE_API_KEY = None  # no fetch follows in this process
        settings.ENTITLEMENTS_LIVEMODE = False
        deliver(summary(stripe_id, *keys[:10], has_more=True))
        before = len(asked(shop))
        wait_until(lambda: stripe_id in asked(shop))
        passed = asked(shop).index(stripe_id) - before
        wait_until(lambda: held(stripe_id) == set(keys))
    assert passed <= 60, "behind those only who were being asked about: two seconds of the budget, on a quiet machine"


@pytest.mark.postgresql
def test_a_claim_reads_no_more_rows_than_it_takes(stripe: StripeSimulator) -> None:
    moment = timezone.now() - MINUTE  # the same for all, as after a change by hand
    Customer.objects.bulk_create(
        Customer(stripe_id=f"cus_{count}", livemode=False, next_fetch_at=moment, urgent=count < 15)
        for count in range(20_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE entitlements_app_customer")
    with CaptureQueriesContext(connection) as queries:
        assert len(fetches.claim_wave(20)) == 20
    selects = [query["sql"] for query in queries if "SKIP LOCKED" in query["sql"]]
    with connection.cursor() as cursor:
        for sql, index in zip(selects, ("entitlements_customer_urgent", "entitlements_customer_next"), strict=True):
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert index in plan
            assert "Sort" not in plan


# --- answers


@pytest.mark.parametrize("plans", [["pro"], []], ids=["changed", "unchanged"])
def test_twenty_answers_cost_as_many_queries_as_two(shop: Shop, plans: list[str]) -> None:
    due_customers(shop, 1, "pro")
    run()  # what is made once is there
    counts = []
    for number in (2, 20):
        due_customers(shop, number, *plans)
        answers = [(fetch, fetches.ask(fetch, Allowance(seconds=30))) for fetch in fetches.claim_wave(number)]
        with CaptureQueriesContext(connection) as queries:
            assert {synced.changed for synced in settle.apply(answers)} == {bool(plans)}
        counts.append(len(queries))
    assert counts[0] == counts[1] < 20


def test_each_customer_is_confirmed_within_its_time(shop: Shop, settings: Any) -> None:
    settings.ENTITLEMENTS_CONFIRM_EVERY = every = timedelta(days=3)
    due_customers(shop, 12)
    assert "12 answered" in run()
    now = timezone.now()
    waits = [row.next_fetch_at - now for row in Customer.objects.all() if row.next_fetch_at]
    assert len(set(waits)) == 12
    assert all(0.9 * every - MINUTE < wait <= every for wait in waits)
    confirm = SyncRun.objects.get(kind="confirm")
    assert (confirm.done, confirm.changed, confirm.failed, confirm.calls) == (12, 0, 0, 12)


def test_news_that_come_while_the_last_are_asked_about_do_not_wait_for_the_next_pass(shop: Shop) -> None:
    first, late = due_customers(shop, 2, "pro")
    Customer.objects.filter(stripe_id=late).update(next_fetch_at=timezone.now() + MINUTE)
    with shop.stripe.hold("GET", LIST) as answer:
        crowd = Crowd().start(run)
        answer.wait_for_request()
        time.sleep(0.2)  # it was looked once more, and nobody was due
        Customer.objects.filter(stripe_id=late).update(next_fetch_at=timezone.now(), urgent=True)
        wait_until(lambda: held(late) == {"sso", "export"})
        assert held(first) == set()
        answer.release()
        crowd.join()
    assert held(first) == {"sso", "export"}


def test_of_two_answers_about_one_customer_the_last_one_counts(shop: Shop) -> None:
    [stripe_id] = due_customers(shop, 1, "pro")
    with shop.stripe.hold("GET", LIST) as answer:
        crowd = Crowd().start(run)
        answer.wait_for_request()
        shop.subscribe(stripe_id, "reports")
        Customer.objects.filter(stripe_id=stripe_id).update(next_fetch_at=timezone.now(), urgent=True)
        wait_until(lambda: "reports" in held(stripe_id))
        answer.release()
        crowd.join()
    assert held(stripe_id) == {"sso", "export", "reports"}


def test_by_hand_those_deleted_meanwhile_do_not_end_the_run(shop: Shop, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 4  # eight at once
    *_, last = ids = due_customers(shop, 24)
    Customer.objects.update(next_fetch_at=timezone.now() + MINUTE)
    with shop.stripe.hold("GET", LIST) as answer:
        crowd = Crowd().start(lambda: call_command("entitlements_sync", "--all", stdout=StringIO(), stderr=StringIO()))
        answer.wait_for_request()
        Customer.objects.filter(stripe_id__in=ids[8:-1]).update(deleted_at=timezone.now(), next_fetch_at=None)
        answer.release()
        crowd.join()
    assert customer(last).fetched_at is not None


# --- cut short


def test_killed_in_the_middle_the_rest_goes_on_at_once_and_the_claimed_after_their_lease(shop: Shop) -> None:
    strangers(shop, 60)
    with running(shop, rate=5) as process:
        wait_until(lambda: unasked().count() < 57)
        process.kill()
        process.wait()
    claimed = unasked().exclude(claim="")
    number, rest = claimed.count(), unasked().filter(claim="").count()
    assert 0 < number <= 10
    assert re.search(rf"Fetches: {rest} answered", run())
    assert unasked().count() == number
    Customer.objects.filter(fetched_at=None).update(next_fetch_at=F("next_fetch_at") - LEASE)
    assert f"{number} answered" in run()


def test_interrupted_by_hand_it_gives_back_what_it_had_claimed(shop: Shop) -> None:
    strangers(shop, 40)
    planned = dict(Customer.objects.values_list("pk", "next_fetch_at"))
    with running(shop, rate=5) as process:
        wait_until(lambda: unasked().count() < 37)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) != 0
    assert all(planned[row.pk] == row.next_fetch_at and not row.claim for row in unasked())
    assert unasked().exists()


def test_in_a_pause_longer_than_the_pass_nobody_is_kept_waiting(shop: Shop) -> None:
    strangers(shop, 3)
    Allowance(seconds=1).take()
    later = ExpressionWrapper(Now() + timedelta(seconds=59), output_field=DateTimeField())
    AccountState.objects.update(next_call_at=later)
    began = time.monotonic()
    run()
    assert time.monotonic() - began < 30
    assert asked(shop) == []
    assert not Customer.objects.exclude(claim="").exists()
