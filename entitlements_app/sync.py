"""Bring what Stripe said into the mirror: the payload of an event, or the answer to a question.

Network first, then locks: no call is made inside a transaction, and an answer whose customer moved on meanwhile is
dropped.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connections
from django.utils import timezone

from . import conf, mirror, stripe_client, transactions, windows
from .budget import Allowance, Stopped
from .changes import Cause
from .exceptions import StripeUnavailable
from .mirror import Holding
from .models import ActiveEntitlement, Customer
from .stripe_objects import Grant
from .transactions import alias, primary

logger = logging.getLogger(__name__)

SYNC_SECONDS = 30.0


@dataclass(frozen=True)
class Payload:
    """The newest summary event of a batch. `sole_of_its_second`: no other of the batch has its `created`."""

    created: int
    sent_at: int | None
    grants: tuple[Grant, ...]
    complete: bool
    sole_of_its_second: bool


@dataclass(frozen=True)
class News:
    """What a batch of events says of one customer."""

    stripe_id: str
    payload: Payload | None = None
    hint: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Fetch:
    """A question to Stripe about one customer, and what we held when it was asked."""

    pk: int
    stripe_id: str
    version: int
    hinted_at: datetime | None
    began: datetime
    claim: str = ""
    planned_at: datetime | None = None


@dataclass(frozen=True)
class Synced:
    """How a fetch ended.

    `applied` is false if the customer's state moved while Stripe was asked, or it is deleted. `known` is false if
    Stripe does not know the customer: then what a fetch had confirmed before is kept.
    """

    applied: bool
    known: bool = True
    granted: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()

    @property
    def changed(self) -> bool:
        return bool(self.granted or self.revoked)


def apply_news(news: Sequence[News], *, livemode: bool) -> None:
    """Apply what each customer's newest payload says, or mark the customer for a fetch.

    The caller owns the transaction and has locked nothing but events.
    """
    now = timezone.now()
    customers = mirror.lock_by_stripe_id([item.stripe_id for item in news], livemode=livemode)
    holdings = []
    for item in news:
        customer = customers[item.stripe_id]
        if customer.deleted_at is not None:
            continue
        if item.deleted:
            holdings.append(mirror.delete(customer, now=now, cause=Cause.EVENT))
            continue
        if item.hint:
            mirror.hint(customer, now=now, urgent=False)
        if item.payload is not None and _welcome(customer, item.payload, now=now):
            mirror.set_window(customer, windows.payload_window(item.payload.created))
            holdings.append(Holding(customer, item.payload.grants, Cause.EVENT))
    mirror.settle(list(customers.values()), holdings)


def _welcome(customer: Customer, payload: Payload, *, now: datetime) -> bool:
    """Whether the payload becomes our state. Either way it is a hint as well."""
    verdict = windows.judge(
        created=payload.created,
        sent_at=payload.sent_at,
        complete=payload.complete,
        sole_of_its_second=payload.sole_of_its_second,
        window=mirror.window(customer),
    )
    mirror.hint(customer, now=now, urgent=verdict.urgent)
    return verdict.applies


def sync_customer(customer: Customer) -> Synced:
    """Ask Stripe now what this customer holds, and make our rows equal to it.

    Waits for the call budget, 30 s in all. Raises `StripeUnavailable` (nothing changed, try again), `StripeRefused`,
    or `RuntimeError` inside an atomic block. A deleted customer is not asked for.
    """
    row = primary(Customer).get(pk=customer.pk)
    if row.deleted_at is not None:
        return Synced(applied=False)
    fetch = Fetch(row.pk, row.stripe_id, row.version, row.hinted_at, began=timezone.now())
    return run_fetch(fetch, Allowance(seconds=SYNC_SECONDS))


def claim_due(*, limit: int) -> list[Fetch]:
    """Take the customers whose fetch is due, in the order of work. For LEASE nobody else takes them."""
    now = timezone.now()
    claim = uuid.uuid4().hex
    skip = connections[alias()].features.has_select_for_update_skip_locked

    def take() -> list[Customer]:
        due = Customer.objects.using(alias()).in_mode(conf.livemode()).due(now)
        rows = list(due.select_for_update(skip_locked=skip)[:limit])
        primary(Customer).filter(pk__in=[row.pk for row in rows]).update(next_fetch_at=now + windows.LEASE, claim=claim)
        return rows

    return [
        Fetch(row.pk, row.stripe_id, row.version, row.hinted_at, now, claim, row.next_fetch_at)
        for row in transactions.write(take)
    ]


def run_fetch(fetch: Fetch, allowance: Allowance) -> Synced:
    """Ask Stripe, within the allowance, and apply the answer unless the customer moved on meanwhile.

    Raises what `sync_customer` raises. After an error a claimed customer has its time back; one that met a server
    error waits, longer each time.
    """
    transactions.refuse_open_transaction("Fetching a customer's entitlements")
    try:
        answer = _ask(fetch, allowance)
    except Exception as error:
        if fetch.claim:
            wait = _is_about_this_customer(error)
            transactions.write(lambda: _give_back(fetch, wait=wait))
        raise
    synced = transactions.write(lambda: _apply(fetch, answer))
    if synced.changed:
        logger.info("Fetched %s: %d granted, %d revoked.", fetch.stripe_id, len(synced.granted), len(synced.revoked))
    return synced


@dataclass(frozen=True)
class _Known:
    """Stripe knows the customer: its full list."""

    listing: stripe_client.Listing


@dataclass(frozen=True)
class _Deleted:
    """Stripe knows the customer as deleted."""


@dataclass(frozen=True)
class _Unknown:
    """Stripe does not know the customer, in this account and mode."""


_Answer = _Known | _Deleted | _Unknown


def _ask(fetch: Fetch, allowance: Allowance) -> _Answer:
    """The whole truth. Nothing is taken away before Stripe has said that it knows the customer."""
    try:
        listing = stripe_client.list_active_entitlements(fetch.stripe_id, allowance)
        if listing.grants or not primary(ActiveEntitlement).filter(customer_id=fetch.pk).exists():
            return _Known(listing)
    except stripe_client.NoSuchCustomer:
        listing = stripe_client.empty_listing()
    try:
        deleted = stripe_client.is_customer_deleted(fetch.stripe_id, allowance)
    except stripe_client.NoSuchCustomer:
        return _Unknown()
    return _Deleted() if deleted else _Known(listing)


def _apply(fetch: Fetch, answer: _Answer) -> Synced:
    now = timezone.now()
    locked = mirror.lock([fetch.pk])
    if not locked or locked[0].version != fetch.version or locked[0].deleted_at is not None:
        logger.info("Discarded a fetch of %s: newer news came meanwhile.", fetch.stripe_id)
        return Synced(applied=False)
    customer = locked[0]
    holding = _holding(customer, answer, now=now)
    customer.fetched_at = now
    customer.fetch_failures = 0
    keys = mirror.settle([customer], [holding])[customer.pk]
    if customer.deleted_at is None:
        _plan_next(customer, fetch, changed=bool(keys), now=now)
    known = not isinstance(answer, _Unknown)
    return Synced(applied=True, known=known, granted=keys.gained, revoked=keys.lost)


def _holding(customer: Customer, answer: _Answer, *, now: datetime) -> Holding:
    if isinstance(answer, _Deleted):
        return mirror.delete(customer, now=now, cause=Cause.FETCH)
    if isinstance(answer, _Unknown):
        logger.error("Stripe does not know %s in this account and mode.", customer.stripe_id)
        customer.missing_since = customer.missing_since or now
        return Holding(customer, (), Cause.FETCH, confirmed_stay=True)
    customer.missing_since = None
    held = mirror.window(customer)
    mirror.set_window(customer, windows.raised(held, answer.listing.window))
    return Holding(customer, answer.listing.grants, Cause.FETCH, confirmed_at=now)


def _plan_next(customer: Customer, fetch: Fetch, *, changed: bool, now: datetime) -> None:
    new = windows.fetched(
        mirror.schedule(customer),
        hinted_at_start=fetch.hinted_at,
        began=fetch.began,
        now=now,
        changed=changed,
        confirm_after=conf.confirm_every() * random.uniform(0.9, 1),
    )
    mirror.set_schedule(customer, new)
    mirror.save_schedule(customer)


def _is_about_this_customer(error: Exception) -> bool:
    """Whether the next customer may well be answered: then it is this one that has to wait."""
    if isinstance(error, StripeUnavailable):
        return error.status is not None and error.status >= 500
    return not isinstance(error, Stopped)


def _give_back(fetch: Fetch, *, wait: bool) -> None:
    """Undo a claim: the customer has the time that it had, or waits if it is the one that Stripe fails on."""
    for customer in mirror.lock([fetch.pk]):
        if customer.deleted_at is not None or customer.claim != fetch.claim:
            continue
        if wait:
            customer.fetch_failures = min(customer.fetch_failures + 1, 100)
            customer.next_fetch_at = timezone.now() + windows.wait_after_failure(customer.fetch_failures)
        elif fetch.planned_at is not None:
            customer.next_fetch_at = fetch.planned_at
        mirror.save_schedule(customer)
