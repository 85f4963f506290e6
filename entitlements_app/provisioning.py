"""Tell the site: deliver changes as signals, at least once, in order for each subscriber.

The only module that marks a change delivered. It runs right after the commit that wrote a change, in the process that
did or in a worker, and again from `entitlements_run` and beat for what is left.

    Note [One courier]
    Changes of a subscriber are delivered by one worker at a time: the one whose token stands in the subscriber's state
    row, for LEASE, which is checked and renewed before each receiver is called. Leasing single changes would let a
    second worker overtake the first one. Who finds the lease taken leaves; so who gives it back looks once more, for
    what was committed just before.

    The oldest change comes first, and while it waits to be tried again its successors wait, too. An attempt is
    committed before it is made, so that a receiver which kills the process is not called for ever.

    No lock is held and no transaction of ours is open while a receiver runs.
"""

from __future__ import annotations

import functools
import logging
import secrets
import threading
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from . import cache, conf, dispatch, transactions
from .models import EntitlementChange, EntitlementChangeQuerySet, SubscriberState
from .signals import entitlement_granted, entitlement_revoked
from .transactions import alias, lock_or_skip, primary, update
from .windows import LEASE, backoff

logger = logging.getLogger(__name__)

ATTEMPTS = 8
INLINE_SECONDS = 5.0
BATCH = 100
ERROR_LENGTH = 1000
NOT_SENT = "Not sent: the subscriber was deleted."

_SIGNALS = {
    EntitlementChange.Kind.GRANTED: entitlement_granted,
    EntitlementChange.Kind.REVOKED: entitlement_revoked,
}
_DELIVERY_FIELDS = ("delivered_at", "parked_at", "attempts", "next_attempt_at", "receivers_done", "error")
_Receiver = Callable[..., object]


@dataclass
class DeliveryReport:
    """How many changes a pass delivered, and how many it could not: they are tried again, or parked for good."""

    delivered: int = 0
    failed: int = 0
    parked: int = 0

    def as_line(self) -> str:
        return f"Changes that waited: {self.delivered} delivered, {self.failed} failed, {self.parked} parked."


def deliver_after_commit(subscriber_ids: Collection[Any], *, livemode: bool) -> None:
    """Once the open transaction has committed, deliver what these subscribers have waiting, for 5 s at most.

    What a receiver raises reaches nobody but the log. What is left is for `deliver_due`. If workers do the work, one is
    woken instead, and no receiver runs here.
    """
    if subscriber_ids and conf.webhook_processing() == "celery":
        dispatch.wake_after_commit("deliver_changes")
    elif subscriber_ids:
        answers = [(pk, livemode) for pk in sorted(subscriber_ids, key=str)]
        transaction.on_commit(lambda: _deliver_now(answers), using=alias(), robust=True)


def deliver_due(*, deadline: float) -> DeliveryReport:
    """Deliver what waits and is due, until nothing is, or `deadline` (on `time.monotonic`) is past."""
    report = DeliveryReport()
    livemode = conf.livemode()
    _withdraw(_changes().filter(subscriber=None))
    last = 0
    while time.monotonic() < deadline and (heads := list(_due_heads(livemode).filter(pk__gt=last)[:BATCH])):
        _deliver_all([(head.subscriber_id, livemode) for head in heads], report, deadline=deadline, wait=False)
        last = heads[-1].pk
    return report


def resend(change: EntitlementChange, *, only_parked: bool = False) -> bool:
    """Deliver a change again, after the commit: one that was delivered to every receiver, another to those not done.

    It comes before what waits, and after newer ones that were delivered. With `only_parked` one that is no longer
    parked is left alone, as somebody else has sent it. Returns whether it is sent. Raises `ValueError` for a change
    that is not effective, or whose subscriber was deleted.
    """

    def work() -> bool:
        row = _changes().select_for_update().get(pk=change.pk)
        if not row.effective or row.subscriber_id is None:
            raise ValueError(f"{row} is about no subscriber's answer: there is nobody to tell.")
        if only_parked and (row.parked_at is None or row.delivered_at is not None):
            return False
        row.receivers_done = row.receivers_done if row.delivered_at is None else []
        row.delivered_at = row.parked_at = row.next_attempt_at = None
        row.attempts, row.error = 0, ""
        row.save(using=alias(), update_fields=_DELIVERY_FIELDS)
        deliver_after_commit([row.subscriber_id], livemode=row.livemode)
        return True

    return transactions.write(work)


def withdraw(subscriber_id: Any) -> None:
    """Mark what a subscriber has waiting, without sending it: the subscriber is being deleted.

    The caller owns the transaction, and has locked the subscriber's states.
    """
    _withdraw(_changes().filter(subscriber_id=subscriber_id))


def _withdraw(changes: EntitlementChangeQuerySet) -> None:
    update(changes.undelivered(), delivered_at=timezone.now(), error=NOT_SENT)


# Who delivers


class _Here(threading.local):
    """The subscribers whose turn comes next in this thread; `None` while it delivers nothing."""

    queue: deque[tuple[Any, bool]] | None = None


_here = _Here()


def _deliver_now(answers: Collection[tuple[Any, bool]]) -> None:
    try:
        livemode = conf.livemode()
        own = [answer for answer in answers if answer[1] is livemode]
        _deliver_all(own, DeliveryReport(), deadline=time.monotonic() + INLINE_SECONDS, wait=True)
    except Exception:  # of whatever kind: the change is committed, and it is no business of who wrote it
        logger.exception("Delivering changes failed. `manage.py entitlements_run` delivers them.")


def _deliver_all(answers: Collection[tuple[Any, bool]], report: DeliveryReport, *, deadline: float, wait: bool) -> None:
    """Deliver to each of these subscribers in that mode; one that goes wrong does not hold up the others.

    A receiver that changes answers does not call itself: whose answer it changed has its turn after those before.
    """
    if _here.queue is not None:
        _here.queue.extend(answers)
        return
    if not any(signal.has_listeners(EntitlementChange) for signal in _SIGNALS.values()):
        report.delivered += _mark_unheard(answers)
        return
    _here.queue = deque(answers)
    try:
        while _here.queue and time.monotonic() < deadline:
            subscriber_id, livemode = _here.queue.popleft()
            try:
                _deliver(subscriber_id, livemode, report, deadline=deadline, wait=wait)
            except Exception:  # of whatever kind: the others have their turn
                logger.exception("Delivering the changes of subscriber %s failed.", subscriber_id)
                report.failed += 1
    finally:
        _here.queue = None


def _mark_unheard(answers: Iterable[tuple[Any, bool]]) -> int:
    """Nobody is connected: all is delivered, but what another process, which may have receivers, is delivering."""
    marked = 0
    for livemode in (True, False):
        ids = [pk for pk, mode in answers if mode is livemode]
        if ids:
            cache.invalidate(ids, livemode=livemode)
            states = primary(SubscriberState).filter(subscriber_id=OuterRef("subscriber_id"), livemode=livemode)
            leased = Exists(states.filter(delivery_until__gt=timezone.now()))
            waiting = _changes().waiting().filter(~leased, subscriber_id__in=ids, livemode=livemode)
            marked += update(waiting, delivered_at=timezone.now(), next_attempt_at=None)
    return marked


def _deliver(subscriber_id: Any, livemode: bool, report: DeliveryReport, *, deadline: float, wait: bool) -> None:
    while (
        time.monotonic() < deadline
        and _next_due(subscriber_id, livemode)
        and (lease := _Lease.take(subscriber_id, livemode, wait=wait))
    ):
        try:
            cache.invalidate([subscriber_id], livemode=livemode)
            while time.monotonic() < deadline and (change := _next_due(subscriber_id, livemode)) and lease.renew():
                _deliver_change(change, lease, report)
        finally:
            lease.give_back()


def _due_heads(livemode: bool) -> EntitlementChangeQuerySet:
    """The oldest waiting change of each subscriber, where it is due."""
    waiting = _changes().waiting().filter(livemode=livemode)
    older = waiting.filter(subscriber_id=OuterRef("subscriber_id"), pk__lt=OuterRef("pk"))
    due = Q(next_attempt_at=None) | Q(next_attempt_at__lte=timezone.now())
    return waiting.filter(due, ~Exists(older)).only("pk", "subscriber_id").order_by("pk")


def _next_due(subscriber_id: Any, livemode: bool) -> EntitlementChange | None:
    """The oldest waiting change of this subscriber; `None` if it is to be tried later."""
    waiting = _changes().waiting().filter(subscriber_id=subscriber_id, livemode=livemode).order_by("pk")
    change = waiting.select_related("subscriber", "customer").first()
    if change is None or (change.next_attempt_at is not None and change.next_attempt_at > timezone.now()):
        return None
    return change


def _changes() -> EntitlementChangeQuerySet:
    return EntitlementChange.objects.using(alias())


@dataclass(frozen=True)
class _Lease:
    """The right to deliver the changes of one subscriber and mode. See Note [One courier]."""

    subscriber_id: Any
    livemode: bool
    token: str

    @classmethod
    def take(cls, subscriber_id: Any, livemode: bool, *, wait: bool) -> _Lease | None:
        """`None` if another worker has it; without `wait`, also if another transaction has locked the row."""
        token = secrets.token_hex(8)

        def work() -> int:
            now = timezone.now()
            free = Q(delivery_until=None) | Q(delivery_until__lte=now)
            rows = primary(SubscriberState).filter(free, subscriber_id=subscriber_id, livemode=livemode)
            if not wait:
                rows = rows.filter(pk__in=list(lock_or_skip(rows).values_list("pk", flat=True)))
            return rows.update(delivery_token=token, delivery_until=now + LEASE)

        return cls(subscriber_id, livemode, token) if transactions.write(work) else None

    def renew(self) -> bool:
        """Whether it is still ours."""
        return bool(update(self._row(), delivery_until=timezone.now() + LEASE))

    def give_back(self) -> None:
        update(self._row(), delivery_token="", delivery_until=None)

    def _row(self) -> QuerySet[SubscriberState]:
        rows = primary(SubscriberState).filter(subscriber_id=self.subscriber_id, livemode=self.livemode)
        return rows.filter(delivery_token=self.token)


# One change


def _deliver_change(change: EntitlementChange, lease: _Lease, report: DeliveryReport) -> None:
    if change.attempts >= ATTEMPTS:  # the last attempt ended with its process
        _end_attempt(change, change.error or "The process ended while a receiver ran.", report)
        return
    change.attempts += 1
    change.next_attempt_at = timezone.now() + backoff(change.attempts)
    if not _update(change, "attempts", "next_attempt_at"):  # withdrawn meanwhile
        return
    errors = []
    to_call = [(name, receiver) for name, receiver in _receivers(change) if name not in change.receivers_done]
    for nth, (name, receiver) in enumerate(to_call):
        if nth and not lease.renew():
            return
        try:
            _call(receiver, change)
        except (Exception, CancelledError) as error:  # the site's code may raise anything, and is called again
            logger.exception("Receiver %s failed for change %d (attempt %d).", name, change.pk, change.attempts)
            errors.append(f"{name}: {type(error).__name__}: {error}")
        else:
            change.receivers_done = [*change.receivers_done, name]
            if len(to_call) > 1:
                _update(change, "receivers_done")
    _end_attempt(change, "\n".join(errors), report)


def _end_attempt(change: EntitlementChange, error: str, report: DeliveryReport) -> None:
    now = timezone.now()
    change.error = error[:ERROR_LENGTH].replace("\x00", "")
    change.next_attempt_at = None
    if not error:
        change.delivered_at = now
    elif change.attempts < ATTEMPTS:
        change.next_attempt_at = now + backoff(change.attempts)
    else:
        change.parked_at = now
    if not _update(change, *_DELIVERY_FIELDS):
        return
    if not error:
        report.delivered += 1
    elif change.parked_at is None:
        report.failed += 1
    else:
        report.parked += 1
        logger.error("Change %d is parked after %d attempts; later ones pass it.", change.pk, change.attempts)


def _update(change: EntitlementChange, *fields: str) -> int:
    """Write these fields, unless the change was delivered or withdrawn meanwhile. Returns how many rows were."""
    values = {field: getattr(change, field) for field in fields}
    return update(_changes().undelivered().filter(pk=change.pk), **values)


def _receivers(change: EntitlementChange) -> Iterator[tuple[str, _Receiver]]:
    """The receivers connected to the change's signal, each with a name that it has in every process."""
    # Django's own `send` is all or nothing: it cannot leave out those that are done.
    sync, asynchronous = _SIGNALS[EntitlementChange.Kind(change.kind)]._live_receivers(EntitlementChange)
    names: list[str] = []
    for receiver in [*sync, *asynchronous]:
        name = _name(receiver)
        names.append(name)
        nth = names.count(name)  # one function may be connected twice, and each lambda has the same name
        call = async_to_sync(receiver) if receiver in asynchronous else receiver
        yield (name if nth == 1 else f"{name} #{nth}"), call


def _name(receiver: Any) -> str:
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    named = receiver if hasattr(receiver, "__qualname__") else type(receiver)
    return f"{named.__module__}.{named.__qualname__}"


def _call(receiver: _Receiver, change: EntitlementChange) -> None:
    receiver(
        sender=EntitlementChange,
        signal=_SIGNALS[EntitlementChange.Kind(change.kind)],
        subscriber=change.subscriber,
        customer=change.customer,
        lookup_key=change.lookup_key,
        change=change,
    )
