"""The inbox: store each event once, process it, record how it ended. The only writer of webhook events.

An event is committed before it is processed, and becomes `processed` in the transaction that applies it. There is no
state in between: a claim is a row lock, so a crash is a rollback and the event is still pending.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from django.db import transaction
from django.utils import timezone

from . import conf, dispatch, sync, transactions
from .models import WebhookEvent, WebhookEventQuerySet
from .old_rows import BATCH as PURGE_BATCH
from .old_rows import batches, last_before
from .stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, Event, parse_summary
from .sync import News, Payload
from .transactions import alias, lock_or_skip, primary
from .windows import backoff

logger = logging.getLogger(__name__)

Status = WebhookEvent.Status

ATTEMPTS = 8
OVERDUE_BATCH = 10
BATCH = 500
ERROR_LENGTH = 1000
DISMISSED = "Dismissed after it had failed:"


def store(event: Event, *, sent_at: int | None) -> WebhookEvent:
    """Commit the event. Returns its row, the known one if the id is known.

    What is not for us is stored as `ignored`; what cannot be read as `failed`, and its customer is marked for a fetch.
    A known event that was ignored or failed, and that is for us and can be read now, is pending again: somebody sent
    it again after the settings or the app were mended.
    """
    row = _row(event, sent_at=sent_at)
    is_new = row.status != Status.FAILED and transactions.insert(row)
    stored = row if is_new else transactions.write(lambda: _insert(row))
    _log_strange(event, stored)
    return stored


def store_polled(events: Sequence[Event]) -> int:
    """Commit those events of Stripe's list that we do not have. Returns how many these were.

    They were not delivered to us, so they have no `sent_at` and are hints. One that was ignored, and that is for us
    and can be read now, counts as one that we do not have: it came before the settings were mended.
    """
    rows = {event.id: _row(event, sent_at=None) for event in events}
    stored = transactions.write(lambda: _insert_unknown(sorted(rows.values(), key=lambda row: row.stripe_id)))
    new = {row.stripe_id: row for row in stored}
    for event in events:
        if event.id in new:
            _log_strange(event, new[event.id])
    return len(new)


def _row(event: Event, *, sent_at: int | None) -> WebhookEvent:
    status = _first_status(event)
    return WebhookEvent(
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
        next_attempt_at=timezone.now() + backoff(1) if status == Status.PENDING else None,
    )


def _first_status(event: Event) -> Status:
    if not event.handled or event.account or event.livemode is not conf.livemode():
        return Status.IGNORED
    return Status.FAILED if event.problem else Status.PENDING


def _log_strange(event: Event, stored: WebhookEvent) -> None:
    if event.thin:
        logger.error(
            "Stripe sent the thin notification %s, which holds no entitlements. "
            "Configure the webhook endpoint to receive snapshot events.",
            event.id,
        )
    elif stored.status == Status.FAILED:
        logger.error("Webhook event %s (%s) has failed: %s.", event.id, event.type, stored.error)


def _insert(row: WebhookEvent) -> WebhookEvent:
    rows = primary(WebhookEvent)
    rows.bulk_create([row], ignore_conflicts=True)
    known = rows.filter(stripe_id=row.stripe_id, account=row.account, livemode=row.livemode)
    stored = known.get()
    if row.status == Status.FAILED:
        _mark_customers([row])
    if row.status != Status.PENDING or stored.status not in (Status.IGNORED, Status.FAILED):
        return stored
    known.filter(status=stored.status).update(
        status=Status.PENDING,
        sent_at=row.sent_at,
        customer_stripe_id=row.customer_stripe_id,
        payload=row.payload,
        error="",
        attempts=0,
        next_attempt_at=row.next_attempt_at,
    )
    return known.get()


def _insert_unknown(rows: Sequence[WebhookEvent]) -> list[WebhookEvent]:
    events = primary(WebhookEvent).filter(stripe_id__in=[row.stripe_id for row in rows])
    known = {(event.stripe_id, event.account, event.livemode): event for event in events.defer("payload")}
    unknown, ignored = [], []
    for row in rows:
        held = known.get((row.stripe_id, row.account, row.livemode))
        if held is not None and held.status == Status.IGNORED and row.status == Status.PENDING:
            ignored.append(held.pk)
        elif held is not None:
            continue
        unknown.append(row)
    if ignored:
        events.filter(pk__in=ignored, status=Status.IGNORED).delete()
    primary(WebhookEvent).bulk_create(unknown, ignore_conflicts=True)
    _mark_customers([row for row in unknown if row.status == Status.FAILED])
    return unknown


def _mark_customers(failed: Sequence[WebhookEvent]) -> None:
    """What events cannot tell, Stripe is asked for."""
    for livemode in sorted({event.livemode for event in failed}):
        of_mode = [event for event in failed if event.livemode is livemode]
        named = sorted({event.customer_stripe_id for event in of_mode if event.customer_stripe_id})
        if sync.apply_news([News(stripe_id, urgent=True) for stripe_id in named], livemode=livemode):
            _confirm_soon(livemode=livemode)


def replay(event: WebhookEvent) -> None:
    """Try a failed event again, right after the commit: here, or by a worker if they do the work.

    It is long past, so what it carries is not applied: a deletion counts, and everything else has Stripe asked. Raises
    `ValueError` for an event that has not failed, or that names no customer.
    """

    def work() -> None:
        row = _rows().select_for_update().get(pk=event.pk)
        if row.status != Status.FAILED or not row.customer_stripe_id:
            raise ValueError(f"{row} cannot be tried again: it has not failed, or names no customer.")
        row.status, row.sent_at = Status.PENDING, None
        row.attempts, row.error, row.next_attempt_at = 0, "", timezone.now() + backoff(1)
        row.save(using=alias(), update_fields=["status", "sent_at", "attempts", "error", "next_attempt_at"])
        if conf.webhook_processing() == "celery":
            dispatch.wake_after_commit("process_events")
        else:
            transaction.on_commit(partial(process, row), using=alias(), robust=True)

    transactions.write(work)


def dismiss(event: WebhookEvent) -> None:
    """Ignore a failed event from now on; why it failed stays on record. Raises `ValueError` if it has not failed.

    For what cannot be tried again, or need not: whoever a failed event names was marked for a fetch.
    """

    def work() -> None:
        row = _rows().select_for_update().get(pk=event.pk)
        if row.status != Status.FAILED:
            raise ValueError(f"{row} cannot be dismissed: it has not failed.")
        row.status, row.error = Status.IGNORED, f"{DISMISSED} {row.error}"[:ERROR_LENGTH]
        row.save(using=alias(), update_fields=["status", "error"])

    transactions.write(work)


def process(event: WebhookEvent) -> None:
    """Process one event, if it is still pending. How it ended stands in the row."""
    if event.status == Status.PENDING:
        _process_batch(_rows().pending().filter(pk=event.pk))


def process_overdue() -> int:
    """Take up to ten events whose processing failed or was cut off. Returns how many were taken."""
    overdue = _rows().overdue(timezone.now())
    return _process_batch(overdue[:OVERDUE_BATCH]) if overdue.exists() else 0


def process_due(*, deadline: float) -> int:
    """Process what is due, until `deadline` (on `time.monotonic`) is past. Returns how many were taken.

    A batch that was not full ends it: who commits an event meanwhile wakes for it.
    """
    total, taken = 0, BATCH
    while taken >= BATCH and time.monotonic() < deadline:
        taken = _process_batch(_rows().due(timezone.now())[:BATCH])
        total += taken
    return total


def _rows() -> WebhookEventQuerySet:
    return WebhookEvent.objects.using(alias())


def _process_batch(events: WebhookEventQuerySet) -> int:
    """Take those of these events that no other worker holds, in one transaction. Returns how many were taken."""
    pks: list[int] = []
    try:
        return transactions.write(lambda: _apply(events, pks))
    except Exception:  # of whatever kind: one bad event must not hold up the others
        if not pks:
            raise
        logger.exception("Processing %d webhook event(s) failed; trying one by one.", len(pks))
    for pk in pks:
        _process_alone(pk)
    return len(pks)


def _process_alone(pk: int) -> None:
    """The attempt is committed before it is made, so that an event cannot be tried for ever."""
    if not transactions.write(lambda: _count_attempt(pk)):
        return
    try:
        transactions.write(lambda: _apply(_rows().pending().filter(pk=pk), []))
    except Exception as error:  # of whatever kind: it is recorded on the event
        logger.exception("Processing webhook event %d failed.", pk)
        reason = f"{type(error).__name__}: {error}"[:ERROR_LENGTH].replace("\x00", "")
        given_up = transactions.write(lambda: _record_failure(pk, reason))
        if given_up is not None:
            transactions.write(lambda: _mark_customers([given_up]))


def _count_attempt(pk: int) -> bool:
    events = list(_rows().pending().filter(pk=pk).select_for_update())
    for event in events:
        event.attempts += 1
        event.next_attempt_at = timezone.now() + backoff(event.attempts)
        event.save(using=alias(), update_fields=["attempts", "next_attempt_at"])
    return bool(events)


def _record_failure(pk: int, reason: str) -> WebhookEvent | None:
    """Returns the event if this was its last attempt."""
    event = _rows().pending().filter(pk=pk).select_for_update().first()
    if event is None:
        return None
    event.error = reason
    if event.attempts >= ATTEMPTS:
        event.status = Status.FAILED
        event.next_attempt_at = None
    event.save(using=alias(), update_fields=["error", "status", "next_attempt_at"])
    return event if event.status == Status.FAILED else None


def _apply(events: WebhookEventQuerySet, pks: list[int]) -> int:
    """Lock these events, pass on what they say, mark them. `pks` are then those that were taken.

    Finding and locking is one statement, so that of two workers the second finds other rows.
    """
    taken = list(lock_or_skip(events))
    pks[:] = [event.pk for event in taken]
    for livemode in sorted({event.livemode for event in taken}):  # of two modes every write locks test mode first
        news = _news(event for event in taken if event.livemode is livemode)
        if sync.apply_news(news, livemode=livemode):
            _confirm_soon(livemode=livemode)
    primary(WebhookEvent).filter(pk__in=pks).update(
        status=Status.PROCESSED, processed_at=timezone.now(), next_attempt_at=None, error=""
    )
    return len(taken)


def _confirm_soon(*, livemode: bool) -> None:
    """A customer is urgent: if workers do the work, wake one after the commit."""
    if conf.webhook_processing() == "celery" and conf.stripe_api_key() is not None and livemode is conf.livemode():
        dispatch.wake_after_commit("confirm_customers")


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
    return News(stripe_id, payload=payload, hint=len(summaries) > 1 or len(summaries) < len(events), deleted=deleted)


def _newest_payload(summaries: Sequence[WebhookEvent]) -> Payload:
    newest = max(summaries, key=lambda event: event.created or 0)
    sole_of_its_second = sum(event.created == newest.created for event in summaries) == 1
    created = newest.created or 0
    if newest.sent_at is None:  # never applied, so what it carries, which may be unreadable, is not read
        return Payload(created, None, grants=(), complete=False, sole_of_its_second=sole_of_its_second)
    summary = parse_summary(newest.payload, livemode=newest.livemode)
    return Payload(created, newest.sent_at, summary.grants, summary.complete, sole_of_its_second)


# What is forgotten


def purge_payloads(*, before: datetime, deadline: float) -> int:
    """Empty processed events that were received before that moment. Returns how many were.

    A failed one keeps its payload as long as its row: whoever looks into it needs it.
    """
    rows = primary(WebhookEvent).filter(status=Status.PROCESSED, payload__isnull=False)
    oldest = rows.filter(received_at__lt=before).order_by("received_at").values_list("pk", flat=True)
    emptied = 0
    while time.monotonic() < deadline and (pks := list(oldest[:PURGE_BATCH])):
        emptied += transactions.write(partial(rows.filter(pk__in=pks).update, payload=None))
    return emptied


def purge(*, before: datetime, deadline: float) -> int:
    """Delete events that were received before that moment, but pending ones. Returns how many were deleted."""
    rows = primary(WebhookEvent)
    deleted = 0
    for batch in batches(rows, after=0, until=last_before(rows, "received_at", before), deadline=deadline):
        old = batch.filter(received_at__lt=before).exclude(status=Status.PENDING)
        deleted += transactions.write(old.delete)[0]
    return deleted
