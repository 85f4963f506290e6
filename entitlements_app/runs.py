"""Which periodic work ran, and what came of it. The only writer of sync runs.

There is one run of a kind at a time, for an account and mode: the database sees to it. One that has said nothing for
LEASE is taken for dead.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils import timezone

from . import conf, transactions
from .models import EntitlementChange, SyncRun
from .old_rows import batches, last_before
from .transactions import own, primary, update
from .windows import LEASE

Kind = SyncRun.Kind
Drift = EntitlementChange.Drift

RETRY = timedelta(minutes=1)
ERROR_LENGTH = 1000
KILLED = "It ended without a word: its process was killed."


def start(kind: Kind, *, total: int | None = None) -> SyncRun | None:
    """Begin a run; `None` if one is at work."""

    def work() -> SyncRun | None:
        _bury(kind)
        run = SyncRun(kind=kind, livemode=conf.livemode(), total=total)
        return run if transactions.insert(run) else None

    return transactions.write(work)


def start_if_due(kind: Kind, *, every: timedelta, retry: timedelta = RETRY) -> SyncRun | None:
    """Begin a run, unless one is at work, one succeeded within `every`, or one failed within `retry`."""
    now = timezone.now()
    if _runs(kind).filter(finished_at__gt=now - every, error="").exists():
        return None
    if _runs(kind).filter(finished_at__gt=now - retry).exists():
        return None
    return start(kind)


def interrupted_since(kind: Kind, *, within: timedelta) -> datetime | None:
    """When the first run began of those that have failed, or were killed, since the last that succeeded."""
    earlier = _runs(kind).filter(started_at__gt=timezone.now() - within)
    succeeded = earlier.filter(finished_at__isnull=False, error="").order_by("-started_at").first()
    if succeeded is not None:
        earlier = earlier.filter(started_at__gt=succeeded.started_at)
    first = earlier.order_by("started_at").first()
    return first.started_at if first else None


def last_error(kind: Kind) -> str:
    """Why the latest run failed that has ended; empty if it did not, or there was none."""
    last = _runs(kind).exclude(finished_at=None).order_by("-started_at").first()
    return last.error if last else ""


def count(run: SyncRun, *, done: int = 0, changed: int = 0, failed: int = 0, calls: int = 0) -> None:
    """Add to what a run did, and say that it is still at work."""
    _add(_runs(Kind(run.kind)).filter(pk=run.pk), done=done, changed=changed, failed=failed, calls=calls)


def finish(run: SyncRun, *, error: str = "") -> None:
    """End a run; with an error it counts as failed."""
    now = timezone.now()
    text = error[:ERROR_LENGTH].replace("\x00", "")
    update(_runs(Kind(run.kind)).filter(pk=run.pk), finished_at=now, seen_at=now, error=text)


def count_fetches(*, done: int, changed: int, failed: int, calls: int, drift: dict[Drift, int]) -> None:
    """Add to what the fetches of this hour did: one row an hour, whoever makes them."""
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    numbers = {"done": done, "changed": changed, "failed": failed, "calls": calls}
    numbers |= {f"drift_{cause}": number for cause, number in drift.items()}
    open_row = _runs(Kind.CONFIRM).filter(finished_at=None)

    def work() -> None:
        open_row.filter(started_at__lt=hour).update(finished_at=F("seen_at"))
        if not _add(open_row, **numbers):
            transactions.insert(SyncRun(kind=Kind.CONFIRM, livemode=conf.livemode()))
            _add(open_row, **numbers)

    if any(numbers.values()) and not _add(open_row.filter(started_at__gte=hour), **numbers):
        transactions.write(work)


def purge(*, before: datetime, deadline: float) -> int:
    """Delete runs that ended before that moment, but the latest of each kind. Returns how many were deleted."""
    rows = primary(SyncRun)
    same = {field: OuterRef(field) for field in ("kind", "account", "livemode")}
    newer = Exists(rows.filter(started_at__gt=OuterRef("started_at"), **same))
    deleted = 0
    for batch in batches(rows, after=0, until=last_before(rows, "started_at", before), deadline=deadline):
        deleted += transactions.write(batch.filter(newer, finished_at__lt=before).delete)[0]
    return deleted


def _runs(kind: Kind) -> QuerySet[SyncRun]:
    return own(SyncRun).filter(kind=kind)


def _bury(kind: Kind) -> None:
    silent = _runs(kind).filter(finished_at=None, seen_at__lt=timezone.now() - LEASE)
    silent.update(finished_at=F("seen_at"), error=KILLED)


def _add(rows: QuerySet[SyncRun], **numbers: int) -> int:
    sums = {name: F(name) + number for name, number in numbers.items() if number}
    return update(rows, seen_at=timezone.now(), **sums)
