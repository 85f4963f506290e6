"""What the page of a customer says, in the same few queries for everybody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model, Q, Subquery
from django.utils import timezone

from entitlements_app import budget, conf
from entitlements_app.explain import read_catalogue
from entitlements_app.in_force import DENY, combine
from entitlements_app.models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Product,
    ProductFeature,
    WebhookEvent,
)
from entitlements_app.transactions import alias, primary

LAST_CHANGES = 25
LAST_EVENTS = 15


@dataclass(frozen=True)
class Holding:
    """An active entitlement, and the products that its feature is attached to. Stripe does not tell which it was."""

    entitlement: ActiveEntitlement
    products: tuple[Product, ...]


@dataclass(frozen=True)
class KeyAnswer:
    """Whether the subscriber is entitled to a key, and whatever says so, denies it or will."""

    key: str
    entitled: bool
    holdings: tuple[Holding, ...]
    overrides_in_force: tuple[EntitlementOverride, ...]
    overrides_to_come: tuple[EntitlementOverride, ...]

    @property
    def is_denied(self) -> bool:
        return any(row.effect == DENY for row in self.overrides_in_force)

    @property
    def has_overrides(self) -> bool:
        return bool(self.overrides_in_force or self.overrides_to_come)


@dataclass(frozen=True, kw_only=True)
class CustomerFacts:
    """A customer, its subscriber's whole answer in the configured mode, and what happened last.

    `counts`: what it holds counts for its subscriber. `only_here`: what the subscriber would lose without it.
    """

    customer: Customer
    others: tuple[Customer, ...]
    livemode: bool
    now: datetime
    counts: bool
    answer: tuple[KeyAnswer, ...]
    holdings: tuple[Holding, ...]
    only_here: tuple[str, ...]
    changes: tuple[EntitlementChange, ...]
    events: tuple[WebhookEvent, ...]
    known_keys: tuple[str, ...]
    has_api_key: bool
    calls_stopped: str

    @property
    def subscriber(self) -> Model | None:
        return self.customer.subscriber

    @property
    def is_own(self) -> bool:
        """Whether it is of the site's own account and the configured mode, which alone Stripe is asked about."""
        return is_own(self.customer)

    @property
    def is_due(self) -> bool:
        return self.customer.next_fetch_at is not None and self.customer.next_fetch_at <= self.now


def is_own(customer: Customer) -> bool:
    return not customer.account and customer.livemode is conf.livemode()


def read(pk: Any) -> CustomerFacts:
    """From the database that is written to. Raises `Customer.DoesNotExist`."""
    now, mode = timezone.now(), conf.livemode()
    customer, others = _customers(pk)
    holdings = _holdings([customer, *others])
    overrides = _overrides(customer.subscriber_id, now)
    counting = [row for row in holdings if _counts(row.entitlement.customer)]
    is_asked = is_own(customer) and customer.deleted_at is None
    return CustomerFacts(
        customer=customer,
        others=tuple(others),
        livemode=mode,
        now=now,
        counts=_counts(customer) and customer.subscriber_id is not None,
        answer=_answer(counting, overrides, now) if customer.subscriber_id is not None else (),
        holdings=tuple(row for row in holdings if row.entitlement.customer_id == customer.pk),
        only_here=_only_of(customer, counting, overrides, now),
        changes=_changes(customer),
        events=_events(customer),
        known_keys=tuple(read_catalogue()),
        has_api_key=conf.stripe_api_key() is not None,
        calls_stopped=budget.stopped_reason() if is_asked else "",
    )


def _counts(customer: Customer) -> bool:
    return is_own(customer) and customer.deleted_at is None


def _customers(pk: Any) -> tuple[Customer, list[Customer]]:
    """This one, and the others of its subscriber."""
    rows = primary(Customer)
    whose = Subquery(rows.filter(pk=pk).values("subscriber_id")[:1])
    found = list(rows.filter(Q(pk=pk) | Q(subscriber_id=whose)).select_related("subscriber").order_by("pk"))
    this = [row for row in found if row.pk == pk]
    if not this:
        raise Customer.DoesNotExist(pk)
    return this[0], [row for row in found if row.pk != pk]


def _holdings(customers: Sequence[Customer]) -> list[Holding]:
    by_pk = {row.pk: row for row in customers}
    rows = primary(ActiveEntitlement).filter(customer__in=by_pk).select_related("feature")
    entitlements = list(rows.order_by("lookup_key", "customer", "pk"))
    for row in entitlements:
        row.customer = by_pk[row.customer_id]
    products = _products({row.feature_id for row in entitlements})
    return [Holding(row, tuple(products[row.feature_id])) for row in entitlements]


def _products(features: Iterable[int]) -> defaultdict[int, list[Product]]:
    rows = primary(ProductFeature).filter(feature__in=features).select_related("product")
    products: defaultdict[int, list[Product]] = defaultdict(list)
    for row in rows.order_by("product__name", "pk"):
        products[row.feature_id].append(row.product)
    return products


def _overrides(subscriber_id: Any, now: datetime) -> list[EntitlementOverride]:
    """Those that count or will, denials first."""
    if subscriber_id is None:
        return []
    rows = EntitlementOverride.objects.using(alias()).not_over(now).in_mode(conf.livemode())
    return list(rows.filter(subscriber_id=subscriber_id).select_related("author").order_by("effect", "starts_at", "pk"))


def _answer(
    holdings: Sequence[Holding], overrides: Sequence[EntitlementOverride], now: datetime
) -> tuple[KeyAnswer, ...]:
    held = _keys(holdings)
    entitled, _ = combine(held, [row.period for row in overrides], now=now)

    def about(key: str) -> KeyAnswer:
        of_key = [row for row in overrides if row.lookup_key == key]
        return KeyAnswer(
            key=key,
            entitled=key in entitled,
            holdings=tuple(row for row in holdings if row.entitlement.lookup_key == key),
            overrides_in_force=tuple(row for row in of_key if row.period.is_in_force(now)),
            overrides_to_come=tuple(row for row in of_key if not row.period.is_in_force(now)),
        )

    return tuple(map(about, sorted(held | {row.lookup_key for row in overrides})))


def _only_of(
    customer: Customer, holdings: Sequence[Holding], overrides: Sequence[EntitlementOverride], now: datetime
) -> tuple[str, ...]:
    periods = [row.period for row in overrides]
    elsewhere = _keys([row for row in holdings if row.entitlement.customer_id != customer.pk])
    with_it, _ = combine(_keys(holdings), periods, now=now)
    without, _ = combine(elsewhere, periods, now=now)
    return tuple(sorted(with_it - without))


def _keys(holdings: Iterable[Holding]) -> set[str]:
    return {row.entitlement.lookup_key for row in holdings}


def _changes(customer: Customer) -> tuple[EntitlementChange, ...]:
    """Of this customer whoever had it, and of its subscriber; the last one first."""
    whose = Q(customer=customer.pk)
    if customer.subscriber_id is not None:
        whose |= Q(subscriber_id=customer.subscriber_id)
    rows = primary(EntitlementChange).filter(whose, livemode=customer.livemode)
    return tuple(rows.select_related("customer", "subscriber").order_by("-pk")[:LAST_CHANGES])


def _events(customer: Customer) -> tuple[WebhookEvent, ...]:
    rows = primary(WebhookEvent).filter(
        customer_stripe_id=customer.stripe_id, account=customer.account, livemode=customer.livemode
    )
    return tuple(rows.defer("payload").order_by("-pk")[:LAST_EVENTS])
