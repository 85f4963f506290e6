"""Ask the Events API for what webhooks did not bring: every ten minutes, and after an outage of up to 30 days.

How far we are is a time, in whole seconds of Stripe's. It is moved once all events before it are stored, so that a poll
that was killed goes on where it was, and two at once do no harm. `inbox` makes hints of what is found.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Q, QuerySet

from . import budget, conf, inbox, runs, stripe_reads, transactions
from .budget import Allowance, Exhausted, SideAllowance, Stopped
from .exceptions import StripeRefused, StripeUnavailable
from .models import AccountState, SyncRun
from .runs import Kind
from .stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, Event, Page
from .transactions import own, update

logger = logging.getLogger(__name__)

POLL = timedelta(minutes=10)
EARLY = timedelta(seconds=30)  # cron comes every minute, not to the second
TYPES = (SUMMARY_UPDATED, CUSTOMER_DELETED)

FORBIDDEN = (
    "Stripe does not let this API key read events (HTTP 403), so that a lost webhook is not noticed. "
    "A restricted key must be allowed to read Events."
)
FORBIDDEN_AGAIN = timedelta(hours=1)

# Stripe seconds
BEHIND = 120  # what is newer may be missing from Stripe's list, and its webhook is on its way
OVERLAP = 3600  # read again, for events that came late into the list
KEPT = 30 * 24 * 3600  # Stripe lists no older ones
FIRST_SLICE = 3600
LONGEST_SLICE = 24 * 3600

# Pages of a slice, after which the next one is twice as long, half as long, or this one is given up.
FEW, MANY, TOO_MANY = 4, 20, 100
SHRINK = 16


@dataclass
class PollReport:
    """What a poll did, and why it ended early, if it did. `stopped`: Stripe refused the API key."""

    found: int = 0
    unreadable: int = 0
    calls: int = 0
    problem: str = ""
    stopped: bool = False

    def as_line(self) -> str:
        return f"Events API: {self.found} found that had not come, {self.calls} call(s)."


def poll_if_due(*, deadline: float) -> PollReport | None:
    """Poll, unless another poll is at work, or one succeeded less than POLL ago, or calls are stopped."""
    if conf.stripe_api_key() is None or budget.stopped_reason():
        return None
    forbidden = runs.last_error(Kind.BACKFILL) == FORBIDDEN
    run = runs.start_if_due(Kind.BACKFILL, every=POLL - EARLY, retry=FORBIDDEN_AGAIN if forbidden else runs.RETRY)
    return None if run is None else _poll(run, deadline=deadline)


def backfill_events(*, deadline: float) -> PollReport:
    """Find the events that were not delivered, until two minutes before Stripe's now, or `deadline` (monotonic).

    They are stored, and not processed yet. What Stripe or the deadline prevents stands in the report, and the next poll
    goes on there. Raises `RuntimeError` inside an atomic block.
    """
    return _poll(runs.start(Kind.BACKFILL), deadline=deadline)


def _poll(run: SyncRun | None, *, deadline: float) -> PollReport:
    poll = _Poll(run, SideAllowance(seconds=deadline - time.monotonic(), forbidden=FORBIDDEN))
    report = poll.report
    try:
        transactions.refuse_open_transaction("Polling the Events API")
        poll.catch_up()
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Polling the Events API ended early. %s", error)
        report.problem = str(error)
        report.stopped = isinstance(error, Stopped)
    except BaseException as error:  # of whatever kind, a signal's too: the run says how it ended
        report.problem = f"{type(error).__name__}: {error}"
        raise
    finally:
        poll.end()
    if report.found:
        logger.warning("Found %d event(s) in the Events API that no webhook had brought.", report.found)
    return report


@dataclass(frozen=True)
class _Slice:
    """What became of a slice: whether all of it was read, up to where, and Stripe's time then."""

    whole: bool
    end: int
    stripe_now: int

    @property
    def is_last(self) -> bool:
        return self.end >= self.stripe_now - BEHIND


class _Poll:
    def __init__(self, run: SyncRun | None, allowance: Allowance) -> None:
        self.report = PollReport()
        self._run = run
        self._allowance = allowance
        self._length = FIRST_SLICE

    def catch_up(self) -> None:
        """Slice by slice, oldest first, the overlap together with the first.

        If that is too much at once, the overlap comes last: what is new must not wait for what we mostly have.
        """
        position = _polled_to()
        if position is None and (position := self._begin()) is None:
            return
        start, again = position - OVERLAP, None
        while True:
            read = self._read(start, position + self._length)
            if (other := _plausible(position, read.stripe_now)) != position:
                _move(position, other)
                start, position = other - OVERLAP, other
            elif read.whole:
                start = position = max(position, read.end)
                _advance(position)
                if read.is_last:
                    break
            elif start < position:
                start, again = position, (start, position)
        if again is not None:
            self._read_again(*again)

    def end(self) -> None:
        self._tell()
        if self._run is not None:
            runs.finish(self._run, error=self.report.problem)

    def _begin(self) -> int | None:
        """The first poll of all: only Stripe's answer says what time it is. Returns where to go on, if anywhere."""
        read = self._read(None, None)
        if not read.whole:
            return read.stripe_now - BEHIND
        _advance(read.end)
        return None

    def _read_again(self, start: int, end: int) -> None:
        while start < end:
            until = min(start + self._length, end)
            try:
                read = self._read(start, until)
            except Exhausted:
                logger.warning("There was no time to read the last hour of events again.")
                return
            if read.whole:
                start = until

    def _read(self, start: int | None, end: int | None) -> _Slice:
        """Store, page by page, what the inbox lacks of the events from `start` until before `end`.

        A slice that takes a quarter of the time is given up, and the next one is much shorter: so there is headway
        however little time there is. Without `start` and `end` it is one page, and of that the last hour.
        """
        seconds = None if start is None or end is None else end - start
        enough = self._allowance.seconds_left * 3 / 4
        now = reached = pages = 0
        whole = True
        for page, answered_at in self._pages(start, end):
            if not pages:
                now = answered_at
                reached = now - BEHIND if end is None else min(end, now - BEHIND)
            pages += 1
            self._store(page, since=now - OVERLAP if start is None else start, before=reached)
            too_long = pages == TOO_MANY or self._allowance.seconds_left < enough
            if page.has_more and (seconds is None or (too_long and seconds > 1)):
                whole = False
                break
        if seconds is not None:
            self._adapt(pages, whole=whole)
        return _Slice(whole=whole, end=reached, stripe_now=now)

    def _pages(self, start: int | None, end: int | None) -> Iterator[tuple[Page[Event], int]]:
        created = {} if start is None or end is None else {"gte": start, "lt": end}
        return stripe_reads.iter_events(TYPES, created, self._allowance)

    def _adapt(self, pages: int, *, whole: bool) -> None:
        """Quiet days are read in a call each, and of busy ones little is read twice by who was killed."""
        if not whole:
            self._length = max(self._length // SHRINK, 1)
        elif pages > MANY:
            self._length = max(self._length // 2, 1)
        elif pages <= FEW:
            self._length = min(self._length * 2, LONGEST_SLICE)

    def _store(self, page: Page[Event], *, since: int, before: int) -> None:
        """What is newer is left alone: its webhook is on its way, with a payload that counts."""
        wanted = [event for event in page.rows if event.created is None or since <= event.created < before]
        self._tell(found=inbox.store_polled(wanted), unreadable=len(page.unreadable))
        for problem in page.unreadable:
            logger.error("Stripe lists an event that cannot be read: %s.", problem)

    def _tell(self, *, found: int = 0, unreadable: int = 0) -> None:
        calls = self._allowance.calls - self.report.calls
        self.report.found += found
        self.report.unreadable += unreadable
        self.report.calls += calls
        if self._run is not None:
            runs.count(self._run, done=found, failed=unreadable, calls=calls)


def _plausible(position: int, stripe_now: int) -> int:
    """The position, or a better one if Stripe's time says that it cannot be right."""
    oldest = stripe_now - KEPT
    if position < oldest:
        logger.warning(
            "Events were polled until %s. Stripe lists none from before %s: what happened in between is found when the "
            "customers are confirmed (ENTITLEMENTS_CONFIRM_EVERY).",
            *(datetime.fromtimestamp(seconds, UTC) for seconds in (position, oldest)),
        )
        return oldest + OVERLAP
    if position - OVERLAP > stripe_now - BEHIND:
        logger.warning("Events were polled until a time that lies in Stripe's future; going back to the last hour.")
        return stripe_now - BEHIND
    return position


def _polled_to() -> int | None:
    return _state().values_list("polled_to", flat=True).first()


def _advance(position: int) -> None:
    """Another poll may be farther already."""
    update(_state().filter(Q(polled_to=None) | Q(polled_to__lt=position)), polled_to=position)


def _move(old: int, new: int) -> None:
    update(_state().filter(polled_to=old), polled_to=new)


def _state() -> QuerySet[AccountState]:
    return own(AccountState)
