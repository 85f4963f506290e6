"""What of the status the overview shows: problems, what waits, what ran. Each number leads to its rows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from django.db.models import Model
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.health import Problem, get_problems
from entitlements_app.models import Customer, EntitlementChange, EntitlementOverride, SyncRun, WebhookEvent
from entitlements_app.status import Drift, DriftCount, Kind, Run, Status

from . import plot
from .links import of_mode
from .numbers import Number, Numbers
from .words import get_number, get_span, is_at_work, mode_tag, run_tag

_DONE = {
    Kind.CONFIRM: gettext_lazy("customers asked about"),
    Kind.BACKFILL: gettext_lazy("events found"),
    Kind.CATALOG: gettext_lazy("rows read"),
    Kind.ALL: gettext_lazy("customers asked about"),
    Kind.PURGE: gettext_lazy("rows forgotten"),
    Kind.COUNT: gettext_lazy("counts made"),
}


def get_facts(status: Status, numbers: Numbers) -> dict[str, Any]:
    livemode = status.configuration.livemode
    return {
        "status": status,
        "mode": mode_tag(livemode, "ent-good" if livemode else "ent-warn"),
        "problems": [_problem(problem, livemode, numbers) for problem in get_problems(status)],
        "numbers": _numbers(status, numbers),
        "ages": _ages(status),
        "drift": _drift(status, numbers),
        "runs": [_run(Kind(kind), run, status, numbers) for kind, run in status.runs.items()],
    }


def _problem(problem: Problem, livemode: bool, numbers: Numbers) -> tuple[SafeString, str]:
    """Its message, and where its rows are."""
    waits: dict[str, tuple[type[Model], dict[str, str]]] = {
        "events_failed": (WebhookEvent, {"status__exact": "failed"}),
        "events_wait": (WebhookEvent, {"status__exact": "pending"}),
        "changes_parked": (EntitlementChange, {"delivery": "parked"}),
        "changes_wait": (EntitlementChange, {"delivery": "waiting"}),
        "fetches_wait": (Customer, {"state": "due"}),
        "urgent_fetches_wait": (Customer, {"state": "urgent"}),
        "poll_fails": (SyncRun, {"kind__exact": Kind.BACKFILL}),
        **{f"{kind}_fails": (SyncRun, {"kind__exact": kind}) for kind in (Kind.CATALOG, Kind.PURGE, Kind.COUNT)},
    }
    parts = problem.message.split("`")  # every second one is code
    message = format_html_join(
        "", "{}", ((format_html("<code>{}</code>", p) if i % 2 else p,) for i, p in enumerate(parts))
    )
    if problem.code not in waits:
        return message, ""
    model, query = waits[problem.code]
    return message, numbers.list(model, **query, **of_mode(livemode))


def _numbers(status: Status, numbers: Numbers) -> dict[str, Number]:
    events, customers, changes, mode = (
        status.events,
        status.customers,
        status.changes,
        of_mode(status.configuration.livemode),
    )
    pending, now = {"status__exact": "pending", **mode}, status.as_of.isoformat()
    return {
        "pending": numbers.counted(events.pending, WebhookEvent, **pending),
        "overdue": numbers.counted(events.overdue, WebhookEvent, next_attempt_at__lte=now, **pending),
        "failed": numbers.counted(events.failed, WebhookEvent, status__exact="failed", **mode),
        "customers": numbers.exactly(customers.total, Customer, **mode),
        "due": numbers.counted(customers.due, Customer, state="due", **mode),
        "urgent": numbers.counted(customers.urgent, Customer, state="urgent", next_fetch_at__lte=now, **mode),
        "marked": numbers.counted(customers.marked, Customer, state="marked", **mode),
        "undelivered": numbers.counted(changes.undelivered, EntitlementChange, delivery="waiting", **mode),
        "parked": numbers.counted(changes.parked, EntitlementChange, delivery="parked", **mode),
        "untold": numbers.counted(status.overrides.untold, EntitlementOverride),
        "calls": numbers.exactly(status.calls.this_month, SyncRun, **mode),
    }


def _ages(status: Status) -> dict[str, str]:
    seconds = {
        "pending": status.events.oldest_pending_seconds,
        "due": status.customers.longest_due_seconds,
        "urgent": status.customers.longest_urgent_seconds,
        "undelivered": status.changes.oldest_undelivered_seconds,
        "untold": status.overrides.longest_untold_seconds,
        "poll": status.poll_lag_seconds,
    }
    ages = {name: "" if number is None else get_span(timedelta(seconds=number)) for name, number in seconds.items()}
    paused = status.calls.paused_until
    return ages | {"paused": get_span(paused - status.as_of) if paused else ""}


def _drift(status: Status, numbers: Numbers) -> list[tuple[str, Number, list[tuple[str, Number]]]]:
    """For each period all corrections, and those of each cause."""
    mode, periods = of_mode(status.configuration.livemode), []
    told = ((_("24 hours"), timedelta(days=1), status.drift_day), (_("7 days"), timedelta(days=7), status.drift_week))
    for name, length, drift in told:
        rows = {"created_at__gte": (status.as_of - length).isoformat(), **mode}
        causes = [
            (str(Drift(cause).label), numbers.exactly(number, EntitlementChange, drift__exact=cause, **rows))
            for cause, number in asdict(drift).items()
            if number
        ]
        periods.append((name, numbers.exactly(_all(drift), EntitlementChange, drift__exact="any", **rows), causes))
    return periods


def _all(drift: DriftCount) -> int:
    return drift.event_lost + drift.catalog + drift.unknown


# What ran


def _run(kind: Kind, run: Run | None, status: Status, numbers: Numbers) -> dict[str, Any]:
    row = {
        "label": kind.label,
        "url": numbers.list(SyncRun, kind__exact=kind, **of_mode(status.configuration.livemode)),
    }
    if run is None:
        return row
    percent = plot.share(run.done, run.total) if run.total and is_at_work(run, status.as_of) else None
    figures = {name: get_number(getattr(run, name) or 0) for name in ("done", "total", "changed", "failed")}
    return (
        row
        | figures
        | {
            "run": run,
            "state": run_tag(kind, run, status.as_of),
            "ago": get_span(status.as_of - run.seen_at),
            "did": _DONE[kind],
            "percent": percent,
            "bar": None if percent is None else plot.width(percent),
        }
    )
