"""The overview: how many are entitled to what, what changes, and whether all is well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_safe

from entitlements_app import counts
from entitlements_app.health import Problem, get_problems
from entitlements_app.models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    Overview,
    SyncRun,
    WebhookEvent,
)
from entitlements_app.status import Drift, DriftCount, Kind, Run, Status, get_status
from entitlements_app.windows import LEASE

from . import plot
from .numbers import Number, Numbers
from .read_only import ReadOnlyAdmin

FEATURES: Final = 50

_DONE = {
    Kind.CONFIRM: gettext_lazy("customers asked about"),
    Kind.BACKFILL: gettext_lazy("events found"),
    Kind.CATALOG: gettext_lazy("rows read"),
    Kind.ALL: gettext_lazy("customers asked about"),
    Kind.PURGE: gettext_lazy("rows forgotten"),
    Kind.COUNT: gettext_lazy("counts made"),
}


@admin.register(Overview)
class OverviewAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern]:
        """No rows, so no pages of rows."""
        view = require_safe(self.admin_site.admin_view(self.changelist_view))
        return [path("", view, name=f"{self.opts.app_label}_{self.opts.model_name}_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": _("Entitlements overview"), "crumbs": ()}
        try:
            context |= _content(get_status(), Numbers(self.admin_site, request))
        except ImproperlyConfigured as error:
            context["malformed"] = str(error)
        request.current_app = self.admin_site.name
        template = "admin/entitlements_app/overview/overview.html"
        return TemplateResponse(request, template, context | (extra_context or {}))


def _content(status: Status, numbers: Numbers) -> dict[str, Any]:
    livemode = status.configuration.livemode
    return {
        "status": status,
        "problems": [_problem(problem, livemode, numbers) for problem in get_problems(status)],
        "numbers": _numbers(status, numbers),
        "ages": _ages(status),
        "drift": _drift(status, numbers),
        "runs": [_run(Kind(kind), run, status, numbers) for kind, run in status.runs.items()],
        "change_log": numbers.list(EntitlementChange),
        **_features(livemode, numbers),
        **_days(livemode, numbers),
    }


# What needs a person


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
    return message, numbers.list(model, **query, **_mode(livemode))


def _mode(livemode: bool) -> dict[str, str]:
    return {"livemode__exact": "1" if livemode else "0"}


def _numbers(status: Status, numbers: Numbers) -> dict[str, Number]:
    events, customers, changes, mode = (
        status.events,
        status.customers,
        status.changes,
        _mode(status.configuration.livemode),
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
    ages = {
        name: "" if number is None else _span(timedelta(seconds=number), status) for name, number in seconds.items()
    }
    paused = status.calls.paused_until
    return ages | {"paused": _span(paused - status.as_of, status) if paused else ""}


def _span(length: timedelta, status: Status) -> str:
    if length < timedelta(minutes=1):
        seconds = max(int(length.total_seconds()), 0)
        return ngettext("%d second", "%d seconds", seconds) % seconds
    return timesince(status.as_of - length, status.as_of, depth=1)


def _drift(status: Status, numbers: Numbers) -> list[tuple[str, Number, list[tuple[str, Number]]]]:
    """For each period all corrections, and those of each cause."""
    mode, periods = _mode(status.configuration.livemode), []
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
    row = {"label": kind.label, "url": numbers.list(SyncRun, kind__exact=kind, **_mode(status.configuration.livemode))}
    if run is None:
        return row
    state, word = _run_state(kind, run, status)
    percent = plot.share(run.done, run.total) if run.total and state == "work" else None
    return row | {
        "run": run,
        "state": state,
        "word": word,
        "ago": _span(status.as_of - run.seen_at, status),
        "did": _DONE[kind],
        "percent": percent,
        "bar": None if percent is None else plot.width(percent),
    }


def _run_state(kind: Kind, run: Run, status: Status) -> tuple[str, str]:
    if run.finished_at is not None and run.error:
        return "bad", _("failed")
    if run.finished_at is not None or kind == Kind.CONFIRM:  # which has one run an hour, whoever fetches
        return "good", _("done")
    return ("warn", _("broke off")) if status.as_of - run.seen_at > LEASE else ("work", _("at work"))


# What was counted


def _features(livemode: bool, numbers: Numbers) -> dict[str, Any]:
    found = list(counts.by_feature(livemode)[: FEATURES + 1])
    ages = [row["counted_at"] for row in found if row["counted_at"]]
    return {
        "features": [_feature(row, numbers) for row in found[:FEATURES]],
        "all_features": numbers.list(Feature, **_mode(livemode)) if len(found) > FEATURES else "",
        "are_more_features": len(found) > FEATURES,
        "features_counted_at": min(ages, default=None),
        "of_customers": number_format(max((row["of_customers"] or 0 for row in found), default=0), force_grouping=True),
    }


def _feature(row: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    shown = row | {"url": numbers.page(Feature(pk=row["pk"]))}
    if row["customers"] is None:
        return shown | {"customers": None}
    percent = plot.share(row["customers"], row["of_customers"])
    customers = numbers.exactly(row["customers"], ActiveEntitlement, feature__id__exact=row["pk"])
    return shown | {"customers": customers, "percent": percent, "bar": plot.width(percent)}


def _days(livemode: bool, numbers: Numbers) -> dict[str, Any]:
    told, counted_at = counts.by_day(livemode)
    drawn = plot.draw([(day.granted or 0, day.revoked or 0) for day in told])
    days = [
        {
            "day": day.day,
            "column": column,
            "is_today": day == told[-1],
            "is_labelled": (len(told) - 1 - place) % 7 == 0,
            "kinds": list(_kinds(day, livemode, numbers)),
        }
        for place, (day, column) in enumerate(zip(told, drawn.columns, strict=True))
    ]
    granted, revoked = (sum(getattr(day, kind) or 0 for day in told) for kind in ("granted", "revoked"))
    return {
        "plot": drawn,
        "lines": [(line, number_format(line.number, force_grouping=True)) for line in drawn.lines],
        "days": days,
        "days_counted_at": counted_at,
        "sums": {
            kind: number_format(n, force_grouping=True) for kind, n in (("granted", granted), ("revoked", revoked))
        },
    }


def _kinds(day: counts.Day, livemode: bool, numbers: Numbers) -> Iterator[Number | None]:
    """How much was granted, and how much revoked."""
    for kind, number in (("granted", day.granted), ("revoked", day.revoked)):
        yield (
            None
            if number is None
            else numbers.exactly(number, EntitlementChange, **_of(day.day, kind), **_mode(livemode))
        )


def _of(day: date, kind: str) -> dict[str, str]:
    return {"day": day.isoformat(), "kind__exact": kind, "effective__exact": "1"}
