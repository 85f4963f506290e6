"""May this payload be applied, and when is the next fetch due? Pure: no database, no clock, no network.

Stripe's times are whole Unix seconds (`int`) and are compared only with Stripe's times. Ours are datetimes and only
schedule. `docs/how-it-stays-true.md` tells the reasons: each clause here answers an order of things that breaks
without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

MARGIN = 2  # Stripe seconds by which `created`, `Date` and a signature's `t` may disagree
SETTLE = timedelta(seconds=60)  # Stripe's list may lag this far behind its events
LATE = 60  # Stripe seconds; an event delivered later than this is checked at once
LEASE = timedelta(minutes=5)  # how long a claimed fetch is left alone
UNDATED = 300  # seconds by which our clock may be wrong when an answer carries no `Date`
TICK = timedelta(microseconds=1)
FIRST_WAIT = timedelta(seconds=60)
LONGEST_WAIT = timedelta(hours=1)


@dataclass(frozen=True)
class Window:
    """The Stripe seconds, rounded outwards, in which the state that we hold was true."""

    start: int
    end: int


def payload_window(created: int) -> Window:
    return Window(created, created)


def fetch_window(
    *, first_date: int | None, last_date: int | None, duration: float, started: float, ended: float
) -> Window:
    """The window of a fetched list.

    `first_date` and `last_date` are the `Date` headers of the first and last page, `duration` the seconds that the
    first request took; `started` and `ended` are our clock, used where Stripe sent no `Date`.
    """
    start = started - UNDATED if first_date is None else first_date - duration - MARGIN
    end = ended + UNDATED if last_date is None else last_date + MARGIN
    return Window(math.floor(start), math.ceil(end))


def stripe_now(date: int | None, *, asked: float) -> int:
    """Stripe's time when it answered, or the earliest that it can have been. `asked` is our clock at the question."""
    return math.floor(asked - UNDATED) if date is None else date


def raised(held: Window | None, fetched: Window) -> Window:
    """A fetch only raises the window: it never makes an older payload welcome again."""
    if held is None:
        return fetched
    return Window(max(held.start, fetched.start), max(held.end, fetched.end))


class Verdict(Enum):
    """What to do with the newest summary of a batch, once per customer."""

    APPLY = "apply"  # and fetch when Stripe has settled
    APPLY_AND_CHECK = "apply and check"  # and fetch at once: it came late
    FETCH_NOW = "fetch now"
    FETCH_LATER = "fetch later"

    @property
    def applies(self) -> bool:
        return self in (Verdict.APPLY, Verdict.APPLY_AND_CHECK)

    @property
    def urgent(self) -> bool:
        return self in (Verdict.APPLY_AND_CHECK, Verdict.FETCH_NOW)


def judge(
    *, created: int, sent_at: int | None, complete: bool, sole_of_its_second: bool, window: Window | None
) -> Verdict:
    """Whether a summary's payload becomes our state, or only tells us to ask.

    `sent_at` is the signature's time, `None` for an event that was not delivered to us (polled, replayed).
    `complete` means that the payload holds all entitlements. `window` is that of what we hold.
    """
    in_future = sent_at is not None and created > sent_at + MARGIN
    newer = window is None or created > window.end
    if sent_at is not None and complete and sole_of_its_second and newer and not in_future:
        return Verdict.APPLY_AND_CHECK if sent_at - created > LATE else Verdict.APPLY
    if in_future or window is None or created >= window.start:
        return Verdict.FETCH_NOW
    return Verdict.FETCH_LATER


@dataclass(frozen=True)
class Schedule:
    """When a customer is fetched next. `hinted_at` is the last news that no fetch has settled."""

    hinted_at: datetime | None
    urgent: bool
    next_fetch_at: datetime


def hinted(schedule: Schedule, *, now: datetime, urgent: bool) -> Schedule:
    """After news: at once if urgent, else when Stripe has settled; never later than already planned.

    `hinted_at` always moves on, even if a writer's clock is behind: a fetch that has begun sees by it that news came.
    """
    due = now if urgent else now + SETTLE
    return Schedule(
        hinted_at=now if schedule.hinted_at is None else max(now, schedule.hinted_at + TICK),
        urgent=schedule.urgent or urgent,
        next_fetch_at=min(schedule.next_fetch_at, due),
    )


def fetched(
    schedule: Schedule,
    *,
    hinted_at_start: datetime | None,
    began: datetime,
    now: datetime,
    changed: bool,
    confirm_after: timedelta,
) -> Schedule:
    """After an answer was applied. Only a late, unhurried, unchanged answer settles.

    `hinted_at_start` is `hinted_at` as it was when the fetch began, at `began`.
    """
    if schedule.hinted_at != hinted_at_start:
        return overtaken(schedule, now=now)
    too_early = schedule.hinted_at is not None and began - schedule.hinted_at < SETTLE
    if changed or too_early:
        return replace(schedule, urgent=False, next_fetch_at=now + SETTLE)
    return Schedule(hinted_at=None, urgent=False, next_fetch_at=now + confirm_after)


def backoff(failures: int, *, longest: timedelta = LONGEST_WAIT) -> timedelta:
    """How long to wait after the nth failure in a row (n from 1): a minute, doubling."""
    return min(FIRST_WAIT * (1 << min(failures - 1, 10)), longest)


def failed(
    schedule: Schedule, *, hinted_at_start: datetime | None, failures: int, longest: timedelta, now: datetime
) -> Schedule:
    """After a fetch that failed for the nth time in a row. Who has news that came meanwhile does not wait long."""
    wait = backoff(failures, longest=longest)
    if schedule.hinted_at != hinted_at_start:
        wait = min(wait, SETTLE)
    return replace(schedule, next_fetch_at=now + wait)


def missing(schedule: Schedule, *, missing_for: timedelta, now: datetime, confirm_every: timedelta) -> Schedule:
    """After Stripe said that it does not know the customer: again in an hour, then after twice as long each time."""
    wait = min(max(missing_for, LONGEST_WAIT), confirm_every)
    return replace(schedule, urgent=False, next_fetch_at=now + wait)


def overtaken(schedule: Schedule, *, now: datetime) -> Schedule:
    """After an answer that came together with other news, or with another state: which is newer, nobody knows."""
    due = now if schedule.urgent else now + SETTLE
    return replace(schedule, next_fetch_at=min(schedule.next_fetch_at, due))
