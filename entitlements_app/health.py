"""What of a status needs a person, and what that person can do. Pure: it is told everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .budget import NOT_PERMITTED
from .status import Kind, Status

EVENT_WAITS: Final = timedelta(minutes=15)
URGENT_WAITS: Final = timedelta(minutes=15)
FETCH_WAITS: Final = timedelta(days=1)
CHANGE_WAITS: Final = timedelta(hours=1)
SILENT: Final = timedelta(hours=1)  # polls are ten minutes apart
FAILING: Final = timedelta(days=2)

_IS_IT_RUNNING = gettext_lazy(
    "Is `manage.py entitlements_run` in your crontab, every minute, or are Celery's beat and worker up?"
)


@dataclass(frozen=True)
class Problem:
    """`code` is stable, for monitoring; `message` is for people, and says what to do."""

    code: str
    message: str


def get_problems(status: Status) -> list[Problem]:
    """What needs a person, the most urgent first. Empty if all is well."""
    return [Problem(code, message) for code, message in _problems(status)]


def span(seconds: float) -> str:
    """A length of time, about, for people."""
    for size, name in ((86400, _("%d days")), (3600, _("%d h")), (60, _("%d min"))):
        if seconds >= 2 * size:
            return name % int(seconds // size)
    return _("%d s") % int(seconds)


def _problems(status: Status) -> Iterator[tuple[str, str]]:
    if status.calls.stopped_reason:
        yield (
            "calls_stopped",
            _(
                "Stripe refused the API key (%(reason)s), so nothing is fetched. Set another key, or mend this one in "
                "Stripe's Dashboard and run `manage.py entitlements_run --resume`."
            )
            % {"reason": status.calls.stopped_reason}
            + _permissions(status.calls.stopped_reason),
        )
    elif status.configuration.api_key:
        yield from _of_asking(status)
    elif _is_long_ago(_seen_at(status, Kind.PURGE), status, FAILING):  # it needs no key
        yield "run_silent", _("What is to run every day has not run.") + f" {_IS_IT_RUNNING}"
    yield from _of_events(status)
    yield from _of_telling(status)
    for kind in (Kind.CATALOG, Kind.PURGE, Kind.COUNT):
        run = status.runs[kind]
        if run and run.error and _is_long_ago(run.succeeded_at, status, FAILING):
            yield (
                f"{kind}_fails",
                _("“%(kind)s” fails: %(error)s Mend that; it is tried again by itself.")
                % {"kind": kind.label, "error": _sentence(run.error)},
            )


def _permissions(reason: str) -> str:
    """What a key lacks that Stripe knows; empty if it does not."""
    if reason != NOT_PERMITTED:
        return ""
    return " " + _("A restricted key must be allowed to read Entitlements and Customers.")


def _of_asking(status: Status) -> Iterator[tuple[str, str]]:
    """What is asked of Stripe, while there is a key that it accepts."""
    customers, poll = status.customers, status.runs[Kind.BACKFILL]
    seen_at = _seen_at(status, Kind.BACKFILL)
    if _is_long_ago(seen_at, status, SILENT):
        message = _("Stripe's events were never polled: a lost webhook is not noticed.")
        if seen_at is not None:
            message = _("Stripe's events were last polled %(time)s ago: a lost webhook is not noticed.") % {
                "time": _ago(seen_at, status)
            }
        yield "poll_silent", f"{message} {_IS_IT_RUNNING}"
    elif poll and poll.error and _is_long_ago(poll.succeeded_at, status, SILENT):
        message = _("Polling Stripe's events fails: %(error)s A lost webhook is not noticed.")
        yield "poll_fails", message % {"error": _sentence(poll.error)}
    if _is_longer(customers.longest_urgent_seconds, URGENT_WAITS):
        message = _(
            "%(number)d customer(s) of whom there is news wait to be asked about, the longest for %(time)s."
        ) % {
            "number": customers.urgent,
            "time": span(customers.longest_urgent_seconds or 0),
        }
        yield "urgent_fetches_wait", f"{message} {_fetching(status)}"
    if _is_longer(customers.longest_due_seconds, FETCH_WAITS):
        message = _("%(number)d customer(s) are due to be confirmed, the longest for %(time)s.") % {
            "number": customers.due,
            "time": span(customers.longest_due_seconds or 0),
        }
        yield "fetches_wait", f"{message} {_fetching(status)}"


def _fetching(status: Status) -> str:
    run = status.runs[Kind.CONFIRM]
    if run is None or _is_long_ago(run.seen_at, status, SILENT):
        return str(_IS_IT_RUNNING)
    if run.failed:
        message = _("Of the last fetches %(number)d failed: the log of entitlements_app.fetch_pool says why.")
        return message % {"number": run.failed}
    return _("There are more than calls: raise ENTITLEMENTS_STRIPE_RATE, or ENTITLEMENTS_CONFIRM_EVERY.")


def _of_events(status: Status) -> Iterator[tuple[str, str]]:
    events = status.events
    if events.failed:
        yield (
            "events_failed",
            _(
                "%(number)d webhook event(s) failed for good. Django admin shows their errors (webhook events, status "
                "failed). Mend the cause, then choose “Try failed events again” there, or “Dismiss failed events”."
            )
            % {"number": events.failed},
        )
    if _is_longer(events.oldest_pending_seconds, EVENT_WAITS):
        message = _("%(number)d webhook event(s) wait to be processed, the oldest for %(time)s.") % {
            "number": events.pending,
            "time": span(events.oldest_pending_seconds or 0),
        }
        yield "events_wait", f"{message} {_IS_IT_RUNNING} {_see_log('inbox')}"


def _of_telling(status: Status) -> Iterator[tuple[str, str]]:
    changes, overrides = status.changes, status.overrides
    if changes.parked:
        yield (
            "changes_parked",
            _(
                "%(number)d change(s) are parked: a receiver of yours failed too often. Django admin shows its error "
                "(entitlement changes, parked). Mend it, then choose “Send parked changes again” there."
            )
            % {"number": changes.parked},
        )
    if _is_longer(changes.oldest_undelivered_seconds, CHANGE_WAITS):
        message = _("%(number)d change(s) wait to be told to your receivers, the oldest for %(time)s.") % {
            "number": changes.undelivered,
            "time": span(changes.oldest_undelivered_seconds or 0),
        }
        yield "changes_wait", f"{message} {_IS_IT_RUNNING} {_see_log('provisioning')}"
    if _is_longer(overrides.longest_untold_seconds, CHANGE_WAITS):
        message = _("Overrides of %(number)d subscriber(s) started or ended, and nobody was told, for %(time)s.") % {
            "number": overrides.untold,
            "time": span(overrides.longest_untold_seconds or 0),
        }
        yield "overrides_wait", f"{message} {_IS_IT_RUNNING}"


def _see_log(module: str) -> str:
    return _("If so, the log of %(logger)s says what fails.") % {"logger": f"entitlements_app.{module}"}


def _seen_at(status: Status, kind: Kind) -> datetime | None:
    run = status.runs[kind]
    return run.seen_at if run else None


def _is_longer(seconds: int | None, most: timedelta) -> bool:
    return seconds is not None and seconds > most.total_seconds()


def _is_long_ago(moment: datetime | None, status: Status, most: timedelta) -> bool:
    return moment is None or status.as_of - moment > most


def _ago(moment: datetime, status: Status) -> str:
    return span((status.as_of - moment).total_seconds())


def _sentence(error: str) -> str:
    return error if error.endswith(".") else f"{error}."
