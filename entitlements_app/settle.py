"""Make our rows equal to what fetches were told, and plan the next ones. Many answers are applied together.

An answer whose customer moved on while Stripe was asked is dropped: `version` tells.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from . import conf, drift, fetches, linking, mirror, runs, transactions, windows
from .budget import Allowance
from .changes import Cause
from .diff import Difference, difference
from .drift import Drift, Finding
from .exceptions import AlreadyLinked, CustomerDeleted
from .fetches import Answered, Deleted, Fetch, Known, Told, Unknown
from .mirror import Holding
from .models import ActiveEntitlement, Customer
from .stripe_objects import CustomerDetails
from .transactions import primary

logger = logging.getLogger(__name__)


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


def run(fetch: Fetch, allowance: Allowance) -> Synced:
    """Ask Stripe, within the allowance, and apply the answer unless the customer moved on meanwhile.

    Raises what `fetches.ask` raises, and `RuntimeError` inside an atomic block. After an error a claimed customer has
    its time back; one that was asked about in vain waits, longer each time, so that others come before it.
    """
    transactions.refuse_open_transaction("Fetching a customer's entitlements")
    before = allowance.calls
    try:
        [synced] = apply([(fetch, fetches.ask(fetch, allowance))])
    except Exception as error:  # of whatever kind: the claim is given back
        fetches.give_back(fetch, error)
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
        return Holding(customer, told.listing.rows, Cause.FETCH, confirmed_at=now, edits=self.fetch.edits)

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
