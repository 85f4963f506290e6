"""Trouble in a pass of fetches, Stripe's or ours: who waits, who goes on, and that doubt revokes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError
from django.utils import timezone

from entitlements_app.linking import link
from entitlements_app.models import AccountState, ActiveEntitlement, Customer, SyncRun
from entitlements_app.testing import StripeSimulator
from tests.delivery import deliver, summary
from tests.rows import customer, held, make_subscriber, refused
from tests.shop import Shop
from tests.test_fetching import LIST, MINUTE, asked, due, due_customers, run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def five(shop: Shop) -> list[str]:
    """Five customers who hold `sso` and `export`, here too, and whose time has come again."""
    ids = due_customers(shop, 5, "pro")
    run()
    due_again()
    shop.calls()
    return ids


def due_again() -> None:
    """Each at its own moment."""
    now = timezone.now()
    for row in Customer.objects.filter(deleted_at=None):
        row.next_fetch_at = now - MINUTE + timedelta(microseconds=row.pk)
        row.hinted_at, row.claim = None, ""
        row.save()


def plan() -> dict[str, Any]:
    return dict(Customer.objects.values_list("stripe_id", "next_fetch_at"))


def wait_of(stripe_id: str) -> float:
    row = customer(stripe_id)
    assert row.next_fetch_at is not None
    return (row.next_fetch_at - timezone.now()).total_seconds()


def paused_for() -> float:
    state = AccountState.objects.get()
    if state.next_call_at is None or state.paused_at is None:
        return 0
    return (state.next_call_at - state.paused_at).total_seconds()


def one_at_a_time(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 4


# --- Stripe's


def test_429_ends_the_pass_and_calls_pause_and_those_not_asked_have_their_exact_time_back(
    shop: Shop, five: list[str], settings: Any
) -> None:
    one_at_a_time(settings)
    before = plan()
    shop.stripe.fail_requests(429, times=5)
    out = run()
    assert "0 answered" in out
    assert "Fetching ended early. Stripe asks for fewer calls (RateLimitError, HTTP 429" in out
    assert len(asked(shop)) < 5
    assert plan() == before
    assert not Customer.objects.exclude(claim="").exists()
    assert 2 < paused_for() < 10
    shop.stripe.clear_faults()
    AccountState.objects.update(next_call_at=None)
    assert "5 answered, 0 of them changed something, 0 failed" in run()


def test_a_lock_concerns_one_customer_alone(shop: Shop, five: list[str]) -> None:
    shop.stripe.fail_requests(429, reason="lock_timeout")
    out = run()
    assert "4 answered, 0 of them changed something, 1 failed" in out
    assert "ended early" not in out
    assert AccountState.objects.get().paused_at is None
    [locked] = [row for row in Customer.objects.all() if row.fetch_failures]
    assert 5 < wait_of(locked.stripe_id) <= 60
    assert held(locked.stripe_id) == {"sso", "export"}


Break = Callable[[StripeSimulator], Any]


@pytest.mark.parametrize(
    ("break_it", "pauses"),
    [
        (lambda stripe: stripe.fail_requests(500, times=5), False),
        (lambda stripe: stripe.fail_requests(503, times=5), False),
        (lambda stripe: stripe.drop_connections(5), True),
        (lambda stripe: stripe.stop(), True),
    ],
    ids=["500", "503", "connection lost", "nobody listens"],
)
def test_an_outage_ends_the_pass_and_nobody_loses_anything(
    shop: Shop, five: list[str], settings: Any, break_it: Break, pauses: bool
) -> None:
    one_at_a_time(settings)
    before = plan()
    break_it(shop.stripe)
    assert "ended early" in run()
    met = {row.stripe_id for row in Customer.objects.all() if row.fetch_failures}
    assert five[0] in met
    assert len(met) < 5
    assert all(5 < wait_of(stripe_id) <= 60 for stripe_id in met)
    assert all(moment == before[stripe_id] for stripe_id, moment in plan().items() if stripe_id not in met)
    assert (paused_for() > 2) is pauses
    assert all(held(stripe_id) == {"sso", "export"} for stripe_id in five)


def test_stripe_s_silence_about_one_customer_does_not_hold_up_the_others(shop: Shop, five: list[str]) -> None:
    with shop.stripe.hold("GET", LIST):
        out = run()
    assert "4 answered, 0 of them changed something, 1 failed" in out
    assert "Stripe could not be asked" in out
    [silent] = [row for row in Customer.objects.all() if row.fetch_failures]
    assert 5 < wait_of(silent.stripe_id) <= 60


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_once_however_many_calls_met_it(
    shop: Shop, five: list[str], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    before = plan()
    shop.stripe.fail_requests(status, times=5)
    with pytest.raises(CommandError, match=f"HTTP {status}"):
        run()
    assert [record.levelno for record in caplog.records].count(logging.CRITICAL) == 1
    assert plan() == before
    assert all(held(stripe_id) == {"sso", "export"} for stripe_id in five)
    shop.calls()
    with pytest.raises(CommandError, match="--resume"):
        run()
    assert shop.calls() == []


# --- ours


def test_an_answer_that_cannot_be_stored_does_not_hold_up_the_others(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    many = due_customers(shop, 6, "pro")
    [poison] = due_customers(shop, 1, "enterprise")
    with refused("audit"):
        out = run()
    assert "6 answered, 6 of them changed something, 1 failed" in out
    assert "ended early" not in out
    assert all(held(stripe_id) == {"sso", "export"} for stripe_id in many)
    assert held(poison) == set()
    assert f"Applying the answer about {poison} failed." in caplog.text
    assert 5 < wait_of(poison) <= 60
    confirm = SyncRun.objects.get(kind="confirm")
    assert (confirm.done, confirm.failed) == (6, 1)
    Customer.objects.filter(stripe_id=poison).update(next_fetch_at=timezone.now())
    assert "1 answered" in run()
    assert held(poison) == {"sso", "export", "audit"}


# --- customers


def test_in_one_pass_the_deleted_lose_all_and_the_unknown_only_what_no_fetch_confirmed(shop: Shop) -> None:
    kept, deleted, *_ = ids = due_customers(shop, 2, "pro")
    run()
    shop.stripe.delete_customer(deleted)
    elsewhere, rumour = "cus_elsewhere", "cus_rumour"
    for stripe_id in (elsewhere, rumour):
        link(make_subscriber(), stripe_id)
        deliver(summary(stripe_id, "sso"))
    Customer.objects.exclude(stripe_id__in=ids).update(missing_since=None)
    feature = ActiveEntitlement.objects.filter(customer__stripe_id=kept, lookup_key="sso").get().feature
    ActiveEntitlement.objects.filter(customer__stripe_id__in=[elsewhere, rumour]).delete()
    for stripe_id, confirmed_at in ((elsewhere, timezone.now()), (rumour, None)):
        ActiveEntitlement.objects.create(
            customer=customer(stripe_id), feature=feature, lookup_key="sso", confirmed_at=confirmed_at
        )
    due_again()
    assert "4 answered, 2 of them changed something" in run()
    assert held(kept) == {"sso", "export"}
    assert (held(deleted), customer(deleted).next_fetch_at) == (set(), None)
    assert (held(elsewhere), held(rumour)) == ({"sso"}, set())
    assert 3000 < wait_of(elsewhere) <= 3600
    assert customer(elsewhere).missing_since is not None


def test_a_customer_in_the_future_of_a_test_clock_is_fetched_like_any(shop: Shop) -> None:
    [stripe_id] = due_customers(shop, 1)
    shop.stripe.shift_created(40 * 86_400)
    shop.subscribe(stripe_id, "pro")
    shop.deliver()
    assert held(stripe_id) == {"sso", "export"}, "asked about, as the payload is not believed"
    window_to = customer(stripe_id).window_to
    assert window_to is not None
    assert window_to < shop.stripe.clock.seconds + 60
    due("cus_next")
    due_again()
    assert "2 answered" in run()
