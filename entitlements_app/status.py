"""How the app is doing, in the configured mode: what waits, what failed, what ran. Reads only.

Every number is read by an index, and counted up to COUNTED, so that asking costs the same at any size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Case, F, Q, QuerySet, Subquery, Sum, When
from django.utils import timezone

from . import beside_djstripe, budget, conf
from .models import Customer, EntitlementChange, SubscriberState, SyncRun, WebhookEvent
from .one_query import how_many_wait
from .transactions import alias, own, primary

COUNTED = 100_000

Kind = SyncRun.Kind
Drift = EntitlementChange.Drift


@dataclass(frozen=True)
class Configuration:
    """What is set, and never to which secret. `processing`: who processes webhooks, `inline` or `celery`.

    `djstripe_endpoint`: whether events can come by dj-stripe's endpoint, which needs no secret of ours.
    """

    livemode: bool
    api_key: bool
    webhook_secrets: int
    djstripe_endpoint: bool
    processing: str
    rate: float
    confirm_every_seconds: int


@dataclass(frozen=True)
class Events:
    """`overdue`: pending, and past the time at which they were to be tried again."""

    pending: int
    overdue: int
    oldest_pending_seconds: int | None
    failed: int


@dataclass(frozen=True)
class Customers:
    """`due`: to be fetched now. `marked`: there was news of them that no fetch has settled yet.

    `total` leaves out deleted ones. If `estimated`, it is PostgreSQL's estimate, and of all customers in both modes.
    """

    total: int
    estimated: bool
    marked: int
    due: int
    longest_due_seconds: int | None
    urgent: int
    longest_urgent_seconds: int | None


@dataclass(frozen=True)
class Changes:
    """`undelivered`: will be delivered, now or later. `parked`: given up."""

    undelivered: int
    oldest_undelivered_seconds: int | None
    parked: int


@dataclass(frozen=True)
class Overrides:
    """Subscribers of whom an override has started or ended since anyone was told. Gates count it anyway."""

    untold: int
    longest_untold_seconds: int | None


@dataclass(frozen=True)
class DriftCount:
    """How often a fetch found our copy wrong, by the likely cause."""

    event_lost: int
    catalog: int
    unknown: int


@dataclass(frozen=True)
class Run:
    """The latest run of a kind. `succeeded_at`: when the last one that did not fail ended."""

    started_at: datetime
    seen_at: datetime
    finished_at: datetime | None
    succeeded_at: datetime | None
    error: str
    total: int | None
    done: int
    changed: int
    failed: int
    calls: int


@dataclass(frozen=True)
class Calls:
    """Calls to Stripe. While `stopped_at` is set none is made, until `paused_until` neither."""

    this_month: int
    stopped_at: datetime | None
    stopped_reason: str
    paused_until: datetime | None


@dataclass(frozen=True)
class Status:
    """`poll_lag_seconds`: about how far the poll of the Events API is behind; `None` before the first."""

    as_of: datetime
    configuration: Configuration
    events: Events
    customers: Customers
    changes: Changes
    overrides: Overrides
    drift_day: DriftCount
    drift_week: DriftCount
    runs: dict[str, Run | None]
    poll_lag_seconds: int | None
    calls: Calls


def get_status() -> Status:
    """Raises `ImproperlyConfigured` for a malformed setting. Calls nobody, and writes nothing."""
    conf.check()
    now = timezone.now()
    waiting = how_many_wait(**_events(now), **_customers(now), **_changes(), **_overrides(now))
    day, week = _drift(now)
    use = budget.get_use()
    return Status(
        as_of=now,
        configuration=_configuration(),
        events=Events(
            pending=waiting["pending"].number,
            overdue=waiting["overdue"].number,
            oldest_pending_seconds=_seconds(waiting["pending"].since, now),
            failed=waiting["failed"].number,
        ),
        customers=Customers(
            *_total(waiting["customers"].number),
            marked=waiting["marked"].number,
            due=waiting["due"].number,
            longest_due_seconds=_seconds(waiting["due"].since, now),
            urgent=waiting["urgent"].number,
            longest_urgent_seconds=_seconds(waiting["urgent"].since, now),
        ),
        changes=Changes(
            undelivered=waiting["undelivered"].number,
            oldest_undelivered_seconds=_seconds(waiting["undelivered"].since, now),
            parked=waiting["parked"].number,
        ),
        overrides=Overrides(waiting["untold"].number, _seconds(waiting["untold"].since, now)),
        drift_day=day,
        drift_week=week,
        runs=_runs(),
        poll_lag_seconds=_poll_lag(use),
        calls=_calls(use, now),
    )


def _configuration() -> Configuration:
    return Configuration(
        livemode=conf.livemode(),
        api_key=conf.stripe_api_key() is not None,
        webhook_secrets=len(conf.webhook_secrets()),
        djstripe_endpoint=beside_djstripe.has_endpoint(),
        processing=conf.webhook_processing(),
        rate=conf.stripe_rate(),
        confirm_every_seconds=int(conf.confirm_every().total_seconds()),
    )


# What waits. Each query walks along an index, and ends at COUNTED.

_Rows = dict[str, QuerySet[Any, Any]]


def _events(now: datetime) -> _Rows:
    rows = own(WebhookEvent)
    pending = rows.filter(status=WebhookEvent.Status.PENDING).order_by("next_attempt_at")[:COUNTED]
    failed = rows.filter(status=WebhookEvent.Status.FAILED).order_by("received_at")[:COUNTED]
    return {
        "pending": pending.values(moment=F("received_at")),
        "overdue": pending.values(moment=Case(When(next_attempt_at__lte=now, then="next_attempt_at"))),
        "failed": failed.values(moment=F("received_at")),
    }


def _customers(now: datetime) -> _Rows:
    rows = Customer.objects.using(alias()).in_mode(conf.livemode())
    scheduled = rows.order_by("next_fetch_at").values(moment=F("next_fetch_at"))
    due = scheduled.filter(next_fetch_at__lte=now)
    return {
        "customers": scheduled.filter(next_fetch_at__isnull=False)[:COUNTED],
        "due": due[:COUNTED],
        "urgent": due.filter(urgent=True)[:COUNTED],
        "marked": rows.marked().order_by("hinted_at").values(moment=F("hinted_at"))[:COUNTED],
    }


def _total(counted: int) -> tuple[int, bool]:
    """How many customers there are, and whether PostgreSQL estimates it: it costs a look at each row to know more."""
    connection = connections[alias()]
    if counted < COUNTED or connection.vendor != "postgresql":
        return counted, False
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", [Customer._meta.db_table])
        estimate = int(cursor.fetchone()[0])
    return (estimate, True) if estimate >= COUNTED else (counted, False)


def _changes() -> _Rows:
    rows = EntitlementChange.objects.using(alias()).undelivered().filter(livemode=conf.livemode())
    first = rows.order_by("subscriber_id", "pk")[:COUNTED]
    waits = When(parked_at=None, subscriber__isnull=False, then="created_at")
    return {"undelivered": first.values(moment=Case(waits)), "parked": first.values(moment=F("parked_at"))}


def _overrides(now: datetime) -> _Rows:
    passed = primary(SubscriberState).filter(next_boundary_at__lte=now, livemode=conf.livemode())
    return {"untold": passed.order_by("next_boundary_at").values(moment=F("next_boundary_at"))[:COUNTED]}


def _seconds(since: datetime | None, now: datetime) -> int | None:
    return None if since is None else max(int((now - since).total_seconds()), 0)


# What ran


def _runs() -> dict[str, Run | None]:
    rows = own(SyncRun).order_by("-started_at")
    succeeded = rows.filter(finished_at__isnull=False, error="")
    first = [Subquery(of.filter(kind=kind).values("pk")[:1]) for kind in Kind.values for of in (rows, succeeded)]
    found: dict[str, Run | None] = dict.fromkeys(Kind.values)
    for row in rows.filter(pk__in=first).reverse():  # type: ignore[misc]  # the stubs know no list of subqueries
        found[row.kind] = _run(row, found[row.kind])
    return found


def _run(row: SyncRun, before: Run | None) -> Run:
    succeeded = row.finished_at is not None and not row.error
    last_success = before.succeeded_at if before else None
    return Run(
        started_at=row.started_at,
        seen_at=row.seen_at,
        finished_at=row.finished_at,
        succeeded_at=row.finished_at if succeeded else last_success,
        error=row.error,
        total=row.total,
        done=row.done,
        changed=row.changed,
        failed=row.failed,
        calls=row.calls,
    )


def _drift(now: datetime) -> tuple[DriftCount, DriftCount]:
    """In the last day, and in the last week. Runs that fetch are an hour long, so both are about."""
    kinds = (Kind.CONFIRM, Kind.ALL)
    rows = own(SyncRun).filter(kind__in=kinds)
    today = Q(started_at__gt=now - timedelta(days=1))
    sums: dict[str, Any] = {}
    for cause in Drift.values:
        sums[f"week_{cause}"] = Sum(f"drift_{cause}", default=0)
        sums[f"day_{cause}"] = Sum(f"drift_{cause}", default=0, filter=today)
    told = rows.filter(started_at__gt=now - timedelta(days=7)).aggregate(**sums)
    day, week = (
        DriftCount(**{cause: told[f"{period}_{cause}"] for cause in Drift.values}) for period in ("day", "week")
    )
    return day, week


def _poll_lag(use: budget.Use) -> int | None:
    """By our clock against Stripe's time, which nothing but this display may do."""
    return None if use.polled_to is None else max(int(time.time()) - use.polled_to, 0)


def _calls(use: budget.Use, now: datetime) -> Calls:
    paused_until = None if use.pause is None else now + use.pause
    return Calls(use.this_month, use.stopped_at, use.stopped_reason, paused_until)
