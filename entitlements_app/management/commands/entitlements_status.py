from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from entitlements_app.health import Problem, get_problems, span
from entitlements_app.management.site_command import SiteCommand
from entitlements_app.status import COUNTED, Drift, DriftCount, Kind, Run, Status, get_status
from entitlements_app.windows import LEASE

_DONE = {
    Kind.CONFIRM: "asked about",
    Kind.BACKFILL: "found",
    Kind.CATALOG: "rows read",
    Kind.ALL: "asked about",
    Kind.PURGE: "rows forgotten",
    Kind.COUNT: "counts made",
}


class Command(SiteCommand):
    help = (
        "How the app is doing: what waits, what failed, what ran last. Stripe is not asked. Exits with 0 if all is "
        "well, and with 1 if something needs a person: then it says what to do."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="The same as data, for monitoring.")

    def handle(self, *args: Any, **options: Any) -> None:
        status = get_status()
        problems = get_problems(status)
        if options["json"]:
            self.stdout.write(json.dumps(_as_data(status, problems), cls=DjangoJSONEncoder, indent=2))
        else:
            self._write(status, problems)
        if problems:
            sys.exit(1)

    def _write(self, status: Status, problems: list[Problem]) -> None:
        self._write_table(list(_waiting_lines(status)))
        self.stdout.write("\nLast runs")
        self._write_table([(f"  {Kind(kind).label}", _run_line(kind, status)) for kind in status.runs])
        self.stdout.write("\nProblems:" if problems else "\nAll is well.")
        for problem in problems:
            self.stdout.write(self.style.ERROR(f"  - {problem.message}"))

    def _write_table(self, lines: list[tuple[str, str]]) -> None:
        width = max(len(label) for label, _ in lines)
        for label, text in lines:
            self.stdout.write(f"{label:{width}}  {text}")


def _as_data(status: Status, problems: list[Problem]) -> dict[str, Any]:
    return {"well": not problems, "problems": [asdict(problem) for problem in problems], **asdict(status)}


def _waiting_lines(status: Status) -> Iterator[tuple[str, str]]:
    events, customers, changes, overrides = status.events, status.customers, status.changes, status.overrides
    yield "Mode", _mode(status)
    yield (
        "Webhook events",
        f"{_number(events.pending)} pending{_longest('the oldest', events.oldest_pending_seconds)}"
        f"{f', {_number(events.overdue)} overdue' if events.overdue else ''}; {_number(events.failed)} failed",
    )
    yield "Customers", _customers(status)
    yield (
        "Fetches",
        f"{_number(customers.due)} due{_longest('the longest', customers.longest_due_seconds)}; "
        f"{_number(customers.urgent)} of them urgent{_longest('the longest', customers.longest_urgent_seconds)}",
    )
    yield (
        "Changes",
        f"{_number(changes.undelivered)} undelivered{_longest('the oldest', changes.oldest_undelivered_seconds)}; "
        f"{_number(changes.parked)} parked",
    )
    yield (
        "Overrides",
        f"{_number(overrides.untold)} subscriber(s) with a start or end that was not told yet"
        f"{_longest('the longest', overrides.longest_untold_seconds)}",
    )
    yield "Drift", f"in 24 hours {_drift(status.drift_day)}; in 7 days {_drift(status.drift_week)}"
    yield "Events API", _poll(status)
    yield "Calls to Stripe", _calls(status)


def _mode(status: Status) -> str:
    configuration = status.configuration
    mode = "live" if configuration.livemode else "test"
    key = "an API key is set" if configuration.api_key else "no API key is set, so nothing is fetched"
    ways = [f"{configuration.webhook_secrets} webhook secret(s)"] if configuration.webhook_secrets else []
    ways += ["dj-stripe's webhook endpoint"] if configuration.djstripe_endpoint else []
    webhooks = " and ".join(ways) or "no webhook secret is set, so all webhooks are refused"
    return f"{mode}; {key}; {webhooks}; processing: {configuration.processing}"


def _customers(status: Status) -> str:
    customers = status.customers
    total = f"about {customers.total:,} in both modes" if customers.estimated else _number(customers.total)
    news = ": there is news that no fetch has settled yet" if customers.marked else ""
    return f"{total}; {_number(customers.marked)} marked{news}"


def _drift(drift: DriftCount) -> str:
    counts = {Drift(cause).label: number for cause, number in asdict(drift).items() if number}
    causes = ", ".join(f"{number:,} {label}" for label, number in counts.items())
    return f"{sum(counts.values()):,} ({causes})" if counts else "none"


def _poll(status: Status) -> str:
    if status.poll_lag_seconds is None:
        return "not polled yet"
    return f"polled up to about {span(status.poll_lag_seconds)} ago"


def _calls(status: Status) -> str:
    calls = status.calls
    said = f"{calls.this_month:,} this month (UTC); at most {status.configuration.rate:g} a second"
    if calls.stopped_reason:
        return f"{said}; STOPPED: {calls.stopped_reason}"
    if calls.paused_until:
        return f"{said}; paused for {span((calls.paused_until - status.as_of).total_seconds())} more"
    return said


def _run_line(kind: str, status: Status) -> str:
    run = status.runs[kind]
    if run is None:
        return _never(kind, status)
    did = _did(Kind(kind), run)
    seen = f"{_since(run.seen_at, status)} ago"
    if kind == Kind.CONFIRM:
        return f"{seen}; in that hour {did}"
    if run.finished_at is not None:
        return f"{seen}: {did}" + (f"; FAILED: {run.error}" if run.error else "")
    if status.as_of - run.seen_at > LEASE:
        return f"broke off {seen}: {did}"
    return f"at work for {_since(run.started_at, status)}: {did}"


def _never(kind: str, status: Status) -> str:
    if kind == Kind.ALL:
        return "never: it is started by hand, with entitlements_sync --all"
    if kind not in (Kind.PURGE, Kind.COUNT) and not status.configuration.api_key:
        return "none: no API key is set"
    if any(status.runs.values()):
        return "none yet"
    by_celery = status.configuration.processing == "celery"
    return f"no run yet: {'is beat up?' if by_celery else 'is entitlements_run in your crontab?'}"


def _since(moment: datetime, status: Status) -> str:
    return span((status.as_of - moment).total_seconds())


def _did(kind: Kind, run: Run) -> str:
    of = "" if run.total is None else f" of {run.total:,}"
    parts = [f"{run.done:,}{of} {_DONE[kind]}"]
    if run.changed:
        parts.append(f"{run.changed:,} changed something")
    if run.failed:
        parts.append(f"{run.failed:,} failed")
    return ", ".join(parts)


def _number(number: int) -> str:
    return f"{number:,} or more" if number == COUNTED else f"{number:,}"


def _longest(which: str, seconds: int | None) -> str:
    return "" if seconds is None else f" ({which} for {span(seconds)})"
