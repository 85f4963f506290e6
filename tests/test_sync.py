"""Fetching: what Stripe's API answers, over HTTP, with the real SDK."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from entitlements_app import fetches
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.linking import link
from entitlements_app.models import AccountState, ActiveEntitlement, Customer, WebhookEvent
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator
from tests.delivery import deliver, summary
from tests.rows import catalogue_is_read, customer, effective, held, log, make_subscriber, polled
from tests.shop import Shop
from tests.threads import Crowd, wait_for_backends

pytestmark = pytest.mark.django_db

LIST = "/v1/entitlements/active_entitlements"
LONG_AGO = timedelta(hours=1)


@pytest.fixture
def cus(shop: Shop) -> str:
    """A linked customer of whom Stripe has said nothing yet."""
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.new_events()
    return stripe_id


def settle(stripe_id: str) -> None:
    """As when the last news is long past: the next unchanged answer settles."""
    Customer.objects.filter(stripe_id=stripe_id).update(
        hinted_at=timezone.now() - LONG_AGO, next_fetch_at=timezone.now() - timedelta(seconds=1)
    )


def not_due(stripe_id: str) -> None:
    Customer.objects.filter(stripe_id=stripe_id).update(
        hinted_at=None, urgent=False, next_fetch_at=timezone.now() + timedelta(days=1)
    )


def one_at_a_time(settings: Any) -> None:
    """More than the budget's slack lies between two calls."""
    settings.ENTITLEMENTS_STRIPE_RATE = 4


def in_seconds(stripe_id: str) -> float:
    row = customer(stripe_id)
    assert row.next_fetch_at is not None
    return (row.next_fetch_at - timezone.now()).total_seconds()


def run() -> str:
    catalogue_is_read()
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=out)
    return out.getvalue()


# --- the answer


def test_a_fetch_makes_our_rows_equal_to_stripe_s(shop: Shop, cus: str) -> None:
    not_due(cus)
    deliver(summary(cus, "stale"))
    shop.subscribe(cus, "pro")
    synced = sync_customer(customer(cus))
    assert (synced.granted, synced.revoked) == ({"sso", "export"}, {"stale"})
    assert held(cus) == shop.holds(cus) == {"sso", "export"}
    assert [row for row in log() if row[2] == "fetch"] == [
        ("granted", "export", "fetch", True),
        ("granted", "sso", "fetch", True),
        ("revoked", "stale", "fetch", True),
    ]


def test_all_pages_are_read(shop: Shop, cus: str) -> None:
    keys = [f"k{number:03}" for number in range(230)]
    shop.prices["huge"] = shop.plan("huge", *keys)
    shop.subscribe(cus, "huge")
    shop.calls()
    sync_customer(customer(cus))
    assert held(cus) == set(keys)
    assert shop.calls() == [LIST] * 3


def test_more_than_ten_grants_arrive_by_an_event_and_the_fetch_it_asks_for(shop: Shop, cus: str) -> None:
    keys = [f"k{number}" for number in range(12)]
    shop.prices["wide"] = shop.plan("wide", *keys)
    shop.subscribe(cus, "wide")
    not_due(cus)
    shop.calls()
    shop.deliver()
    assert held(cus) == set(keys)
    assert shop.calls() == [LIST]


def test_a_second_subscription_keeps_what_it_also_grants(shop: Shop, cus: str) -> None:
    pro, enterprise = shop.subscribe(cus, "pro"), shop.subscribe(cus, "enterprise")
    sync_customer(customer(cus))
    shop.stripe.cancel(enterprise)
    sync_customer(customer(cus))
    assert held(cus) == {"sso", "export"}
    shop.stripe.cancel(pro)
    sync_customer(customer(cus))
    assert held(cus) == set()
    assert effective() == ["+audit", "+export", "+sso", "-audit", "-export", "-sso"]


def test_a_fetch_confirms_what_an_event_said(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    not_due(cus)
    shop.deliver()
    assert set(ActiveEntitlement.objects.values_list("confirmed_at", flat=True)) == {None}
    sync_customer(customer(cus))
    assert None not in set(ActiveEntitlement.objects.values_list("confirmed_at", flat=True))


# --- when the next one is due


def test_only_an_unchanged_answer_long_after_the_news_settles(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    settle(cus)
    sync_customer(customer(cus))
    assert 5 < in_seconds(cus) <= 60, "it changed something"
    assert customer(cus).hinted_at is not None
    sync_customer(customer(cus))
    assert in_seconds(cus) > 6 * 86_400
    assert (customer(cus).hinted_at, customer(cus).urgent) == (None, False)


def test_an_early_answer_applies_but_does_not_settle(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    sync_customer(customer(cus))
    sync_customer(customer(cus))
    assert held(cus) == {"sso", "export"}
    assert customer(cus).hinted_at is not None, "the link was less than a minute ago"
    assert 5 < in_seconds(cus) <= 60


def test_confirmations_are_spread_over_the_last_tenth_of_their_time(shop: Shop, cus: str, settings: Any) -> None:
    settings.ENTITLEMENTS_CONFIRM_EVERY = timedelta(days=10)
    days = set()
    for _ in range(5):
        settle(cus)
        sync_customer(customer(cus))
        days.add(in_seconds(cus) / 86_400)
    assert len(days) == 5
    assert 9 - 0.01 < min(days) < max(days) <= 10


def test_urgent_customers_are_fetched_first_then_the_longest_due(shop: Shop, settings: Any) -> None:
    one_at_a_time(settings)
    now = timezone.now()
    order = []
    for minutes, urgent in ((1, False), (9, False), (5, True), (7, True)):
        stripe_id = shop.customer()
        link(make_subscriber(), stripe_id)
        Customer.objects.filter(stripe_id=stripe_id).update(
            urgent=urgent, next_fetch_at=now - timedelta(minutes=minutes)
        )
        order.append(stripe_id)
    run()
    asked = [request.params["customer"] for request in shop.stripe.requests if request.path == LIST]
    assert asked == [order[3], order[2], order[1], order[0]]


def test_customers_of_the_other_mode_and_of_connected_accounts_are_never_asked_for(shop: Shop, cus: str) -> None:
    not_due(cus)
    link(make_subscriber(), "cus_live", livemode=True)
    link(make_subscriber(), "cus_connected", account="acct_1")
    polled()
    shop.calls()
    run()
    assert shop.calls() == []


# --- the whole truth or nothing


def test_an_empty_answer_revokes_after_stripe_said_that_it_knows_the_customer(shop: Shop, cus: str) -> None:
    subscription = shop.subscribe(cus, "pro")
    sync_customer(customer(cus))
    shop.stripe.cancel(subscription)
    shop.calls()
    sync_customer(customer(cus))
    assert held(cus) == set()
    assert shop.calls() == [LIST, f"/v1/customers/{cus}"]


def test_an_empty_answer_that_revokes_nothing_costs_one_call(shop: Shop, cus: str) -> None:
    shop.calls()
    sync_customer(customer(cus))
    assert shop.calls() == [LIST]


@pytest.mark.parametrize("answer", ["empty", "error"])
def test_a_deleted_customer_is_found_out_by_the_fetch(shop: Shop, cus: str, answer: Any) -> None:
    shop.stripe.deleted_customer = answer
    shop.subscribe(cus, "pro")
    sync_customer(customer(cus))
    shop.stripe.delete_customer(cus)
    synced = sync_customer(customer(cus))
    assert synced.revoked == {"sso", "export"}
    row = customer(cus)
    assert (row.deleted_at is not None, row.next_fetch_at, held(cus)) == (True, None, set())


@pytest.mark.parametrize("answer", ["400", "404", "empty"])
def test_of_a_customer_that_stripe_does_not_know_only_the_unconfirmed_is_withdrawn(
    shop: Shop, cus: str, answer: Any
) -> None:
    shop.stripe.missing_customer = answer
    deliver(summary("cus_elsewhere", "old"))
    link(make_subscriber(), "cus_elsewhere")
    ActiveEntitlement.objects.update(confirmed_at=timezone.now())
    not_due(cus)
    not_due("cus_elsewhere")
    shop.stripe.clock.advance(10)
    stripe_now = shop.stripe.clock.seconds
    deliver(summary("cus_elsewhere", "old", "new", created=stripe_now), t=stripe_now)
    assert held("cus_elsewhere") == {"old", "new"}
    synced = sync_customer(customer("cus_elsewhere"))
    assert (synced.granted, synced.revoked) == (frozenset(), {"new"})
    assert held("cus_elsewhere") == {"old"}
    assert customer("cus_elsewhere").missing_since is not None
    assert customer("cus_elsewhere").window_to == stripe_now, "a 404 says nothing about what it holds"
    assert 3000 < in_seconds("cus_elsewhere") <= 3600
    assert ("revoked", "new", "fetch", True) in log()


def test_a_customer_that_is_known_again_is_missing_no_more(shop: Shop, cus: str) -> None:
    Customer.objects.update(missing_since=timezone.now())
    sync_customer(customer(cus))
    assert customer(cus).missing_since is None


Break = Callable[[StripeSimulator], Any]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda stripe: stripe.fail_requests(429),
        lambda stripe: stripe.fail_requests(500),
        lambda stripe: stripe.fail_requests(503),
        lambda stripe: stripe.fail_requests(409),
        lambda stripe: stripe.drop_connections(),
        lambda stripe: stripe.stop(),
    ],
    ids=["429", "500", "503", "409", "connection lost", "nobody listens"],
)
def test_an_outage_changes_nothing_and_revokes_nothing(shop: Shop, cus: str, break_it: Break) -> None:
    subscription = shop.subscribe(cus, "pro")
    sync_customer(customer(cus))
    shop.stripe.cancel(subscription)
    before = Customer.objects.values().get()
    break_it(shop.stripe)
    with pytest.raises(StripeUnavailable):
        sync_customer(customer(cus))
    assert held(cus) == {"sso", "export"}
    assert Customer.objects.values().get() == before


@pytest.mark.django_db(transaction=True)
def test_a_missing_second_page_changes_nothing(shop: Shop, cus: str) -> None:
    shop.prices["huge"] = shop.plan("huge", *(f"k{number}" for number in range(150)))
    shop.subscribe(cus, "huge")
    with shop.stripe.hold("GET", LIST) as first_page:
        crowd = Crowd().start(lambda: sync_customer(customer(cus)))
        first_page.wait_for_request()
        shop.stripe.fail_requests(500, path=LIST)
        first_page.release()
        with pytest.raises(StripeUnavailable):
            crowd.join()
    assert held(cus) == set()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_every_call_until_it_changes_or_someone_resumes(
    shop: Shop, cus: str, status: int, caplog: Any, settings: Any
) -> None:
    shop.stripe.fail_requests(status, path=LIST)
    with pytest.raises(CommandError, match="refused the API key"):
        run()
    assert next(record.levelname for record in caplog.records if "refused the API key" in record.message) == "CRITICAL"
    assert in_seconds(cus) <= 0, "it has its time back"
    shop.calls()
    with pytest.raises(CommandError, match="entitlements_run --resume"):
        run()
    with pytest.raises(StripeRefused):
        sync_customer(customer(cus))
    deliver(summary(cus, "sso"))
    assert held(cus) == {"sso"}, "payloads need no call"
    assert shop.calls() == []
    call_command("entitlements_run", "--resume", stdout=StringIO())
    assert shop.calls() != []


def test_another_key_ends_the_stop(shop: Shop, cus: str, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_mistyped"
    with pytest.raises(StripeRefused):
        sync_customer(customer(cus))
    settings.ENTITLEMENTS_STRIPE_API_KEY = shop.stripe.api_key
    assert sync_customer(customer(cus)).applied
    assert AccountState.objects.get().stopped_at is None
    assert "mistyped" not in str(list(AccountState.objects.values()))


def test_a_server_error_makes_its_customer_wait_longer_each_time(shop: Shop, cus: str) -> None:
    waits = []
    for _ in range(3):
        settle(cus)
        AccountState.objects.update(next_call_at=None)
        shop.stripe.fail_requests(500, path=LIST)
        run()
        waits.append(round(in_seconds(cus), -1))
    assert waits == [60, 120, 240]
    settle(cus)
    run()
    assert customer(cus).fetch_failures == 0


def test_after_429_the_customer_has_its_time_back(shop: Shop, cus: str) -> None:
    settle(cus)
    planned = customer(cus).next_fetch_at
    shop.stripe.fail_requests(429, path=LIST)
    assert "ended early" in run()
    assert customer(cus).next_fetch_at == planned


@pytest.fixture
def two(shop: Shop, cus: str, settings: Any) -> None:
    """Two customers with a plan that nobody has told of. Which of them Stripe is asked about first, nobody knows."""
    one_at_a_time(settings)
    link(make_subscriber(), other := shop.customer())
    for stripe_id in (cus, other):
        shop.subscribe(stripe_id, "pro")
    polled()


def assert_one_met_it() -> None:
    """One waits, the other has its entitlements."""
    [met] = Customer.objects.filter(fetch_failures=1)
    [other] = Customer.objects.filter(fetch_failures=0)
    assert 5 < in_seconds(met.stripe_id) <= 60
    assert held(met.stripe_id) == set()
    assert held(other.stripe_id) == {"sso", "export"}


@pytest.mark.parametrize("status", [400, 409], ids=["refused", "unusable"])
def test_a_customer_whose_answer_cannot_be_used_does_not_hold_up_the_others(shop: Shop, two: None, status: int) -> None:
    """Nor is the call repeated at once."""
    shop.stripe.fail_requests(status, path=LIST)
    assert "1 answered, 1 of them changed something, 1 failed" in run()
    assert_one_met_it()


def test_after_a_lost_connection_another_customer_is_first(shop: Shop, two: None) -> None:
    shop.stripe.drop_connections()
    assert "ended early" in run()
    AccountState.objects.update(next_call_at=None)
    run()
    assert_one_met_it()


def test_by_hand_one_customer_s_server_error_does_not_hold_up_the_others(shop: Shop, two: None) -> None:
    shop.stripe.fail_requests(500)
    with pytest.raises(CommandError):
        call_command("entitlements_sync", "--marked", stdout=StringIO())
    assert sorted(map(len, [held(row.stripe_id) for row in Customer.objects.all()])) == [0, 2]


def test_a_customer_of_another_mode_or_account_is_not_asked_about_with_this_key(shop: Shop) -> None:
    live = link(make_subscriber(), "cus_live", livemode=True)
    connected = link(make_subscriber(), "cus_connected", account="acct_1")
    shop.calls()
    for elsewhere in (live, connected):
        with pytest.raises(ValueError, match="another account or mode"):
            sync_customer(elsewhere)
    assert shop.calls() == []


def test_a_malformed_setting_of_fetching_refuses_webhooks_and_costs_no_call(
    shop: Shop, cus: str, settings: Any
) -> None:
    settings.ENTITLEMENTS_CONFIRM_EVERY = 7
    shop.calls()
    assert deliver(summary(cus, "sso")).status_code == 400
    assert shop.calls() == []


def test_without_a_key_nothing_is_asked_and_events_still_count(cus: str, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    deliver(summary(cus, "sso"))
    assert held(cus) == {"sso"}
    assert "not set" in run()
    with pytest.raises(StripeRefused, match="ENTITLEMENTS_STRIPE_API_KEY"):
        sync_customer(customer(cus))


def test_a_fetch_refuses_to_run_inside_a_transaction(shop: Shop, cus: str) -> None:
    with pytest.raises(RuntimeError, match="on_commit"), transaction.atomic():
        sync_customer(customer(cus))


# --- what happens meanwhile


@pytest.mark.django_db(transaction=True)
def test_an_answer_older_than_a_payload_is_discarded(shop: Shop, cus: str) -> None:
    """The list is computed, then the plan changes and its event is applied, then the list arrives."""
    not_due(cus)
    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(lambda: sync_customer(customer(cus)))
        in_flight.wait_for_request()
        shop.subscribe(cus, "pro")
        shop.deliver()
        in_flight.release()
        crowd.join()
    assert held(cus) == {"sso", "export"}
    assert effective() == ["+export", "+sso"]


@pytest.mark.django_db(transaction=True)
def test_a_deletion_during_a_fetch_is_final(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(lambda: sync_customer(customer(cus)))
        in_flight.wait_for_request()
        shop.stripe.delete_customer(cus)
        shop.deliver()
        in_flight.release()
        crowd.join()
    assert held(cus) == set()
    assert customer(cus).deleted_at is not None


@pytest.mark.django_db(transaction=True)
def test_news_during_a_fetch_keep_the_customer_marked(shop: Shop, cus: str) -> None:
    settle(cus)
    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(run)
        in_flight.wait_for_request()
        deliver(summary(cus, "sso", has_more=True))
        in_flight.release()
        crowd.join()
    assert customer(cus).hinted_at is not None
    assert shop.stripe.requests[-1].path == LIST


@pytest.mark.django_db(transaction=True)
def test_a_claimed_customer_is_left_to_its_worker(shop: Shop, cus: str) -> None:
    settle(cus)
    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(run)
        in_flight.wait_for_request()
        shop.calls()
        assert "0 answered" in run()
        assert shop.calls() == []
        in_flight.release()
        crowd.join()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_died_is_replaced_after_its_lease(shop: Shop, cus: str) -> None:
    settle(cus)
    assert len(fetches.claim_wave(5)) == 1
    assert 200 < in_seconds(cus) <= 300
    Customer.objects.update(next_fetch_at=timezone.now())
    assert "1 answered" in run()


def test_a_fetch_does_not_make_an_older_payload_welcome_again(shop: Shop, cus: str) -> None:
    """No `Date`, and our clock is an hour behind Stripe's."""
    shop.stripe.clock.advance(3600)
    now = shop.stripe.clock.seconds
    not_due(cus)
    shop.subscribe(cus, "pro")
    deliver(summary(cus, "sso", "export", created=now), t=now)
    shop.stripe.no_date()
    sync_customer(customer(cus))
    not_due(cus)
    deliver(summary(cus, "stale", created=now - 10), t=now)
    assert held(cus) == {"sso", "export"}


@pytest.mark.django_db(transaction=True)
def test_an_answer_counts_from_when_it_was_asked_for(shop: Shop, cus: str) -> None:
    """Asked ten seconds after the news, answered two minutes later: it may be as old as the question."""
    with time_machine.travel(timezone.now(), tick=False) as clock:
        Customer.objects.update(hinted_at=timezone.now())
        clock.shift(10)
        with shop.stripe.hold("GET", LIST) as in_flight:
            crowd = Crowd().start(lambda: sync_customer(customer(cus)))
            in_flight.wait_for_request()
            clock.shift(120)
            in_flight.release()
            crowd.join()
        assert customer(cus).hinted_at is not None


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql
def test_an_answer_waits_for_whoever_holds_the_customer(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    not_due(cus)
    writer = connection.copy()
    writer.set_autocommit(False)
    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(lambda: sync_customer(customer(cus)))
        in_flight.wait_for_request()
        with writer.cursor() as cursor:
            cursor.execute("UPDATE entitlements_app_customer SET version = version + 1")
        in_flight.release()
        wait_for_backends(1)
        writer.commit()
        writer.close()
        crowd.join()
    assert effective() == []
    assert customer(cus).version == 1


@pytest.mark.django_db(transaction=True)
def test_the_window_reaches_from_the_question_to_the_last_page(shop: Shop, cus: str) -> None:
    shop.prices["huge"] = shop.plan("huge", *(f"k{number}" for number in range(150)))
    shop.subscribe(cus, "huge")
    shop.stripe.clock.freeze()
    asked = shop.stripe.clock.seconds
    with shop.stripe.hold("GET", LIST) as first_page:
        crowd = Crowd().start(lambda: sync_customer(customer(cus)))
        first_page.wait_for_request()
        time.sleep(1.1)
        shop.stripe.clock.advance(100)
        first_page.release()
        crowd.join()
    row = customer(cus)
    assert row.window_from <= asked - 3, "it took more than a second, and two are the margin"
    assert row.window_to == asked + 102


# --- after a webhook


def test_one_fetch_follows_a_webhook_of_whoever_is_first(shop: Shop, cus: str) -> None:
    other = shop.customer()
    shop.subscribe(other, "pro")
    link(make_subscriber(), other)
    Customer.objects.filter(stripe_id=other).update(next_fetch_at=timezone.now() - LONG_AGO)
    not_due(cus)
    shop.calls()
    deliver(summary(cus, "sso"))
    assert shop.calls() == [LIST]
    assert held(other) == {"sso", "export"}


def test_no_fetch_follows_when_no_call_is_free_now(shop: Shop, cus: str, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 0.01
    sync_customer(customer(cus))
    settle(cus)
    shop.calls()
    began = time.monotonic()
    later = int(time.time()) + 10
    deliver(summary(cus, "sso", created=later), t=later)
    assert shop.calls() == []
    assert time.monotonic() - began < 4, "who waits for a call waits five seconds"
    assert held(cus) == {"sso"}


@pytest.mark.parametrize(
    "break_it", [lambda stripe: stripe.fail_requests(500), lambda stripe: stripe.fail_requests(401)]
)
def test_a_failed_fetch_does_not_fail_the_webhook(shop: Shop, cus: str, break_it: Break) -> None:
    break_it(shop.stripe)
    assert deliver(summary(cus, "sso")).status_code == 200
    assert held(cus) == {"sso"}
    assert WebhookEvent.objects.get().status == "processed"


def test_a_silent_stripe_holds_up_a_webhook_for_five_seconds_at_most_and_not_the_next(shop: Shop, cus: str) -> None:
    shop.stripe.slow(30, path=LIST)
    began = time.monotonic()
    assert deliver(summary(cus, "sso")).status_code == 200
    assert 1 < time.monotonic() - began < 20
    settle(cus)
    began = time.monotonic()
    deliver(summary(cus, "sso", created=int(time.time()) + 1))
    assert time.monotonic() - began < 4
    shop.stripe.slow(0, path=LIST)


def test_answers_without_a_date_use_our_clock_with_five_minutes_either_way(shop: Shop, cus: str) -> None:
    shop.stripe.no_date()
    sync_customer(customer(cus))
    row = customer(cus)
    now = time.time()
    assert now - 303 < row.window_from <= now - 299
    assert now + 299 < row.window_to < now + 303


def test_the_date_of_the_answer_and_not_our_clock_makes_the_window(shop: Shop, cus: str) -> None:
    shop.stripe.clock.advance(-86_400)
    sync_customer(customer(cus))
    row = customer(cus)
    stripe_now = shop.stripe.clock.seconds
    assert row.window_from <= stripe_now - 2
    assert stripe_now <= row.window_to <= stripe_now + 3
    assert abs(row.window_to - stripe_now) < 60
