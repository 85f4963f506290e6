"""The call budget: all workers together, on the database's clock."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from entitlements_app import budget
from entitlements_app.budget import Allowance, Line
from entitlements_app.exceptions import StripeUnavailable
from entitlements_app.models import AccountState
from tests.threads import together

pytestmark = pytest.mark.django_db(transaction=True)


def test_all_threads_together_keep_the_rate(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 50
    times: list[float] = []

    def work() -> None:
        for _ in range(10):
            Allowance(seconds=20).take()
            times.append(time.monotonic())

    began = time.monotonic()
    together(*[work] * 4)
    took = max(times) - began
    # Forty calls are 0.8 s; a worker that woke up late may catch up 0.2 s.
    assert 0.55 < took < 15
    assert AccountState.objects.count() == 1


def test_a_call_that_is_not_free_now_is_not_taken(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 0.1
    assert Allowance(seconds=1).prepay()
    assert not Allowance(seconds=1).prepay()


def test_who_cannot_wait_long_enough_is_told(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 0.1
    Allowance(seconds=1).take()
    with pytest.raises(StripeUnavailable, match="ENTITLEMENTS_STRIPE_RATE"):
        Allowance(seconds=0.1).take()


def test_a_line_is_served_in_the_order_of_joining_whichever_thread_asks_first(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 4
    line = Line(seconds=20)
    places = [line.join() for _ in range(3)]
    threads = [threading.Thread(target=place.take) for place in places]
    for thread in reversed(threads):
        thread.start()
        time.sleep(0.05)
    for served, thread in enumerate(threads, start=1):
        AccountState.objects.update(next_call_at=None)
        line.hand_out()
        thread.join(10)
        assert [place.calls for place in places] == [1] * served + [0] * (3 - served)
    assert line.calls == 3
    line.hand_out()
    assert line.calls == 3, "nobody wants one"


def test_in_a_line_nobody_waits_for_who_is_not_ready(settings: Any) -> None:
    """The first has not asked for a second call; the second in line gets the next one."""
    settings.ENTITLEMENTS_STRIPE_RATE = 50
    line = Line(seconds=20)
    first, second = line.join(), line.join()
    line.hand_out()
    first.take()
    second.take()
    again = threading.Thread(target=second.take)
    again.start()
    while line.calls < 3:
        line.hand_out()
    again.join(10)
    assert (first.calls, second.calls) == (1, 2)
    line.close()
    with pytest.raises(StripeUnavailable, match="ENTITLEMENTS_STRIPE_RATE"):
        first.take()


def test_a_prepaid_call_is_spent_once(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 1
    allowance = Allowance(seconds=0.1)
    assert allowance.prepay()
    assert allowance.prepay()
    allowance.take()
    with pytest.raises(StripeUnavailable):
        allowance.take()


def test_nothing_is_saved_up_while_nobody_calls(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 10
    Allowance(seconds=1).take()
    time.sleep(0.6)
    began = time.monotonic()
    free = sum(Allowance(seconds=0).prepay() for _ in range(10))
    assert free <= 4 + 10 * (time.monotonic() - began)


def test_a_pause_holds_everybody(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 1000
    Allowance(seconds=1).take()
    budget.pause()
    assert not Allowance(seconds=0).prepay()
    with pytest.raises(StripeUnavailable, match=r"out of reach or asked for fewer calls, .* another [3-5] s\."):
        Allowance(seconds=1).take()
    later = timezone.now() - timedelta(seconds=6)
    AccountState.objects.update(next_call_at=None, paused_at=later)
    assert Allowance(seconds=0).prepay()


def test_pauses_grow_while_trouble_goes_on_and_one_trouble_is_one_pause(settings: Any) -> None:
    Allowance(seconds=1).take()

    def pauses() -> tuple[int, float]:
        state = AccountState.objects.get()
        assert state.next_call_at is not None
        assert state.paused_at is not None
        return state.pauses, (state.next_call_at - state.paused_at).total_seconds()

    budget.pause()
    budget.pause()  # another thread met the same
    in_a_row, seconds = pauses()
    assert in_a_row == 1
    assert 3 < seconds < 6
    for expected in (10, 20, 40, 60, 60):
        AccountState.objects.update(paused_at=timezone.now() - timedelta(seconds=61))
        budget.pause()
        assert 0.75 * expected < pauses()[1] < expected + 1
    AccountState.objects.update(paused_at=timezone.now() - timedelta(minutes=6))
    budget.pause()
    assert pauses()[0] == 1


def test_a_month_of_calls_is_counted() -> None:
    Allowance(seconds=1).take()
    Allowance(seconds=1).take()
    assert budget.get_use().this_month == 2
    AccountState.objects.update(month=F("month") - 1)
    assert budget.get_use().this_month == 0
    Allowance(seconds=1).take()
    assert budget.get_use().this_month == 1


def test_what_another_rate_or_clock_left_behind_holds_nobody(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 1000
    Allowance(seconds=1).take()
    AccountState.objects.update(next_call_at=timezone.now() + timedelta(days=11))
    assert Allowance(seconds=0).prepay()
    time.sleep(0.01)
    assert Allowance(seconds=0).prepay()


def test_each_mode_has_its_own_budget(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 1
    assert Allowance(seconds=0).prepay()
    settings.ENTITLEMENTS_LIVEMODE = True
    assert Allowance(seconds=0).prepay()
