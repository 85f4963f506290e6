"""Bring what Stripe said into the mirror: the payload of an event, or the answer to a question.

Network first, then locks: no call is made inside a transaction, and an answer whose customer moved on meanwhile is
dropped.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from . import conf, linking, mirror, stripe_client, stripe_reads, transactions, windows
from .budget import Allowance, Exhausted, Stopped
from .changes import Cause
from .exceptions import AlreadyLinked, CustomerDeleted, StripeUnavailable
from .mirror import Holding
from .models import ActiveEntitlement, Customer
from .stripe_objects import CustomerDetails, Grant
from .transactions import primary

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
    """What a batch of events says of one customer. `hint`: that something may have changed; `urgent`: surely."""

    stripe_id: str
    payload: Payload | None = None
    hint: bool = False
    urgent: bool = False
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
    customers = mirror.lock_by_stripe_id([item.stripe_id for item in news], livemode=livemode)
    site_links = conf.subscriber_for_customer() is not None
    now = timezone.now()  # of the writers that waited for one another the last has the latest
    holdings = []
    for item in news:
        customer = customers[item.stripe_id]
        if customer.deleted_at is not None:
            continue
        if item.deleted:
            holdings.append(mirror.delete(customer, now=now, cause=Cause.EVENT))
            continue
        if item.hint or item.urgent:
            mirror.hint(customer, now=now, urgent=item.urgent)
        if item.payload is not None and customer.subscriber_id is None and site_links:
            mirror.hint(customer, now=now, urgent=True)
        if item.payload is not None and _welcome(customer, item.payload, now=now):
            customer.window = windows.payload_window(item.payload.created)
            holdings.append(Holding(customer, item.payload.grants, Cause.EVENT))
    mirror.save(list(customers.values()), holdings)


def _welcome(customer: Customer, payload: Payload, *, now: datetime) -> bool:
    """Whether the payload becomes our state. Either way it is a hint as well."""
    verdict = windows.judge(
        created=payload.created,
        sent_at=payload.sent_at,
        complete=payload.complete,
        sole_of_its_second=payload.sole_of_its_second,
        window=customer.window,
    )
    mirror.hint(customer, now=now, urgent=verdict.urgent)
    return verdict.applies


def sync_customer(customer: Customer) -> Synced:
    """Ask Stripe now what this customer holds, and make our rows equal to it.

    Waits for the call budget, 30 s in all. Raises `StripeUnavailable` (nothing changed, try again), `StripeRefused`,
    `Customer.DoesNotExist`, `ValueError` for a customer of another account or mode than the configured one, and
    `RuntimeError` inside an atomic block. A deleted customer is not asked for.
    """
    row = primary(Customer).get(pk=customer.pk)
    if row.account or row.livemode is not conf.livemode():
        raise ValueError(
            f"{row.stripe_id} belongs to another account or mode than ENTITLEMENTS_STRIPE_API_KEY: "
            "asking about it with this key would take its access away."
        )
    if row.deleted_at is not None:
        return Synced(applied=False)
    fetch = Fetch(row.pk, row.stripe_id, row.version, row.hinted_at, began=timezone.now())
    return run_fetch(fetch, Allowance(seconds=SYNC_SECONDS))


def claim_next() -> Fetch | None:
    """Take the customer whose fetch is first in the order of work, `None` if none is due."""
    now = timezone.now()
    claim = uuid.uuid4().hex
    row = transactions.write(lambda: mirror.claim_next(livemode=conf.livemode(), claim=claim, now=now))
    if row is None:
        return None
    return _claimed(row, claim, now)


def claim_one(pk: int, *, unless_fetched_since: datetime) -> Fetch | None:
    """Take this customer, due or not, and mark it. `None` if it was fetched since then, or another fetch has it."""
    now = timezone.now()
    claim = uuid.uuid4().hex
    row = transactions.write(
        lambda: mirror.claim_one(pk, claim=claim, now=now, unless_fetched_since=unless_fetched_since)
    )
    return None if row is None else _claimed(row, claim, now)


def _claimed(row: Customer, claim: str, now: datetime) -> Fetch:
    return Fetch(row.pk, row.stripe_id, row.version, row.hinted_at, now, claim, row.next_fetch_at)


def run_fetch(fetch: Fetch, allowance: Allowance) -> Synced:
    """Ask Stripe, within the allowance, and apply the answer unless the customer moved on meanwhile.

    After the commit the site's function is asked whose a customer is that is still nobody's. Raises what
    `sync_customer` raises. After an error a claimed customer has its time back; one that was asked about in vain waits,
    longer each time, so that others come before it.
    """
    transactions.refuse_open_transaction("Fetching a customer's entitlements")
    try:
        told = _ask(fetch, allowance)
        synced = transactions.write(lambda: _apply(fetch, told))
    except Exception as error:  # of whatever kind: the claim is given back
        if fetch.claim:
            longest = _longest_wait(error)
            transactions.write(lambda: _give_back(fetch, longest=longest))
        raise
    # An answer that was dropped said who the customer is, too: the row still has who it was.
    if synced.applied and isinstance(told, _Known) and told.details and (function := conf.subscriber_for_customer()):
        for customer in primary(Customer).filter(pk=fetch.pk, subscriber=None, deleted_at=None):
            _link_as_the_site_says(customer, function)
    if synced.changed:
        logger.info("Fetched %s: %d granted, %d revoked.", fetch.stripe_id, len(synced.granted), len(synced.revoked))
    return synced


@dataclass(frozen=True)
class _Known:
    """Stripe knows the customer: its full list, and who it is, if that was asked."""

    listing: stripe_reads.Listing[Grant]
    details: CustomerDetails | None = None


@dataclass(frozen=True)
class _Deleted:
    """Stripe knows the customer as deleted."""


@dataclass(frozen=True)
class _Unknown:
    """Stripe does not know the customer, in this account and mode."""


_Told = _Known | _Deleted | _Unknown


def _ask(fetch: Fetch, allowance: Allowance) -> _Told:
    """The whole truth. Nothing is taken away before Stripe has said that it knows the customer."""
    try:
        listing = stripe_reads.list_active_entitlements(fetch.stripe_id, allowance)
    except stripe_client.NoSuchObject:
        listing = None
    rows = primary(ActiveEntitlement).filter(customer_id=fetch.pk)
    if listing and (listing.rows or not rows.exists()) and not _is_to_be_linked(fetch):
        return _Known(listing)
    try:
        customer = stripe_reads.retrieve_customer(fetch.stripe_id, allowance)
    except stripe_client.NoSuchObject:
        return _Unknown()
    if customer.details.deleted:
        return _Deleted()
    return _Known(listing or stripe_reads.Listing(rows=(), window=customer.window), customer.details)


def _is_to_be_linked(fetch: Fetch) -> bool:
    if conf.subscriber_for_customer() is None:
        return False
    return primary(Customer).filter(pk=fetch.pk, subscriber=None).exists()


def _link_as_the_site_says(customer: Customer, function: Callable[[Customer], Any]) -> None:
    """Ask the site's function whose customer this is. What goes wrong is logged: the next event asks again."""
    try:
        subscriber = function(customer)
        if subscriber is not None:
            linking.link(subscriber, customer.stripe_id, livemode=customer.livemode)
    except (AlreadyLinked, CustomerDeleted) as error:  # somebody else was quicker
        logger.info("Not linked: %s", error)
    except Exception:  # the site's code may raise anything, and what was fetched stands
        logger.exception("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER failed for %s.", customer.stripe_id)


def _apply(fetch: Fetch, told: _Told) -> Synced:
    now = timezone.now()
    customer = mirror.lock(fetch.pk)
    if customer is None or customer.deleted_at is not None:
        return Synced(applied=False)
    customer.claim = ""
    if customer.version != fetch.version:
        logger.info("Discarded a fetch of %s: another state was applied meanwhile.", fetch.stripe_id)
        customer.schedule = windows.overtaken(customer.schedule, now=now)
        mirror.save_schedule(customer)
        return Synced(applied=False)
    if isinstance(told, _Known) and told.details:
        mirror.save_details(customer, told.details)
    holding = _holding(customer, told, now=now)
    customer.fetched_at = now
    customer.fetch_failures = 0
    keys = mirror.save([customer], [holding])[customer.pk]
    if not isinstance(told, _Deleted):
        customer.schedule = _next_schedule(customer, fetch, changed=bool(keys), now=now)
        mirror.save_schedule(customer)
    return Synced(applied=True, known=not isinstance(told, _Unknown), granted=keys.gained, revoked=keys.lost)


def _holding(customer: Customer, told: _Told, *, now: datetime) -> Holding:
    if isinstance(told, _Deleted):
        return mirror.delete(customer, now=now, cause=Cause.FETCH)
    if isinstance(told, _Unknown):
        logger.error("Stripe does not know %s in this account and mode.", customer.stripe_id)
        customer.missing_since = customer.missing_since or now
        return Holding(customer, (), Cause.FETCH, confirmed_stay=True)
    customer.missing_since = None
    customer.window = windows.raised(customer.window, told.listing.window)
    return Holding(customer, told.listing.rows, Cause.FETCH, confirmed_at=now)


def _next_schedule(customer: Customer, fetch: Fetch, *, changed: bool, now: datetime) -> windows.Schedule:
    every = conf.confirm_every()
    if customer.missing_since is not None:
        return windows.missing(
            customer.schedule, missing_for=now - customer.missing_since, now=now, confirm_every=every
        )
    return windows.fetched(
        customer.schedule,
        hinted_at_start=fetch.hinted_at,
        began=fetch.began,
        now=now,
        changed=changed,
        confirm_after=every * random.uniform(0.9, 1),
    )


def _longest_wait(error: Exception) -> timedelta | None:
    """How long a customer may have to wait after this error; `None` if it was not even asked about.

    A server error, or an answer that cannot be used, may be about this customer alone. Silence is more likely an
    outage, after which nobody should wait long, but it too must not keep one customer first for ever.
    """
    if isinstance(error, Stopped | Exhausted) or (isinstance(error, StripeUnavailable) and error.status == 429):
        return None
    return windows.LEASE if isinstance(error, stripe_client.NoAnswer) else windows.LONGEST_WAIT


def _give_back(fetch: Fetch, *, longest: timedelta | None) -> None:
    """Undo a claim that is still ours."""
    customer = mirror.lock(fetch.pk)
    if customer is None or customer.deleted_at is not None or customer.claim != fetch.claim:
        return
    if longest is None:
        customer.claim = ""
        customer.next_fetch_at = fetch.planned_at
    else:
        customer.fetch_failures = min(customer.fetch_failures + 1, 100)
        customer.schedule = windows.failed(
            customer.schedule,
            hinted_at_start=fetch.hinted_at,
            failures=customer.fetch_failures,
            longest=longest,
            now=timezone.now(),
        )
    mirror.save_schedule(customer)
