"""Fetch many customers at once, so that the call budget and not Stripe's latency is what bounds it.

Threads ask Stripe and nothing else. The calling thread alone uses the database: it claims, takes calls from the budget
for all threads, and applies what they were told, many answers in one transaction. It claims no more than can soon be
asked about, so that who becomes urgent waits for few others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from . import budget, conf, fetches, settle, transactions
from .budget import Exhausted, Line, Place, Stopped
from .exceptions import StripeRefused, StripeUnavailable
from .fetches import Answered, Fetch, Told
from .settle import Synced
from .stripe_client import NoAnswer, TooManyCalls, UnusableAnswer

logger = logging.getLogger(__name__)

TICK = 0.025  # seconds in which answers gather
LOOK_AGAIN = 0.5  # seconds until it is looked again who is due, while others are still asked about
MOST_AT_ONCE = 32

Claim = Callable[[int], Sequence[Fetch]]


@dataclass
class FetchReport:
    """What a pass of fetches did, and why it ended early, if it did. `stopped`: Stripe refused the API key.

    `on_wait` is called again and again while nothing is half done; what it raises ends the pass.
    """

    fetched: int = 0
    changed: int = 0
    failed: int = 0
    drifted: int = 0
    calls: int = 0
    problem: str = ""
    stopped: bool = False
    on_answer: Callable[[Fetch, Synced], None] | None = field(default=None, repr=False)
    on_wait: Callable[[], None] | None = field(default=None, repr=False)

    def as_line(self, *, dry: bool = False) -> str:
        changed = f"{self.changed} of them {'would change' if dry else 'changed'} something"
        if self.drifted:
            changed += f" ({self.drifted} of which no event had told)"
        return f"Fetches: {self.fetched} answered, {changed}, {self.failed} failed."

    def add(self, fetch: Fetch, synced: Synced) -> None:
        self.fetched += 1
        self.changed += synced.changed
        self.drifted += bool(synced.drift)
        if self.on_answer is not None:
            self.on_answer(fetch, synced)


def run(claim: Claim, report: FetchReport, *, seconds: float, patience: int = 1, dry: bool = False) -> None:
    """Fetch what `claim` gives, until it gives nothing, Stripe cannot be asked, or the time is over.

    That Stripe cannot be asked is learnt from so many server errors in a row as `patience` says. Claims of customers
    that were not asked about are given back, whatever ends it. With `dry` answers are compared and not applied. Raises
    `RuntimeError` inside an atomic block.
    """
    transactions.refuse_open_transaction("Fetching customers' entitlements")
    if seconds > 0:
        _Pool(claim, report, seconds=seconds, patience=patience, dry=dry).run()


class _Pool:
    def __init__(self, claim: Claim, report: FetchReport, *, seconds: float, patience: int, dry: bool) -> None:
        self._claim, self._report, self._patience, self._is_dry = claim, report, patience, dry
        self._line = Line(seconds=seconds)
        self._errors_in_a_row = 0
        self._size = min(max(2, math.ceil(conf.stripe_rate() * 2)), MOST_AT_ONCE)
        self._claimed: set[Fetch] = set()
        self._running: dict[Future[Told], tuple[Fetch, Place]] = {}
        self._next_claim = 0.0
        self._is_ending = False

    def run(self) -> None:
        try:
            with ThreadPoolExecutor(self._size, thread_name_prefix="entitlements-fetch") as threads:
                try:
                    self._work(threads)
                finally:
                    self._line.close()
        finally:
            for fetch in self._claimed:  # an error of ours, or an interrupt
                fetches.give_back(fetch, Exhausted(budget.USED_UP))

    def _work(self, threads: ThreadPoolExecutor) -> None:
        while True:
            if self._report.on_wait is not None:
                self._report.on_wait()
            self._claim_more(threads)
            if not self._running:
                return
            try:
                self._line.hand_out()
            except Stopped as error:
                self._stop(error)
            except Exhausted:
                self._end()
            answered = wait(self._running, timeout=TICK).done
            self._take_in([future for future in self._running if future in answered])

    def _claim_more(self, threads: ThreadPoolExecutor) -> None:
        free = self._size - len(self._running)
        if self._is_ending or free < max(1, self._size // 4):
            return
        if self._running and time.monotonic() < self._next_claim:
            return
        if self._line.seconds_left <= 0:
            self._is_ending = True
            return
        wave = self._claim(free)
        self._claimed.update(wave)
        if not wave:
            self._next_claim = time.monotonic() + LOOK_AGAIN
        for fetch in wave:
            place = self._line.join()
            self._running[threads.submit(fetches.ask, fetch, place)] = fetch, place

    def _take_in(self, answered: Sequence[Future[Told]]) -> None:
        """What was asked first comes first: of two answers about one customer the last one counts."""
        told: list[Answered] = []
        failed = 0
        for future in answered:
            fetch, place = self._running.pop(future)
            self._line.leave(place)
            error = future.exception()
            if error is None:
                self._errors_in_a_row = 0
                told.append((fetch, future.result()))
            elif isinstance(error, Exception):
                failed += self._fail(fetch, error)
                self._claimed.discard(fetch)
            else:
                raise error
        synced, unsettled = self._settle(told)
        self._claimed.difference_update(fetch for fetch, _ in told)
        calls, self._line.calls = self._line.calls, 0
        self._report.calls += calls
        self._report.failed += failed + unsettled
        settle.count([] if self._is_dry else synced, calls=calls, failed=failed + unsettled)

    def _settle(self, told: Sequence[Answered]) -> tuple[list[Synced], int]:
        """Together, or if that fails one by one, as one customer must not hold up the others."""
        if not told:
            return [], 0
        try:
            synced = settle.compare(told) if self._is_dry else settle.apply(told)
        except Exception as error:  # of whatever kind, as said above
            if len(told) > 1:
                logger.exception("Applying %d answers failed; trying one by one.", len(told))
                parts = [self._settle([answer]) for answer in told]
                return [one for part, _ in parts for one in part], sum(failed for _, failed in parts)
            fetch = told[0][0]
            logger.exception("Applying the answer about %s failed.", fetch.stripe_id)
            fetches.give_back(fetch, error)
            return [], 1
        for (fetch, _), one in zip(told, synced, strict=True):
            self._report.add(fetch, one)
        return synced, 0

    def _fail(self, fetch: Fetch, error: Exception) -> int:
        """Give the customer back. Returns how many failures that counts as."""
        fetches.give_back(fetch, error)
        if isinstance(error, Exhausted):
            return 0
        if isinstance(error, Stopped):
            self._stop(error)
        elif isinstance(error, StripeUnavailable | StripeRefused):
            logger.warning("Fetching %s failed. %s", fetch.stripe_id, error)
            if isinstance(error, StripeUnavailable) and not isinstance(error, UnusableAnswer):
                self._trouble(error)
        else:  # of whatever kind: one customer must not hold up the others
            logger.error("Fetching %s failed.", fetch.stripe_id, exc_info=error)
        return 1

    def _trouble(self, error: StripeUnavailable) -> None:
        """Stripe may be unable to answer about anybody."""
        self._report.problem = str(error)
        is_outage = isinstance(error, NoAnswer | TooManyCalls)
        # Calls that are made at once meet the same outage.
        if not is_outage or budget.pause() or not self._errors_in_a_row:
            self._errors_in_a_row += 1
        if self._errors_in_a_row >= self._patience:
            self._end()

    def _stop(self, error: Stopped) -> None:
        budget.stop(error)
        self._report.problem, self._report.stopped = str(error), True
        self._end()

    def _end(self) -> None:
        """Ask about nobody else."""
        self._is_ending = True
        self._line.close()
