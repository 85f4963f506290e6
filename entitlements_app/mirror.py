"""The only writer of customers and active entitlements, and of features as these tell of them: lock, decide, `save`.

One write is one transaction of the caller's: lock the customers in the order of their keys, say on the locked rows what
is to change (`hint`, `delete`, `Holding`), then `save`, which writes, logs and announces it all. For however many
customers, the number of queries is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import BigIntegerField, Exists, F, Func, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from . import bridges
from .changes import Announced, Cause, Move
from .diff import Difference, difference
from .models import ActiveEntitlement, Customer, EntitlementChange, Feature
from .stripe_objects import CustomerDetails, FeatureDetails, Grant
from .transactions import alias, lock_no_key, lock_or_skip, primary, rewrite
from .windows import LEASE, hinted

Drift = EntitlementChange.Drift
# What is found to change, by customer and key, before the customers are written: why nobody had told of it, if so.
Found = Callable[[Mapping[int, Difference]], Mapping[int, Mapping[str, Drift]]]

_SCHEDULE_FIELDS = ["hinted_at", "urgent", "next_fetch_at", "fetch_failures", "claim"]
_CUSTOMER_FIELDS = [
    *_SCHEDULE_FIELDS,
    "version",
    "window_from",
    "window_to",
    "fetched_at",
    "missing_since",
    "deleted_at",
]


@dataclass(frozen=True)
class Holding:
    """What a customer is to hold from now on, and why.

    `confirmed_at` is set for what a fetch says. `confirmed_stay` keeps, besides, what a fetch once confirmed. `edits`:
    of features, as `asked_about` counted them before Stripe was asked.
    """

    customer: Customer
    grants: Sequence[Grant]
    cause: Cause
    confirmed_at: datetime | None = None
    confirmed_stay: bool = False
    edits: int | None = None


def lock(pks: Collection[int]) -> dict[int, Customer]:
    """Lock these customers, those whose row is still there."""
    rows = primary(Customer).filter(pk__in=pks).order_by("pk")
    return {customer.pk: customer for customer in rows.select_for_update()}


def lock_by_stripe_id(stripe_ids: Collection[str], *, account: str = "", livemode: bool) -> dict[str, Customer]:
    """Lock customers, making rows for those not seen before, which are then to be fetched at once."""
    rows = primary(Customer).filter(stripe_id__in=stripe_ids, account=account, livemode=livemode)
    missing = sorted(set(stripe_ids) - set(rows.values_list("stripe_id", flat=True)))
    if missing:
        new = [Customer(stripe_id=stripe_id, account=account, livemode=livemode) for stripe_id in missing]
        primary(Customer).bulk_create(new, ignore_conflicts=True)
    return {customer.stripe_id: customer for customer in rows.order_by("pk").select_for_update()}


def asked_about() -> QuerySet[Customer]:
    """Customers, with `holds`: whether we hold anything for them; and `edits`: how often features were changed here."""
    total = Coalesce(Func(F("version"), function="SUM", output_field=BigIntegerField()), 0)  # in one row, of all
    return primary(Customer).annotate(
        holds=Exists(ActiveEntitlement.objects.filter(customer=OuterRef("pk"))),
        edits=Subquery(Feature.objects.annotate(total=total).values("total")),
    )


def claim_wave(*, livemode: bool, claim: str, now: datetime, limit: int) -> list[Customer]:
    """Take the customers that are first in the order of work away from everybody else, for LEASE.

    Returns them as they were before (`asked_about`), at most `limit`. Those that another transaction holds are left
    out.
    """
    due = primary(Customer).filter(account="", livemode=livemode, next_fetch_at__lte=now).order_by("next_fetch_at")
    pks = _locked(due.filter(urgent=True)[:limit])
    if len(pks) < limit:
        pks += _locked(due.filter(urgent=False)[: limit - len(pks)])
    if not pks:
        return []
    wave = list(asked_about().filter(pk__in=pks).order_by("-urgent", "next_fetch_at"))  # read when they are locked
    primary(Customer).filter(pk__in=pks).update(next_fetch_at=now + LEASE, claim=claim)
    return wave


def _locked(rows: QuerySet[Customer]) -> list[int]:
    return list(lock_or_skip(rows).values_list("pk", flat=True))


def claim_one(pk: int, *, claim: str, now: datetime, unless_fetched_since: datetime) -> Customer | None:
    """Take one customer away from everybody else, for LEASE, due or not: somebody has reason to expect news.

    Returns it as it was, but marked. `None` if it was fetched since then, is deleted, or has been claimed and its time
    is not over: then it is being fetched, or waits after a fetch that failed.
    """
    customer = asked_about().filter(pk__in=_locked(primary(Customer).filter(pk=pk, deleted_at=None))).first()
    if customer is None or (customer.fetched_at is not None and customer.fetched_at >= unless_fetched_since):
        return None
    if customer.claim and customer.next_fetch_at is not None and customer.next_fetch_at > now:
        return None
    hint(customer, now=now, urgent=False)
    primary(Customer).filter(pk=pk).update(hinted_at=customer.hinted_at, next_fetch_at=now + LEASE, claim=claim)
    return customer


def save_schedule(customer: Customer) -> None:
    """Write a locked customer's schedule only."""
    customer.save(using=alias(), update_fields=_SCHEDULE_FIELDS)


def save_details(details: Mapping[Customer, CustomerDetails]) -> None:
    """Write who these locked customers are, as Stripe says."""
    for customer, told in details.items():
        customer.email, customer.name, customer.metadata = told.email, told.name, told.metadata
    rewrite(Customer, list(details), ["email", "name", "metadata"])


def hint(customer: Customer, *, now: datetime, urgent: bool) -> None:
    """Mark for a fetch. A deleted customer stays as it is."""
    if customer.deleted_at is None:
        customer.schedule = hinted(customer.schedule, now=now, urgent=urgent)


def delete(customer: Customer, *, now: datetime, cause: Cause) -> Holding:
    """Deletion is final and needs no order: whatever is still on its way about this customer no longer counts."""
    customer.deleted_at = now
    customer.hinted_at = customer.next_fetch_at = None
    customer.urgent = False
    return Holding(customer, (), cause)


def save(
    customers: Sequence[Customer], holdings: Sequence[Holding], *, found: Found | None = None
) -> dict[int, Difference]:
    """Write locked customers of one account and mode, what they hold, and the change log.

    Returns the lookup keys that each customer in `holdings` gained and lost, by primary key. Each one's `version`
    rises, changed or not. `found` is called when these keys are known, before the customers are written.
    """
    if not holdings:
        rewrite(Customer, customers, _CUSTOMER_FIELDS)
        return {}
    own = customers[0].account == ""
    subscribers = {holding.customer.subscriber_id for holding in holdings} if own else set()
    announced = Announced.lock(subscribers, livemode=customers[0].livemode)
    keys = _hold(holdings)
    if own:
        gained = [(holding.customer.subscriber_id, keys[holding.customer.pk].gained) for holding in holdings]
        bridges.end_granted(gained, livemode=customers[0].livemode)
    drift = found(keys) if found else {}
    for holding in holdings:
        holding.customer.version += 1
    rewrite(Customer, customers, _CUSTOMER_FIELDS)
    if own:
        _end_ownerless_bridges(holding.customer for holding in holdings if holding.customer.deleted_at is not None)
    moves = [
        Move(
            holding.customer,
            holding.customer.subscriber_id,
            keys[holding.customer.pk],
            holding.cause,
            drift.get(holding.customer.pk, {}),
        )
        for holding in sorted(holdings, key=lambda holding: holding.customer.pk)
    ]
    announced.record(moves, cause=holdings[0].cause)
    return keys


def relink(subscribers: Mapping[Customer, Any], *, now: datetime, urgent: bool = True) -> None:
    """Give each of these locked customers, of one account and mode, to its subscriber, or all to none; say what moves.

    Those who get one are marked for a fetch.
    """
    customers = sorted(subscribers, key=lambda customer: customer.pk)
    own, livemode = customers[0].account == "", customers[0].livemode
    before = {customer.pk: customer.subscriber_id for customer in customers}
    announced = Announced.lock({*before.values(), *subscribers.values()} if own else set(), livemode=livemode)
    for customer in customers:
        customer.subscriber_id = subscribers[customer]
        if customer.subscriber_id is not None:
            hint(customer, now=now, urgent=urgent)
    rewrite(Customer, customers, ["subscriber", *_SCHEDULE_FIELDS])
    held: defaultdict[int, set[str]] = defaultdict(set)
    rows = primary(ActiveEntitlement).filter(customer__in=customers)
    for pk, key in rows.values_list("customer_id", "lookup_key"):
        held[pk].add(key)
    if own:
        bridges.end_granted([(row.subscriber_id, held[row.pk]) for row in customers], livemode=livemode)
        left = {before[row.pk] for row in customers if before[row.pk] not in (None, row.subscriber_id)}
        if left:
            bridges.end_ownerless(left, livemode=livemode)
    moves = []
    for customer in customers:
        keys = frozenset(held[customer.pk])
        lost, gained = Difference(frozenset(), keys), Difference(keys, frozenset())
        moves += [
            Move(customer, before[customer.pk], lost, Cause.UNLINK),
            Move(customer, customer.subscriber_id, gained, Cause.LINK),
        ]
    is_link = any(customer.subscriber_id is not None for customer in customers)
    announced.record(moves, cause=Cause.LINK if is_link else Cause.UNLINK)


def _end_ownerless_bridges(deleted: Iterable[Customer]) -> None:
    """Of the subscribers of customers that were deleted just now."""
    customers = [customer for customer in deleted if customer.subscriber_id is not None]
    if customers:
        bridges.end_ownerless({row.subscriber_id for row in customers}, livemode=customers[0].livemode)


def _hold(holdings: Sequence[Holding]) -> dict[int, Difference]:
    """Insert, update and delete active entitlements, by feature: the ids of kept grants change."""
    customers = [holding.customer for holding in holdings]
    features = _features(holdings)
    held = _held(customers)
    new: list[ActiveEntitlement] = []
    stale: list[ActiveEntitlement] = []
    gone: list[int] = []
    keys: dict[int, Difference] = {}
    for holding in holdings:
        rows = held[holding.customer.pk]
        before = {row.lookup_key for row in rows.values()}
        wanted = {features[grant.feature_id]: grant for grant in holding.grants}
        kept = {pk for pk, row in rows.items() if holding.confirmed_stay and row.confirmed_at is not None}
        gone += [row.pk for pk, row in rows.items() if pk not in wanted and pk not in kept]
        for pk, grant in wanted.items():
            row = rows.get(pk)
            confirmed_at = (row and row.confirmed_at) or holding.confirmed_at
            said = (grant.entitlement_id, grant.lookup_key, confirmed_at)
            if row is None:
                new.append(_entitlement(None, holding.customer, pk, *said))
            elif row[1:] != said:
                stale.append(_entitlement(row.pk, holding.customer, pk, *said))
        after = {grant.lookup_key for grant in wanted.values()} | {rows[pk].lookup_key for pk in kept}
        keys[holding.customer.pk] = difference(before, after)
    if gone:
        primary(ActiveEntitlement).filter(pk__in=gone).delete()
    rewrite(ActiveEntitlement, stale, ["stripe_id", "lookup_key", "confirmed_at"])
    primary(ActiveEntitlement).bulk_create(new)
    return keys


class _Held(NamedTuple):
    """What a row of an active entitlement says, beside whose it is."""

    pk: int
    stripe_id: str
    lookup_key: str
    confirmed_at: datetime | None


def _entitlement(
    pk: int | None, customer: Customer, feature_id: int, stripe_id: str, lookup_key: str, confirmed_at: datetime | None
) -> ActiveEntitlement:
    return ActiveEntitlement(
        pk=pk,
        customer=customer,
        feature_id=feature_id,
        stripe_id=stripe_id,
        lookup_key=lookup_key,
        confirmed_at=confirmed_at,
    )


def _held(customers: Sequence[Customer]) -> dict[int, dict[int, _Held]]:
    """By customer and feature. Tuples: most of these rows are only compared."""
    held: dict[int, dict[int, _Held]] = {customer.pk: {} for customer in customers}
    rows = primary(ActiveEntitlement).filter(customer__in=customers)
    for customer_id, feature_id, *said in rows.values_list("customer_id", "feature_id", *_Held._fields):
        held[customer_id][feature_id] = _Held(*said)
    return held


def _features(holdings: Sequence[Holding]) -> dict[str, int]:
    """Keys of features by Stripe id. Unknown ones become placeholders until a fetch says more of them."""
    lookup_keys = {grant.feature_id: grant.lookup_key for holding in holdings for grant in holding.grants}
    if not lookup_keys:
        return {}
    owner = holdings[0].customer
    rows = primary(Feature).filter(stripe_id__in=lookup_keys, account=owner.account, livemode=owner.livemode)
    known = _known_features(rows, lookup_keys, owner)
    _save_feature_details(rows, holdings)
    return known


def _save_feature_details(rows: QuerySet[Feature], holdings: Sequence[Holding]) -> None:
    """Write what a fetch said of features, where that is news.

    Not of one that is changed from here, if any was since Stripe was asked: that may be older than our change.
    """
    asked = {grant.feature_id: (grant.feature, each.edits) for each in holdings for grant in each.grants}
    told = {stripe_id: details for stripe_id, (details, _) in asked.items() if details is not None}
    if not told:
        return
    held = {row.stripe_id: FeatureDetails(row.name, row.active, row.metadata) for row in rows}
    stale = [stripe_id for stripe_id, details in told.items() if held[stripe_id] != details]
    if stale:
        locked = list(lock_no_key(rows.filter(stripe_id__in=stale).order_by("stripe_id")))
        edits = primary(Feature).aggregate(total=Sum("version"))["total"]
        features = [row for row in locked if row.version == 0 or asked[row.stripe_id][1] in (None, edits)]
        for row in features:
            row.name, row.active, row.metadata = astuple(told[row.stripe_id])
        rewrite(Feature, features, ["name", "active", "metadata"])


def _known_features(rows: QuerySet[Feature], lookup_keys: dict[str, str], owner: Customer) -> dict[str, int]:
    known = dict(rows.values_list("stripe_id", "pk"))
    missing = sorted(lookup_keys.keys() - known.keys())
    if not missing:
        return known
    new = [
        Feature(
            stripe_id=stripe_id,
            account=owner.account,
            livemode=owner.livemode,
            lookup_key=lookup_keys[stripe_id],
        )
        for stripe_id in missing
    ]
    primary(Feature).bulk_create(new, ignore_conflicts=True)
    return dict(rows.values_list("stripe_id", "pk"))
