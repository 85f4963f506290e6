"""The truth tables of `windows`: may a payload be applied, and when is the next fetch due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from entitlements_app.windows import (
    LEASE,
    LONGEST_WAIT,
    SETTLE,
    Schedule,
    Verdict,
    Window,
    backoff,
    failed,
    fetch_window,
    fetched,
    hinted,
    judge,
    missing,
    overtaken,
    payload_window,
    raised,
)

APPLY, CHECK, NOW, LATER = Verdict.APPLY, Verdict.APPLY_AND_CHECK, Verdict.FETCH_NOW, Verdict.FETCH_LATER
AT_100 = payload_window(100)
FETCHED = Window(97, 105)


@pytest.mark.parametrize(
    ("case", "created", "sent_at", "window", "verdict"),
    [
        ("no window yet", 100, 100, None, APPLY),
        ("no window yet, polled", 100, None, None, NOW),
        ("newer than a payload", 101, 101, AT_100, APPLY),
        ("same second as a payload", 100, 100, AT_100, NOW),
        ("older than a payload", 99, 100, AT_100, LATER),
        ("before a fetch", 96, 100, FETCHED, LATER),
        ("as the fetch's window begins", 97, 106, FETCHED, NOW),
        ("inside a fetch's window", 100, 106, FETCHED, NOW),
        ("as the fetch's window ends", 105, 106, FETCHED, NOW),
        ("after a fetch", 106, 106, FETCHED, APPLY),
        ("sent a minute after it was created", 101, 161, AT_100, APPLY),
        ("sent more than a minute after", 101, 162, AT_100, CHECK),
        ("sent two seconds before it was created: clocks differ", 103, 101, AT_100, APPLY),
        ("created in the future, by a test clock", 104, 101, AT_100, NOW),
        ("created far in the future", 10**12, 101, AT_100, NOW),
        ("created far in the past, by a test clock", 1, 101, AT_100, LATER),
        ("far in the future, no window", 10**12, 101, None, NOW),
        ("polled, newer", 101, None, AT_100, NOW),
        ("polled, older", 99, None, AT_100, LATER),
    ],
)
def test_a_payload_is_applied_only_when_it_is_surely_newer(
    case: str, created: int, sent_at: int | None, window: Window | None, verdict: Verdict
) -> None:
    got = judge(created=created, sent_at=sent_at, complete=True, sole_of_its_second=True, window=window)
    assert got is verdict, case


@pytest.mark.parametrize(("complete", "sole"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize(("created", "verdict"), [(101, NOW), (100, NOW), (99, LATER)])
def test_a_payload_cut_at_ten_or_not_alone_in_its_second_is_never_applied(
    complete: bool, sole: bool, created: int, verdict: Verdict
) -> None:
    got = judge(created=created, sent_at=created, complete=complete, sole_of_its_second=sole, window=AT_100)
    assert got is verdict


@pytest.mark.parametrize(
    ("case", "first", "last", "duration", "window"),
    [
        ("whole seconds", 100, 100, 0.0, Window(98, 102)),
        ("a slow first request", 100, 100, 1.2, Window(96, 102)),
        ("several pages", 100, 107, 0.5, Window(97, 109)),
        ("no Date at all: our clock, five minutes either way", None, None, 1.0, Window(699, 1302)),
        ("Date on the last page only", None, 107, 1.0, Window(699, 109)),
        ("Date on the first page only", 100, None, 0.5, Window(97, 1302)),
    ],
)
def test_a_fetch_is_true_somewhere_in_its_window(
    case: str, first: int | None, last: int | None, duration: float, window: Window
) -> None:
    got = fetch_window(first_date=first, last_date=last, duration=duration, started=999.5, ended=1001.5)
    assert got == window, case


@pytest.mark.parametrize(
    ("held", "new", "window"),
    [
        (None, FETCHED, FETCHED),
        (AT_100, FETCHED, Window(100, 105)),
        (FETCHED, Window(90, 95), FETCHED),
        (Window(200, 200), FETCHED, Window(200, 200)),
    ],
)
def test_a_fetch_never_lowers_the_window(held: Window | None, new: Window, window: Window) -> None:
    assert raised(held, new) == window


T = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("case", "before", "urgent", "after"),
    [
        ("news while nothing is planned soon", Schedule(None, False, T + WEEK), False, Schedule(T, False, T + SETTLE)),
        ("urgent news", Schedule(None, False, T + WEEK), True, Schedule(T, True, T)),
        ("urgent stays urgent", Schedule(T - SECOND, True, T - SECOND), False, Schedule(T, True, T - SECOND)),
        ("never later than planned", Schedule(None, False, T + SECOND), False, Schedule(T, False, T + SECOND)),
        ("a clock behind another worker's", Schedule(T + SECOND, True, T), True, Schedule(T + SECOND + TICK, True, T)),
        ("urgent news of one being fetched", Schedule(None, False, T + LEASE), True, Schedule(T, True, T)),
    ],
)
def test_news_plans_a_fetch(case: str, before: Schedule, urgent: bool, after: Schedule) -> None:
    assert hinted(before, now=T, urgent=urgent) == after, case


LONG_AGO = T - timedelta(hours=1)
JUST_NOW = T - timedelta(seconds=59)
SETTLED = T - SETTLE


@pytest.mark.parametrize(
    ("case", "hinted_at", "at_start", "changed", "urgent", "planned", "after"),
    [
        ("no news, no change", None, None, False, False, LEASE, Schedule(None, False, T + WEEK)),
        ("old news, no change", LONG_AGO, LONG_AGO, False, True, LEASE, Schedule(None, False, T + WEEK)),
        ("news exactly as old as it must be", SETTLED, SETTLED, False, True, LEASE, Schedule(None, False, T + WEEK)),
        ("young news", JUST_NOW, JUST_NOW, False, True, LEASE, Schedule(JUST_NOW, False, T + SETTLE)),
        ("old news, but a change", LONG_AGO, LONG_AGO, True, True, LEASE, Schedule(LONG_AGO, False, T + SETTLE)),
        ("no news, but a change", None, None, True, False, LEASE, Schedule(None, False, T + SETTLE)),
        ("news came meanwhile", T, LONG_AGO, False, False, LEASE, Schedule(T, False, T + SETTLE)),
        ("first news came meanwhile", T, None, True, False, LEASE, Schedule(T, False, T + SETTLE)),
        ("urgent news came meanwhile", T, LONG_AGO, False, True, 0 * LEASE, Schedule(T, True, T)),
        ("urgent news, and another worker asks", T, LONG_AGO, False, True, LEASE, Schedule(T, True, T)),
    ],
)
def test_only_a_late_unhurried_unchanged_answer_settles(
    case: str,
    hinted_at: datetime | None,
    at_start: datetime | None,
    changed: bool,
    urgent: bool,
    planned: timedelta,
    after: Schedule,
) -> None:
    before = Schedule(hinted_at, urgent, T + planned)
    got = fetched(before, hinted_at_start=at_start, began=T, now=T, changed=changed, confirm_after=WEEK)
    assert got == after, case


def test_waits_double_up_to_an_hour() -> None:
    minutes = [backoff(failures) / timedelta(minutes=1) for failures in (1, 2, 3, 6, 7, 100)]
    assert minutes == [1, 2, 4, 32, 60, 60]
    assert backoff(9, longest=LEASE) == LEASE


def test_news_during_a_fetch_that_fails_do_not_wait_long() -> None:
    before = Schedule(T, True, T)
    waits = {"longest": LONGEST_WAIT, "failures": 9, "now": T}
    assert failed(before, hinted_at_start=T, **waits) == Schedule(T, True, T + LONGEST_WAIT)
    assert failed(before, hinted_at_start=None, **waits) == Schedule(T, True, T + SETTLE)


@pytest.mark.parametrize(("hours", "wait"), [(0, 1), (1, 1), (5, 5), (24 * 30, 24 * 7)])
def test_a_customer_that_stripe_does_not_know_is_asked_for_ever_more_rarely(hours: int, wait: int) -> None:
    before = Schedule(LONG_AGO, True, T)
    after = missing(before, missing_for=timedelta(hours=hours), now=T, confirm_every=WEEK)
    assert after == Schedule(LONG_AGO, False, T + timedelta(hours=wait))


def test_after_a_dropped_answer_stripe_is_asked_again_soon() -> None:
    assert overtaken(Schedule(None, False, T + WEEK), now=T) == Schedule(None, False, T + SETTLE)
    assert overtaken(Schedule(T, True, T + LEASE), now=T) == Schedule(T, True, T)
