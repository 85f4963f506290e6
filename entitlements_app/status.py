"""How the app is doing, in the configured mode: what waits, what failed, what ran. Reads only.

Every number is read by an index, and counted up to COUNTED, so that asking costs the same at any size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Count, Min, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Now
from django.utils import timezone

from . import budget, conf
from .models import AccountState, Customer, EntitlementChange, SubscriberState, SyncRun, WebhookEvent
from .transactions import alias, primary

COUNTED = 100_000

Kind = SyncRun.Kind
Drift = EntitlementChange.Drift


@dataclass(frozen=True)
class Configuration:
    """What is set, and never to which secret. `processing`: who processes webhooks, `inline` or `celery`."""

    livemode: bool
    api_key: bool
    webhook_secrets: int
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
    day, week = _drift(now)
    # The call budget is planned on the database's clock.
    state = primary(AccountState).filter(account="", livemode=conf.livemode()).annotate(clock=Now()).first()
    ahead = state.next_call_at - state.clock if state and state.next_call_at else timedelta(0)
    return Status(
        as_of=now,
        configuration=_configuration(),
        events=_events(now),
        customers=_customers(now),
        changes=_changes(now),
        overrides=_overrides(now),
        drift_day=day,
        drift_week=week,
        runs=_runs(),
        poll_lag_seconds=_poll_lag(state),
        calls=_calls(state, ahead, now),
    )


def _configuration() -> Configuration:
    return Configuration(
        livemode=conf.livemode(),
        api_key=conf.stripe_api_key() is not None,
        webhook_secrets=len(conf.webhook_secrets()),
        processing=conf.webhook_processing(),
        rate=conf.stripe_rate(),
        confirm_every_seconds=int(conf.confirm_every().total_seconds()),
    )


# What waits


def _events(now: datetime) -> Events:
    rows = primary(WebhookEvent).filter(account="", livemode=conf.livemode())
    pending = rows.filter(status=WebhookEvent.Status.PENDING).order_by("next_attempt_at")[:COUNTED]
    told = pending.aggregate(
        pending=Count("pk"), overdue=Count("pk", filter=Q(next_attempt_at__lte=now)), oldest=Min("received_at")
    )
    failed = rows.filter(status=WebhookEvent.Status.FAILED).order_by("received_at")
    return Events(told["pending"], told["overdue"], _seconds(told["oldest"], now), _count(failed))


def _customers(now: datetime) -> Customers:
    rows = Customer.objects.using(alias()).in_mode(conf.livemode())
    waits = {"number": Count("pk"), "longest": Min("next_fetch_at")}
    due = rows.filter(next_fetch_at__lte=now)
    all_due = due.order_by("next_fetch_at")[:COUNTED].aggregate(**waits)
    urgent = due.filter(urgent=True).order_by("next_fetch_at")[:COUNTED].aggregate(**waits)
    estimate = _estimate()
    return Customers(
        total=estimate or _count(rows.filter(next_fetch_at__isnull=False).order_by("next_fetch_at")),
        estimated=estimate is not None,
        marked=_count(rows.marked().order_by("hinted_at")),
        due=all_due["number"],
        longest_due_seconds=_seconds(all_due["longest"], now),
        urgent=urgent["number"],
        longest_urgent_seconds=_seconds(urgent["longest"], now),
    )


def _estimate() -> int | None:
    """What PostgreSQL knows of a big table without counting. It costs a look at each row to know more."""
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", [Customer._meta.db_table])
        rows = int(cursor.fetchone()[0])
    return rows if rows >= COUNTED else None


def _changes(now: datetime) -> Changes:
    rows = EntitlementChange.objects.using(alias()).undelivered().filter(livemode=conf.livemode())
    waits = Q(parked_at=None, subscriber__isnull=False)
    told = rows.order_by("subscriber", "pk")[:COUNTED].aggregate(
        undelivered=Count("pk", filter=waits),
        oldest=Min("created_at", filter=waits),
        parked=Count("pk", filter=Q(parked_at__isnull=False)),
    )
    return Changes(told["undelivered"], _seconds(told["oldest"], now), told["parked"])


def _overrides(now: datetime) -> Overrides:
    passed = primary(SubscriberState).filter(next_boundary_at__lte=now, livemode=conf.livemode())
    told = passed.order_by("next_boundary_at")[:COUNTED].aggregate(number=Count("pk"), longest=Min("next_boundary_at"))
    return Overrides(told["number"], _seconds(told["longest"], now))


def _count(rows: QuerySet[Any]) -> int:
    return rows[:COUNTED].count()


def _seconds(since: datetime | None, now: datetime) -> int | None:
    return None if since is None else max(int((now - since).total_seconds()), 0)


# What ran


def _runs() -> dict[str, Run | None]:
    rows = primary(SyncRun).filter(account="", livemode=conf.livemode()).order_by("-started_at")
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
    rows = primary(SyncRun).filter(account="", livemode=conf.livemode(), kind__in=kinds)
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


def _poll_lag(state: AccountState | None) -> int | None:
    """By our clock against Stripe's time, which nothing but this display may do."""
    if state is None or state.polled_to is None:
        return None
    return max(int(time.time()) - state.polled_to, 0)


def _calls(state: AccountState | None, ahead: timedelta, now: datetime) -> Calls:
    """After Stripe was out of reach, or asked for less, the next call is planned ahead."""
    reason = budget.stopped_reason()
    is_paused = state is not None and state.paused_at is not None and now - state.paused_at < budget.FARTHEST
    return Calls(
        this_month=budget.calls_this_month(),
        stopped_at=state.stopped_at if state and reason else None,
        stopped_reason=reason,
        paused_until=now + ahead if is_paused and ahead > timedelta(0) else None,
    )
