"""The inbox: store each event once, process it, record how it ended. The only writer of webhook events.

An event is committed before it is processed, and becomes `processed` in the transaction that applies it. There is no
state in between: a claim is a row lock, so a crash is a rollback and the event is still pending.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.db import connections
from django.utils import timezone

from . import conf, sync, transactions
from .models import WebhookEvent, WebhookEventQuerySet
from .stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, Event, parse_summary
from .sync import News, Payload
from .transactions import alias, primary

logger = logging.getLogger(__name__)

Status = WebhookEvent.Status

ATTEMPTS = 8
FIRST_RETRY = timedelta(seconds=60)
LONGEST_RETRY = timedelta(hours=1)
OVERDUE_BATCH = 10
BATCH = 100
ERROR_LENGTH = 1000


def store(event: Event, *, sent_at: int | None) -> WebhookEvent:
    """Commit the event, unless its id is known. Returns the row, known or new.

    What is not for us is stored as `ignored`; what cannot be read as `failed`, and its customer is marked for a fetch.
    """
    status = _first_status(event)
    row = WebhookEvent(
        stripe_id=event.id,
        account=event.account,
        livemode=event.livemode,
        type=event.type,
        created=event.created,
        sent_at=sent_at,
        customer_stripe_id=event.customer,
        payload=event.summary.as_payload() if event.summary and status != Status.IGNORED else None,
        status=status,
        error=event.problem,
        next_attempt_at=timezone.now() + _delay(1),
    )
    return transactions.write(lambda: _insert(row))


def _first_status(event: Event) -> Status:
    if event.thin:
        logger.error(
            "Stripe sent the thin notification %s, which holds no entitlements. "
            "Configure the webhook endpoint to receive snapshot events.",
            event.id,
        )
    if not event.handled or event.account or event.livemode is not conf.livemode():
        return Status.IGNORED
    if event.problem:
        logger.error("Webhook event %s (%s) cannot be read: %s.", event.id, event.type, event.problem)
        return Status.FAILED
    return Status.PENDING


def _insert(row: WebhookEvent) -> WebhookEvent:
    rows = primary(WebhookEvent)
    rows.bulk_create([row], ignore_conflicts=True)
    stored = rows.get(stripe_id=row.stripe_id, account=row.account, livemode=row.livemode)
    if row.status == Status.FAILED and row.customer_stripe_id:
        sync.apply_news([News(row.customer_stripe_id, hint=True)], livemode=row.livemode)
    return stored


def process(event: WebhookEvent) -> None:
    """Process one event, if it is still pending. How it ended stands in the row."""
    if event.status == Status.PENDING:
        _process_batch([event.pk])


def process_overdue() -> int:
    """Take up to ten events whose processing failed or was cut off. Returns how many were taken."""
    return _process_batch(_pks(_rows().overdue(timezone.now())[:OVERDUE_BATCH]))


def process_due(*, deadline: float) -> int:
    """Process until nothing is due, or `deadline` (on `time.monotonic`) is past. Returns how many were taken."""
    total = taken = 0
    while time.monotonic() < deadline:
        taken = _process_batch(_pks(_rows().due(timezone.now())[:BATCH]))
        if not taken:
            break
        total += taken
    return total


def _rows() -> WebhookEventQuerySet:
    return WebhookEvent.objects.using(alias())


def _pks(events: WebhookEventQuerySet) -> list[int]:
    return list(events.values_list("pk", flat=True))


def _process_batch(pks: Sequence[int]) -> int:
    if not pks:
        return 0
    try:
        return transactions.write(lambda: _apply(pks))
    except Exception:  # of whatever kind: one bad event must not hold up the others
        logger.exception("Processing %d webhook event(s) failed; trying one by one.", len(pks))
    for pk in pks:
        _process_alone(pk)
    return len(pks)


def _process_alone(pk: int) -> None:
    """The attempt is committed before it is made, so that an event cannot be tried for ever."""
    if not transactions.write(lambda: _count_attempt(pk)):
        return
    try:
        transactions.write(lambda: _apply([pk]))
    except Exception as error:  # of whatever kind: it is recorded on the event
        logger.exception("Processing webhook event %d failed.", pk)
        reason = f"{type(error).__name__}: {error}"[:ERROR_LENGTH].replace("\x00", "")
        transactions.write(lambda: _record_failure(pk, reason))


def _count_attempt(pk: int) -> bool:
    events = list(_rows().pending().filter(pk=pk).select_for_update())
    for event in events:
        event.attempts += 1
        event.next_attempt_at = timezone.now() + _delay(event.attempts)
        event.save(using=alias(), update_fields=["attempts", "next_attempt_at"])
    return bool(events)


def _record_failure(pk: int, reason: str) -> None:
    for event in _rows().pending().filter(pk=pk).select_for_update():
        event.error = reason
        if event.attempts >= ATTEMPTS:
            event.status = Status.FAILED
        event.save(using=alias(), update_fields=["error", "status"])


def _delay(attempts: int) -> timedelta:
    return min(FIRST_RETRY * (1 << (attempts - 1)), LONGEST_RETRY)


def _apply(pks: Sequence[int]) -> int:
    """Lock those still pending, pass on what they say, mark them. An event that another worker holds is left to it."""
    skip = connections[alias()].features.has_select_for_update_skip_locked
    events = list(_rows().pending().filter(pk__in=pks).order_by("pk").select_for_update(skip_locked=skip))
    for livemode in {event.livemode for event in events}:
        sync.apply_news(_news(event for event in events if event.livemode is livemode), livemode=livemode)
    primary(WebhookEvent).filter(pk__in=[event.pk for event in events]).update(
        status=Status.PROCESSED, processed_at=timezone.now(), error=""
    )
    return len(events)


def _news(events: Iterable[WebhookEvent]) -> list[News]:
    by_customer: defaultdict[str, list[WebhookEvent]] = defaultdict(list)
    for event in events:
        by_customer[event.customer_stripe_id].append(event)
    return [_news_of(stripe_id, of_customer) for stripe_id, of_customer in by_customer.items()]


def _news_of(stripe_id: str, events: Sequence[WebhookEvent]) -> News:
    """The newest summary stands for the older ones, which only tell that something happened."""
    summaries = [event for event in events if event.type == SUMMARY_UPDATED]
    deleted = any(event.type == CUSTOMER_DELETED for event in events)
    payload = _newest_payload(summaries) if summaries else None
    return News(stripe_id, payload=payload, hint=len(events) > bool(summaries), deleted=deleted)


def _newest_payload(summaries: Sequence[WebhookEvent]) -> Payload:
    newest = max(summaries, key=lambda event: event.created or 0)
    summary = parse_summary(newest.payload)
    return Payload(
        created=newest.created or 0,
        sent_at=newest.sent_at,
        grants=summary.grants,
        complete=summary.complete,
        sole_of_its_second=sum(event.created == newest.created for event in summaries) == 1,
    )
