"""Celery's tasks: each is one pass of one kind of work. The only import of Celery.

What there is to do stands in the database, and tasks take no arguments, so that a message is worth nothing: it can be
lost, doubled or late. It is acknowledged before the work begins. A worker that dies takes its message along, its
transaction is rolled back, and the next wake-up or beat finds the rows; a message that came again and again would only
kill one worker after another.

    Note [Fair shares]
    A pass ends after PASS_SECONDS. If that cut it short it wakes its own kind again, at the end of the queue, behind
    what waits there. Of each kind one wake-up waits at a time (Note [Waking] in `dispatch`), and beat's messages
    expire. So however much there is of one kind, as a hundred thousand customers to confirm, and however few slots a
    worker has, another kind begins after one pass of each that waits before it. A long pass would be quicker for its
    own kind, and keep an event, which opens a gate, waiting for as long.

    It is the time that tells, not another look at the database: a pass that ended early because Stripe is down, or
    because all that is left waits for its next attempt, is not repeated before beat says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from celery import current_app, shared_task

from . import catalog_sync, conf, counts, dispatch, inbox, overrides, poll, provisioning, purge, reconcile

PASS_SECONDS: Final = 5.0
# These are seldom due, and cannot always be cut into passes: the lists of a catalogue are read whole.
POLL_SECONDS: Final = 20.0
CATALOG_SECONDS: Final = 50.0
PURGE_SECONDS: Final = 20.0
COUNT_SECONDS: Final = 20.0

# Whatever the site's own tasks do.
_task = shared_task(ignore_result=True, acks_late=False, reject_on_worker_lost=False, serializer="json")


@_task
def process_events() -> None:
    """Process the webhook events that wait."""
    with _pass("process_events") as deadline:
        inbox.process_due(deadline=deadline)


@_task
def confirm_customers() -> None:
    """Ask Stripe about the customers whose time has come, urgent ones first."""
    with _pass("confirm_customers") as deadline:
        if conf.stripe_api_key() is not None:
            reconcile.fetch_due(deadline=deadline)


@_task
def deliver_changes() -> None:
    """Tell receivers of signals what has changed."""
    with _pass("deliver_changes") as deadline:
        provisioning.deliver_due(deadline=deadline)


@_task
def expire_overrides() -> None:
    """Log the starts and ends of overrides, so that they are told."""
    with _pass("expire_overrides") as deadline:
        overrides.tell_boundaries(deadline=deadline)


@_task
def backfill_events() -> None:
    """Every ten minutes: find the events that no webhook brought."""
    polled = poll.poll_if_due(deadline=time.monotonic() + POLL_SECONDS)
    if polled is not None and polled.found:
        dispatch.wake("process_events")


@_task
def sync_catalog() -> None:
    """Once a day: make the catalogue equal to Stripe's."""
    catalog_sync.sync_if_due(deadline=time.monotonic() + CATALOG_SECONDS)


@_task
def purge_history() -> None:
    """Once a day: forget what is no longer needed."""
    purge.purge_if_due(deadline=time.monotonic() + PURGE_SECONDS)


@_task
def count_for_overview() -> None:
    """Once an hour: count what the overview in the admin shows."""
    counts.count_if_due(deadline=time.monotonic() + COUNT_SECONDS)


@contextmanager
def _pass(work: dispatch.Work) -> Iterator[float]:
    dispatch.heard(work)
    deadline = time.monotonic() + PASS_SECONDS
    yield deadline
    if time.monotonic() >= deadline:
        dispatch.wake(work)


def has_app() -> bool:
    """Whether the site's Celery app is set up in this process. Without one, messages would go to Celery's default."""
    return current_app.main != "default"
