"""Forget what is no longer needed: payloads, events, changes, runs. Each module deletes the rows that it writes.

In both modes, and of connected accounts: nobody else would.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from . import changes as change_log
from . import inbox
from . import runs as sync_runs
from .runs import Kind

EVERY = timedelta(days=1)
# Stripe's Events API lists 30 days. An event that is forgotten sooner would be new when it is found there.
EVENTS_AT_LEAST = timedelta(days=31)
RUNS_AT_LEAST = timedelta(days=7)  # `entitlements_status` sums up a week


@dataclass(frozen=True)
class PurgeReport:
    """What was forgotten. `finished`: the time was enough, for all but perhaps changes, see `changes.purge`."""

    payloads: int = 0
    events: int = 0
    changes: int = 0
    runs: int = 0
    finished: bool = True

    @property
    def total(self) -> int:
        return self.payloads + self.events + self.changes + self.runs

    def as_line(self) -> str:
        line = (
            f"Purged: {self.payloads} payload(s), {self.events} event(s), {self.changes} change(s), {self.runs} run(s)."
        )
        return line if self.finished else f"{line} There is more."


def purge_history(
    *,
    payloads: timedelta = timedelta(days=7),
    events: timedelta = timedelta(days=35),
    changes: timedelta = timedelta(days=400),
    runs: timedelta = timedelta(days=90),
    deadline: float,
) -> PurgeReport:
    """Forget what is older than these, until nothing is, or `deadline` (on `time.monotonic`) is past.

    Never forgotten: a pending event; the payload of an event that failed, as long as the event is there; a change that
    is undelivered or parked, or that is the newest of its kind, so that the log replays as before; the latest run of
    each kind, and one at work. In short transactions; the next pass takes what this one had no time for.

    Raises `ValueError` for events of less than 31 days, runs of less than seven, payloads that outlive their events.
    """
    _check(payloads=payloads, events=events, changes=changes, runs=runs)
    now = timezone.now()
    emptied = inbox.purge_payloads(before=now - payloads, deadline=deadline)
    old_events = inbox.purge(before=now - events, deadline=deadline)
    old_runs = sync_runs.purge(before=now - runs, deadline=deadline)
    finished = time.monotonic() < deadline
    old_changes = change_log.purge(before=now - changes, deadline=deadline)
    return PurgeReport(emptied, old_events, old_changes, old_runs, finished)


def _check(*, payloads: timedelta, events: timedelta, changes: timedelta, runs: timedelta) -> None:
    if events < EVENTS_AT_LEAST:
        raise ValueError(
            f"Events are kept for at least {EVENTS_AT_LEAST.days} days: so long Stripe may name them again."
        )
    if runs < RUNS_AT_LEAST:
        raise ValueError(f"Runs are kept for at least {RUNS_AT_LEAST.days} days: entitlements_status sums them up.")
    if not timedelta(0) <= payloads <= events:
        raise ValueError("A payload is kept for no longer than its event, and for no less than nothing.")
    if changes < timedelta(0):
        raise ValueError("Changes that are still to come cannot be forgotten.")


def purge_if_due(*, deadline: float) -> PurgeReport | None:
    """`purge_history`, once a day, and again in a minute if the time was too short; `None` if it is not due."""
    run = sync_runs.start_if_due(Kind.PURGE, every=EVERY)
    if run is None:
        return None
    try:
        report = purge_history(deadline=deadline)
    except Exception as error:  # of whatever kind: the run has ended
        sync_runs.finish(run, error=f"{type(error).__name__}: {error}")
        raise
    sync_runs.count(run, done=report.total)
    sync_runs.finish(run, error="" if report.finished else "The time was over before all was purged; it goes on.")
    return report
