"""Bridge the gaps: grant what Stripe owes until Stripe does, and end the bridges of those who are owed it no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model
from django.utils import timezone

from . import bridges, conf, overrides, stripe_reads, subscription_reads
from .budget import Allowance
from .gap_store import BATCH, Gap, GapStore
from .gaps import ANY, Owing, Scan, owed_keys
from .in_force import DENY
from .models import Customer, EntitlementOverride, EntitlementOverrideQuerySet
from .overrides import Bridging
from .stripe_client import NoSuchObject
from .subscription_reads import LIVE
from .transactions import alias, own, primary


@dataclass(frozen=True)
class Planned:
    """A bridge that is to be made, or moved from `until_now`. `denied`: an override wins over it."""

    gap: Gap
    subscriber: Model
    until_now: datetime | None
    denied: bool


@dataclass
class Outlook:
    """What becomes of the gaps that were found. A subscriber has one bridge for a key, however many gaps it closes.

    `held`: another customer of the subscriber holds the key. `unlinked`: the customer is nobody's, so there is nobody
    to grant it to. `standing` bridges have the end that is wanted.
    """

    made: int = 0
    moved: int = 0
    standing: int = 0
    held: int = 0
    unlinked: int = 0

    @property
    def to_write(self) -> int:
        return self.made + self.moved


def plan(store: GapStore, *, until: datetime, outlook: Outlook) -> Iterator[Planned]:
    """The bridges to write, as things stand, each once. What needs none is counted in the outlook."""
    store.forget_plans()
    for gaps in store.batches():
        customers = {row.pk: row for row in _customers(gaps)}
        standing, denied = _overrides({row.subscriber_id for row in customers.values()})
        for gap in gaps:
            customer = customers.get(gap.customer_pk)
            if customer is None or customer.subscriber is None:
                outlook.unlinked += 1
            elif gap.holder:
                outlook.held += 1
            elif store.plan(customer.subscriber_id, gap.lookup_key):
                about = (customer.subscriber_id, gap.lookup_key)
                planned = Planned(gap, customer.subscriber, standing.get(about), about in denied)
                if planned.until_now == until:
                    outlook.standing += 1
                    continue
                outlook.made += planned.until_now is None
                outlook.moved += planned.until_now is not None
                yield planned


def count_bridged(store: GapStore) -> int:
    """Over how many of the gaps a bridge stands."""
    bridged = 0
    for gaps in store.batches():
        subscribers = {row.pk: row.subscriber_id for row in _customers(gaps)}
        standing, _ = _overrides(set(subscribers.values()))
        bridged += sum((subscribers.get(gap.customer_pk), gap.lookup_key) in standing for gap in gaps)
    return bridged


def write(planned: Planned, *, until: datetime, reason: str) -> Bridging:
    """Make or move the bridge, unless Stripe has granted the key meanwhile. In a transaction of its own."""
    return overrides.bridge(planned.subscriber, planned.gap.lookup_key, until=until, reason=reason)


def is_owed(subscriber_id: Any, lookup_key: str, owing: Owing, allowance: Allowance) -> bool | None:
    """Whether a live subscription of the subscriber's customers asks for the key now; `None` if nobody can tell.

    Stripe is asked about each of the customers. Raises what a call raises.
    """
    keys = _owed_to(subscriber_id, owing, allowance)
    return True if lookup_key in keys else None if ANY in keys else False


def _customers(gaps: Sequence[Gap]) -> list[Customer]:
    rows = primary(Customer).filter(pk__in={gap.customer_pk for gap in gaps}, deleted_at=None)
    return list(rows.select_related("subscriber"))


def _overrides(subscriber_ids: set[Any]) -> tuple[dict[tuple[Any, str], datetime], set[tuple[Any, str]]]:
    """Until when bridges stand, and which keys are denied."""
    rows = EntitlementOverride.objects.using(alias()).not_over(timezone.now())
    standing, denied = {}, set()
    for row in rows.filter(subscriber_id__in=subscriber_ids - {None}).order_by("-expires_at"):
        about = (row.subscriber_id, row.lookup_key)
        if row.effect == DENY and row.starts_at <= timezone.now():
            denied.add(about)
        elif row.bridge_livemode is conf.livemode() and row.expires_at is not None:
            standing[about] = row.expires_at
    return standing, denied


# Those that nobody is owed any more


def find_gone(scan: Scan, owing: Owing, allowance: Allowance, *, began: datetime) -> int:
    """Mark, in the scan's store, the bridges that no live subscription of their subscriber asks for. Returns how many.

    Only after a scan of all subscriptions. Stripe is asked about each of these subscribers' customers by itself: a list
    of all leaves out those of test clocks, and while it was read one may have moved. Raises what a call raises.
    """
    if not scan.is_whole:
        raise ValueError("Only a scan of all subscriptions tells that one is missing.")
    attached = {row.lookup_key for rows in owing.values() for row in rows} | ({ANY} if scan.unread else set())
    found = last = 0
    while rows := list(_made_before(began).filter(pk__gt=last).order_by("pk")[:BATCH]):
        last = rows[-1].pk
        candidates = scan.store.not_kept(row.pk for row in rows)
        owed: dict[Any, set[str]] = {}
        for row in rows:
            if row.pk not in candidates:
                continue
            # What no product has, nobody is owed, so Stripe is not asked.
            if {row.lookup_key, ANY} & attached and row.subscriber_id not in owed:
                owed[row.subscriber_id] = _owed_to(row.subscriber_id, owing, allowance)
            if not {row.lookup_key, ANY} & owed.get(row.subscriber_id, set()):
                scan.store.mark_gone(row.pk)
                found += 1
    return found


def _made_before(moment: datetime) -> EntitlementOverrideQuerySet:
    return bridges.standing(livemode=conf.livemode()).filter(created_at__lt=moment)


def _owed_to(subscriber_id: Any, owing: Owing, allowance: Allowance) -> set[str]:
    """The keys that live subscriptions of the subscriber's customers ask for.

    `ANY` if Stripe does not know one of these: that is no cancellation, and perhaps the API key is another account's.
    """
    keys: set[str] = set()
    customers = own(Customer).filter(subscriber_id=subscriber_id)
    for stripe_id in customers.filter(deleted_at=None).values_list("stripe_id", flat=True):
        with suppress(NoSuchObject):
            read = 0
            for batch in subscription_reads.iter_subscriptions(allowance, customer=stripe_id):
                keys |= {key for row in batch.subscriptions if row.status in LIVE for key in owed_keys(row, owing)}
                read += len(batch.subscriptions)
            if read:
                continue
        keys |= set() if _is_known(stripe_id, allowance) else {ANY}
    return keys


def _is_known(stripe_id: str, allowance: Allowance) -> bool:
    try:
        stripe_reads.retrieve_customer(stripe_id, allowance)
    except NoSuchObject:
        return False
    return True


def read_gone(store: GapStore) -> Iterator[EntitlementOverride]:
    """The bridges that are to be ended, with their subscribers."""
    for pk in store.gone():
        yield from bridges.standing(livemode=conf.livemode()).filter(pk=pk).select_related("subscriber")


def end(bridge: EntitlementOverride) -> bool:
    """End it now. Whether it was not over already."""
    try:
        overrides.end(bridge)
    except ValueError:
        return False
    return True


def get_reason(gap: Gap, product_name: str) -> str:
    """For who asks later why there is this bridge."""
    product = f"{product_name} ({gap.product})" if product_name else gap.product
    return f"Owed by Stripe: {gap.subscription} is a subscription to {product}."
