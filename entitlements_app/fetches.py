"""One question to Stripe about a customer, from claim to settled: claim, ask, apply.

A claim is a transaction, asking holds none, and applying is another. Many answers are applied together. An answer whose
customer moved on while Stripe was asked is dropped: `version` tells.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from django.utils import timezone

from . import conf, drift, linking, mirror, runs, stripe_client, stripe_reads, transactions, windows
from .budget import Allowance, Exhausted, Stopped
from .changes import Cause
from .diff import Difference, difference
from .drift import Drift, Finding
from .exceptions import AlreadyLinked, CustomerDeleted
from .mirror import Holding
from .models import ActiveEntitlement, Customer
from .stripe_objects import CustomerDetails, Grant
from .transactions import primary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetch:
    """A question to Stripe about one customer, and what we held when it was asked. `awaited`: by somebody, now."""

    pk: int
    stripe_id: str
    version: int
    hinted_at: datetime | None
    holds: bool
    is_linked: bool
    began: datetime
    claim: str = ""
    planned_at: datetime | None = None
    awaited: bool = False


@dataclass(frozen=True)
class Synced:
    """How a fetch ended.

    `applied` is false if the customer's state moved while Stripe was asked, or it is deleted. `known` is false if
    Stripe does not know the customer: then what a fetch had confirmed before is kept. `drift` tells the likely cause of
    each change of which no event had told.
    """

    applied: bool
    known: bool = True
    granted: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    drift: Mapping[str, Drift] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.granted or self.revoked)


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
    if listing and (listing.rows or not fetch.holds) and not to_be_linked:
        return Known(listing)
    try:
        customer = stripe_reads.retrieve_customer(fetch.stripe_id, allowance)
    except stripe_client.NoSuchObject:
        return Unknown()
    if customer.details.deleted:
        return Deleted()
    return Known(listing or stripe_reads.Listing(rows=(), window=customer.window), customer.details)


# Apply


def run(fetch: Fetch, allowance: Allowance) -> Synced:
    """Ask Stripe, within the allowance, and apply the answer unless the customer moved on meanwhile.

    Raises what `ask` raises, and `RuntimeError` inside an atomic block. After an error a claimed customer has its time
    back; one that was asked about in vain waits, longer each time, so that others come before it.
    """
    transactions.refuse_open_transaction("Fetching a customer's entitlements")
    before = allowance.calls
    try:
        [synced] = apply([(fetch, ask(fetch, allowance))])
    except Exception as error:  # of whatever kind: the claim is given back
        give_back(fetch, error)
        runs.count_fetches(done=0, changed=0, failed=1, calls=allowance.calls - before, drift={})
        raise
    count([synced], calls=allowance.calls - before)
    return synced


def count(synced: Sequence[Synced], *, calls: int, failed: int = 0) -> None:
    """Add to this hour's sync run."""
    found = Counter(cause for one in synced for cause in one.drift.values())
    changed = sum(one.changed for one in synced)
    runs.count_fetches(done=len(synced), changed=changed, failed=failed, calls=calls, drift=dict(found))


def apply(answers: Sequence[Answered]) -> list[Synced]:
    """Make our rows equal to what Stripe said, in one transaction. How each ended, in the order given.

    After the commit the site's function is asked whose a customer is that is still nobody's.
    """
    synced = transactions.write(lambda: _apply(answers))
    for (fetch, told), one in zip(answers, synced, strict=True):
        # An answer that was dropped said who the customer is, too: the row still has who it was.
        if one.applied and isinstance(told, Known) and told.details:
            _link_as_the_site_says(fetch)
        if one.changed:
            logger.info("Fetched %s: %d granted, %d revoked.", fetch.stripe_id, len(one.granted), len(one.revoked))
        if one.drift:
            causes = ", ".join(f"{key} ({cause.label})" for key, cause in sorted(one.drift.items()))
            logger.warning("What we held of %s was wrong until now: %s.", fetch.stripe_id, causes)
    return synced


def compare(answers: Sequence[Answered]) -> list[Synced]:
    """What `apply` would change, as far as that can be told: nothing is written."""
    held: dict[int, set[str]] = {fetch.pk: set() for fetch, _ in answers}
    rows = primary(ActiveEntitlement).filter(customer_id__in=held)
    for pk, key in rows.values_list("customer_id", "lookup_key"):
        held[pk].add(key)
    return [_compared(held[fetch.pk], told) for fetch, told in answers]


def _compared(held: set[str], told: Told) -> Synced:
    if isinstance(told, Unknown):
        return Synced(applied=True, known=False)
    wanted = {grant.lookup_key for grant in told.listing.rows} if isinstance(told, Known) else set()
    keys = difference(held, wanted)
    return Synced(applied=True, granted=keys.gained, revoked=keys.lost)


def _apply(answers: Sequence[Answered]) -> list[Synced]:
    now = timezone.now()
    customers = mirror.lock([fetch.pk for fetch, _ in answers])
    alive = {
        fetch.pk: _Answer(fetch, told, customers[fetch.pk])
        for fetch, told in answers
        if fetch.pk in customers and customers[fetch.pk].deleted_at is None
    }
    fresh = [answer for answer in alive.values() if answer.is_fresh]
    for answer in alive.values():
        if not answer.is_fresh:
            answer.drop(now=now)

    def found(keys: Mapping[int, Difference]) -> Mapping[int, Mapping[str, Drift]]:
        for answer in fresh:
            answer.settle(keys[answer.fetch.pk], now=now)
        findings = [answer.finding() for answer in fresh if answer.was_known]
        causes = drift.causes(findings, livemode=conf.livemode())
        for answer in fresh:
            answer.drift = causes.get(answer.fetch.pk, {})
        return causes

    if alive:
        holdings = [answer.hold(now=now) for answer in fresh]
        mirror.save([answer.customer for answer in alive.values()], holdings, found=found)
        mirror.save_details({answer.customer: details for answer in fresh if (details := answer.details)})
    # Of two answers about one customer the last one counts.
    counted = {answer.fetch: answer.synced() for answer in alive.values()}
    return [counted.get(fetch, Synced(applied=False)) for fetch, _ in answers]


class _Answer:
    """An answer and its locked customer, which is not deleted. `is_fresh`: no other state was applied meanwhile."""

    def __init__(self, fetch: Fetch, told: Told, customer: Customer) -> None:
        self.fetch, self.told, self.customer = fetch, told, customer
        self.is_fresh = customer.version == fetch.version
        self.was_known = customer.window is not None
        self.keys = Difference(frozenset(), frozenset())
        self.drift: Mapping[str, Drift] = {}
        self._since = min(filter(None, (customer.fetched_at, customer.hinted_at)), default=customer.created_at)
        customer.claim = ""

    @property
    def details(self) -> CustomerDetails | None:
        return self.told.details if isinstance(self.told, Known) else None

    def drop(self, *, now: datetime) -> None:
        logger.info("Discarded a fetch of %s: another state was applied meanwhile.", self.fetch.stripe_id)
        self.customer.schedule = windows.overtaken(self.customer.schedule, now=now)

    def hold(self, *, now: datetime) -> Holding:
        """What the customer holds from now on."""
        customer, told = self.customer, self.told
        customer.fetched_at = now
        customer.fetch_failures = 0
        if isinstance(told, Deleted):
            return mirror.delete(customer, now=now, cause=Cause.FETCH)
        if isinstance(told, Unknown):
            logger.error("Stripe does not know %s in this account and mode.", customer.stripe_id)
            customer.missing_since = customer.missing_since or now
            return Holding(customer, (), Cause.FETCH, confirmed_stay=True)
        customer.missing_since = None
        customer.window = windows.raised(customer.window, told.listing.window)
        return Holding(customer, told.listing.rows, Cause.FETCH, confirmed_at=now)

    def settle(self, keys: Difference, *, now: datetime) -> None:
        """Plan the next fetch, as this one has found these keys to change."""
        self.keys = keys
        customer = self.customer
        every = conf.confirm_every()
        if isinstance(self.told, Deleted):
            return
        if customer.missing_since is not None:
            customer.schedule = windows.missing(
                customer.schedule, missing_for=now - customer.missing_since, now=now, confirm_every=every
            )
        else:
            customer.schedule = windows.fetched(
                customer.schedule,
                hinted_at_start=self.fetch.hinted_at,
                began=self.fetch.began,
                now=now,
                changed=bool(keys),
                confirm_after=every * random.uniform(0.9, 1),
            )

    def finding(self) -> Finding:
        told = self.told.listing.rows if isinstance(self.told, Known) else ()
        hinted_at = self.fetch.hinted_at
        return Finding(
            customer_id=self.customer.pk,
            stripe_id=self.customer.stripe_id,
            held=frozenset({grant.lookup_key for grant in told} - self.keys.gained | self.keys.lost),
            keys=self.keys,
            since=self._since,
            early=hinted_at is not None and self.fetch.began - hinted_at < windows.SETTLE,
            awaited=self.fetch.awaited,
            deleted=isinstance(self.told, Deleted),
        )

    def synced(self) -> Synced:
        if not self.is_fresh:
            return Synced(applied=False)
        known = not isinstance(self.told, Unknown)
        return Synced(applied=True, known=known, granted=self.keys.gained, revoked=self.keys.lost, drift=self.drift)


def _link_as_the_site_says(fetch: Fetch) -> None:
    """Ask the site's function whose customer this is. What goes wrong is logged: the next event asks again."""
    function = conf.subscriber_for_customer()
    customer = primary(Customer).filter(pk=fetch.pk, subscriber=None, deleted_at=None).first() if function else None
    if function is None or customer is None:
        return
    try:
        subscriber = function(customer)
        if subscriber is not None:
            linking.link(subscriber, customer.stripe_id, livemode=customer.livemode)
    except (AlreadyLinked, CustomerDeleted) as error:  # somebody else was quicker
        logger.info("Not linked: %s", error)
    except Exception:  # the site's code may raise anything, and what was fetched stands
        logger.exception("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER failed for %s.", customer.stripe_id)


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
