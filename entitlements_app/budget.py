"""The call budget: how fast all workers together may call Stripe, for one account and mode, and whether at all.

The budget is one row per account and mode, taken by one UPDATE on the database's clock, so that neither workers nor
their clocks need to agree. `next_call_at` is when the next call may start; each call moves it on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Q, QuerySet, When
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables

from . import conf
from .exceptions import StripeRefused, StripeUnavailable
from .models import AccountState
from .transactions import insert, own, release_connections, update

logger = logging.getLogger(__name__)

# A worker that wakes up late may catch up this much.
SLACK = timedelta(seconds=0.2)
SHORTEST_SLEEP = 0.02
# No call is planned farther ahead than this: what is was left by another rate, or by a clock that was set back.
FARTHEST = timedelta(seconds=60)
# Nobody calls for so long after Stripe could not be reached or asked for less; twice as long each time, up to FARTHEST.
FIRST_PAUSE = timedelta(seconds=5)
SHORTENED = 0.8  # by chance, up to this share, so that not all sites that met one trouble come back at once
NEW_TROUBLE = timedelta(minutes=5)  # a pause so long after the last one is the first again

STOPPED = (
    "Calls to Stripe are stopped since it refused the API key. Set another key, "
    "or run `manage.py entitlements_run --resume`."
)

NOT_PERMITTED = "HTTP 403"  # as a reason: the key may not ask this
PERMISSIONS = "A restricted key must be allowed to read Entitlements and Customers."

USED_UP = "The call budget (ENTITLEMENTS_STRIPE_RATE) is used up for now."


class Stopped(StripeRefused):
    """Calls are stopped since Stripe refused the API key. `reason` is set where it just did."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Exhausted(StripeUnavailable):
    """The call budget has nothing left in the time there is."""


class Allowance:
    """What one piece of work may spend: so many seconds, and calls from the budget as it comes free.

    `calls` counts those that it took.
    """

    def __init__(self, *, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._prepaid = False
        self.calls = 0

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def longest_call(self) -> float:
        """How many seconds a call that begins now may take."""
        return self.seconds_left

    def prepay(self) -> bool:
        """Take the first call now, if there is one now. Raises `Stopped` while calls are stopped."""
        if not self._prepaid and _take():
            self._prepaid = True
            self.calls += 1
        if not self._prepaid:
            _raise_if_stopped()
        return self._prepaid

    def take(self) -> None:
        """Take one call, waiting for it. Raises `Exhausted`, at once, if none comes free in time, or `Stopped`."""
        shortest = max(1 / conf.stripe_rate(), SHORTEST_SLEEP)
        while not self.prepay():
            wait = max(shortest, _free_in())
            if self.seconds_left < wait:
                raise Exhausted(_why_none())
            time.sleep(min(wait, 1))
        self._prepaid = False

    def pause(self) -> None:
        """Say that Stripe cannot be asked for a while."""
        pause()

    def stop(self, error: Stopped) -> None:
        """Say that Stripe refused the key."""
        stop(error)


class RequestAllowance(Allowance):
    """An allowance of work inside a request: no connection of a pool is held while Stripe is asked.

    Under ASGI nothing but the pool bounds how many requests do so at once, and gates need a connection, too. Without a
    pool a new one would cost more than it is worth, and a site may have set something on the one that there is.
    """

    def take(self) -> None:
        super().take()
        release_connections(pooled_only=True)


class SideAllowance(Allowance):
    """An allowance of work beside the customers': the catalogue, the poll.

    A call that has begun in time may end later: cut short, it would look as if Stripe were silent. A key that may not
    ask this (HTTP 403) may well ask about entitlements: nothing stops, and `StripeRefused` says what is `forbidden`.
    """

    def __init__(self, *, seconds: float, forbidden: str) -> None:
        super().__init__(seconds=seconds)
        self._forbidden = forbidden

    @property
    def longest_call(self) -> float:
        return inf if self.seconds_left > 0 else 0

    def stop(self, error: Stopped) -> None:
        if error.reason == NOT_PERMITTED:
            raise StripeRefused(self._forbidden)
        super().stop(error)


class Line:
    """Many threads wait here for calls, each with a `Place`: who joined first is first.

    One other thread, which alone asks the database, hands the calls out. `calls` counts those that it took.
    """

    def __init__(self, *, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._changed = threading.Condition()
        self._places: list[Place] = []
        self._closed = False
        self._next_look = 0.0
        self.calls = 0

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def join(self) -> Place:
        """A place at the end, to leave once its work is done. Its first call is handed out as if it had been asked for.

        So the order is that of joining, and not that in which threads come to run.
        """
        place = Place(self, self._changed, seconds=self.seconds_left)
        self._places.append(place)
        return place

    def leave(self, place: Place) -> None:
        self._places.remove(place)

    def hand_out(self) -> None:
        """Take as many calls as are wanted, or as are free. For the one thread.

        Raises `Stopped`, and `Exhausted` in a pause that is longer than the time there is.
        """
        wanting = [place for place in self._places if place.wants]
        if not wanting or time.monotonic() < self._next_look:
            return
        taken, wait = _take_some(len(wanting))
        if wait > max(self.seconds_left, 1 / conf.stripe_rate()):  # the rate alone makes nobody wait that long
            raise Exhausted(_why_none())
        self._next_look = time.monotonic() + min(wait, 1)
        self.calls += taken
        with self._changed:
            for place in wanting[:taken]:
                place.give()
            self._changed.notify_all()

    def is_over(self) -> bool:
        return self._closed or self.seconds_left <= 0

    def close(self) -> None:
        """Who waits for a call gets `Exhausted`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Place(Allowance):
    """One piece of work's place in a line. A call that has begun in time may end later."""

    def __init__(self, line: Line, changed: threading.Condition, *, seconds: float) -> None:
        super().__init__(seconds=seconds)
        self._line, self._changed = line, changed
        self._has_one = False
        self.wants = True

    @property
    def longest_call(self) -> float:
        return inf

    def give(self) -> None:
        self.wants, self._has_one = False, True

    def take(self) -> None:
        with self._changed:
            while not self._line.is_over():
                if self._has_one:
                    self._has_one = False
                    self.calls += 1
                    return
                self.wants = True
                self._changed.wait(min(self.seconds_left, 60))
            raise Exhausted(USED_UP)

    def pause(self) -> None:
        """The one thread learns it from the error."""

    def stop(self, error: Stopped) -> None:
        """The one thread learns it from the error."""


def _take(calls: int = 1) -> bool:
    now = Now()
    interval = timedelta(seconds=1 / conf.stripe_rate())
    beyond = ExpressionWrapper(now + (FARTHEST + interval), output_field=DateTimeField())
    planned = Case(When(next_call_at__gt=beyond, then=now), default=F("next_call_at"))
    step = ExpressionWrapper(Greatest(Coalesce(planned, now), now) + interval * calls, output_field=DateTimeField())
    horizon = ExpressionWrapper(now + (SLACK - interval * (calls - 1)), output_field=DateTimeField())
    free = Q(next_call_at=None) | Q(next_call_at__lte=horizon) | Q(next_call_at__gt=beyond)
    allowed = Q(stopped_at=None) | ~Q(stopped_key=_fingerprint())
    month = _month()
    counted = Case(When(month=month, then=F("calls") + calls), default=calls)
    taken = update(_row().filter(free, allowed), next_call_at=step, stopped_at=None, month=month, calls=counted)
    if not taken and not _row().exists():
        insert(AccountState(account="", livemode=conf.livemode()))
        return _take(calls)
    return bool(taken)


def _take_some(wanted: int) -> tuple[int, float]:
    """Take so many calls, or those that are free. Returns how many, and in how many seconds to look again."""
    wait = _free_in()
    if wait > 0:
        return 0, wait
    calls = min(wanted, int(-wait * conf.stripe_rate()) + 1)
    return (calls, 0) if _take(calls) else (0, SHORTEST_SLEEP)


def _free_in() -> float:
    """In how many seconds a call is free; below 0 if some have been for so long. Raises `Stopped`."""
    interval = timedelta(seconds=1 / conf.stripe_rate())
    ahead = timedelta(0)
    for state in _row().annotate(now=Now()):
        if state.stopped_at is not None and state.stopped_key == _fingerprint():
            raise Stopped(STOPPED)
        if state.next_call_at is not None and state.next_call_at - state.now <= FARTHEST + interval:
            ahead = max(state.next_call_at - state.now, ahead)
    return (ahead - SLACK).total_seconds()


@dataclass(frozen=True)
class Use:
    """Calls since the month began, in UTC, and what holds up the next one: none is made while `stopped_at` is set.

    `pause`: how much longer none is made after Stripe was out of reach or asked for less. `polled_to`: up to which of
    Stripe's seconds its events were found.
    """

    this_month: int = 0
    stopped_at: datetime | None = None
    stopped_reason: str = ""
    pause: timedelta | None = None
    polled_to: int | None = None


def get_use() -> Use:
    """One look at the account's row."""
    # The budget is planned on the database's clock.
    for state in _row().annotate(now=Now()):
        is_stopped = state.stopped_at is not None and state.stopped_key == _fingerprint()
        ahead = state.next_call_at - state.now if state.next_call_at else timedelta(0)
        is_paused = state.paused_at is not None and timezone.now() - state.paused_at < FARTHEST
        return Use(
            this_month=state.calls if state.month == _month() else 0,
            stopped_at=state.stopped_at if is_stopped else None,
            stopped_reason=state.stopped_reason if is_stopped else "",
            pause=ahead if is_paused and ahead > timedelta(0) else None,
            polled_to=state.polled_to,
        )
    return Use()


def _why_none() -> str:
    """Why no call comes free in time, for people: a pause, or too many calls."""
    pause = get_use().pause
    if pause is None:
        return USED_UP
    seconds = max(1, round(pause.total_seconds()))
    return f"Stripe was out of reach or asked for fewer calls, so it is not asked for another {seconds} s."


def _month() -> int:
    today = datetime.now(UTC)
    return today.year * 100 + today.month


def pause() -> bool:
    """No call for a while: Stripe is out of reach or asked for less. Longer each time, until it has been well again.

    Returns whether that is news: calls that were made together meet the same trouble.
    """
    now = timezone.now()
    for state in _row():
        since = NEW_TROUBLE if state.paused_at is None else abs(now - state.paused_at)
        if since < FIRST_PAUSE * SHORTENED:  # others were told the same
            return False
        in_a_row = state.pauses + 1 if since < NEW_TROUBLE else 1
        wait = min(FIRST_PAUSE * (1 << min(in_a_row - 1, 10)), FARTHEST) * random.uniform(SHORTENED, 1)
        later = ExpressionWrapper(Now() + wait, output_field=DateTimeField())
        update(_row(), next_call_at=later, paused_at=now, pauses=in_a_row)
    return True


def stop(error: Stopped) -> None:
    """No call at all until there is another key or someone resumes: Stripe refused the key."""
    if not error.reason:  # it had refused it before
        return
    running = _row().filter(Q(stopped_at=None) | ~Q(stopped_key=_fingerprint()))
    if not update(running, stopped_at=timezone.now(), stopped_key=_fingerprint(), stopped_reason=error.reason):
        return  # calls that were made together are refused together
    logger.critical(
        "%s Nothing is fetched until the key in the settings changes or `manage.py entitlements_run --resume` is run.",
        error,
    )


def resume() -> bool:
    """Allow calls again. Returns whether they had been stopped."""
    return bool(update(_row().exclude(stopped_at=None), stopped_at=None, stopped_reason="", next_call_at=None))


def stopped_reason() -> str:
    """Why calls with the present key are stopped, empty if they are not."""
    return get_use().stopped_reason


def _raise_if_stopped() -> None:
    if stopped_reason():
        raise Stopped(STOPPED)


def _row() -> QuerySet[AccountState]:
    return own(AccountState)


@sensitive_variables()
def _fingerprint() -> str:
    """Tells one key from another without storing it."""
    key = conf.stripe_api_key() or ""
    return salted_hmac("entitlements_app.budget", key, algorithm="sha256").hexdigest()[:32]
