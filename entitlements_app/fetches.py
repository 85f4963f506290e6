"""One question to Stripe about a customer: claimed, asked, and given back if there is no answer. `settle` applies it.

A claim is a transaction, and asking holds none.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from django.utils import timezone

from . import conf, mirror, stripe_client, stripe_reads, transactions, windows
from .budget import Allowance, Exhausted, Stopped
from .models import Customer
from .stripe_objects import CustomerDetails, Grant


@dataclass(frozen=True)
class Fetch:
    """A question to Stripe about one customer, and what we held when it was asked.

    `awaited`: by somebody, now. `with_details`: also who it is, with a second call.
    """

    pk: int
    stripe_id: str
    version: int
    hinted_at: datetime | None
    holds: bool
    edits: int
    is_linked: bool
    began: datetime
    claim: str = ""
    planned_at: datetime | None = None
    awaited: bool = False
    with_details: bool = False


@dataclass(frozen=True)
class Known:
    """Stripe knows the customer: its full list, and who it is, if that was asked."""

    listing: stripe_reads.Listing[Grant]
    details: CustomerDetails | None = None


@dataclass(frozen=True)
class Deleted:
    """Stripe knows the customer as deleted."""


@dataclass(frozen=True)
class Unknown:
    """Stripe does not know the customer, in this account and mode."""


Told = Known | Deleted | Unknown
Answered = tuple[Fetch, Told]


# Claim


def of(customer: Customer) -> Fetch:
    """A question about a customer read by `mirror.asked_about`, without a claim."""
    return _fetch(customer, claim="", now=timezone.now())


def claim_wave(limit: int) -> list[Fetch]:
    """Take the customers whose fetches are first in the order of work, at most so many; none if none is due."""
    now, claim = timezone.now(), uuid.uuid4().hex
    wave = transactions.write(lambda: mirror.claim_wave(livemode=conf.livemode(), claim=claim, now=now, limit=limit))
    return [_fetch(row, claim=claim, now=now) for row in wave]


def claim_one(pk: int, *, unless_fetched_since: datetime) -> Fetch | None:
    """Take this customer, due or not, and mark it. `None` if it was fetched since then, or another fetch has it."""
    now, claim = timezone.now(), uuid.uuid4().hex
    row = transactions.write(
        lambda: mirror.claim_one(pk, claim=claim, now=now, unless_fetched_since=unless_fetched_since)
    )
    return None if row is None else replace(_fetch(row, claim=claim, now=now), awaited=True)


def _fetch(row: Customer, *, claim: str, now: datetime) -> Fetch:
    return Fetch(
        pk=row.pk,
        stripe_id=row.stripe_id,
        version=row.version,
        hinted_at=row.hinted_at,
        holds=cast(Any, row).holds,
        edits=cast(Any, row).edits,
        is_linked=row.subscriber_id is not None,
        began=now,
        claim=claim,
        planned_at=row.next_fetch_at,
    )


# Ask


def ask(fetch: Fetch, allowance: Allowance) -> Told:
    """The whole truth. Nothing is taken away before Stripe has said that it knows the customer.

    Asks no database. Raises `StripeUnavailable` or `StripeRefused`.
    """
    try:
        listing = stripe_reads.list_active_entitlements(fetch.stripe_id, allowance)
    except stripe_client.NoSuchObject:
        listing = None
    to_be_linked = not fetch.is_linked and conf.subscriber_for_customer() is not None
    if listing and (listing.rows or not fetch.holds) and not (to_be_linked or fetch.with_details):
        return Known(listing)
    try:
        customer = stripe_reads.retrieve_customer(fetch.stripe_id, allowance)
    except stripe_client.NoSuchObject:
        return Unknown()
    if customer.details.deleted:
        return Deleted()
    return Known(listing or stripe_reads.Listing(rows=(), window=customer.window), customer.details)


# Give back


def give_back(fetch: Fetch, error: Exception) -> None:
    """Undo a claim, if it is still ours: who was not asked about has its time back, another waits."""
    longest = _longest_wait(error)
    if fetch.claim:
        transactions.write(lambda: _give_back(fetch, longest=longest))


def _longest_wait(error: Exception) -> timedelta | None:
    """How long a customer may have to wait after this error; `None` if it was not even asked about.

    A server error, or an answer that cannot be used, may be about this customer alone. Silence is more likely an
    outage, after which nobody should wait long, but it too must not keep one customer first for ever.
    """
    if isinstance(error, Stopped | Exhausted | stripe_client.TooManyCalls):
        return None
    return windows.LEASE if isinstance(error, stripe_client.NoAnswer) else windows.LONGEST_WAIT


def _give_back(fetch: Fetch, *, longest: timedelta | None) -> None:
    customer = mirror.lock([fetch.pk]).get(fetch.pk)
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
