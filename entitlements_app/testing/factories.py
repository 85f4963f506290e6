"""Rows for tests, made with factory_boy, as the app itself would have made them.

What these factories write is logged, announced and ends cached answers, as a fetch or a call of `overrides` does; so
the next event of a customer finds its change log in order. Rows are of the configured mode unless told otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from django.db.models import Model, QuerySet
from django.utils import timezone

from entitlements_app import conf, mirror, overrides, transactions
from entitlements_app.changes import Cause
from entitlements_app.in_force import DENY, GRANT
from entitlements_app.lookup_keys import check_key
from entitlements_app.mirror import Holding
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementOverride, Feature, WebhookEvent
from entitlements_app.stripe_objects import SUMMARY_UPDATED, Grant, Summary
from entitlements_app.subscribers import subscriber_key
from entitlements_app.transactions import primary

from .webhook_client import feature_id

try:
    from factory.declarations import LazyAttribute, LazyFunction, SelfAttribute, Sequence, SubFactory, Trait
    from factory.django import DjangoModelFactory
except ImportError as error:
    raise ImportError(
        "The factories of entitlements_app.testing need factory_boy: pip install 'django-stripe-entitlements[testing]'",
        name=error.name,
    ) from error

_M = TypeVar("_M", bound=Model)

PRO = ("premium_support", "api_access")
_TEN = tuple(f"feature_{number}" for number in range(1, 11))  # as many as Stripe lists in an event


def _ago(**span: float) -> LazyFunction:
    return LazyFunction(lambda: timezone.now() - timedelta(**span))


class _RowFactory(DjangoModelFactory[_M]):
    class Meta:
        abstract = True

    @classmethod
    def _get_manager(cls, model_class: type[_M]) -> QuerySet[_M]:
        return primary(model_class)


class FeatureFactory(_RowFactory[Feature]):
    """A feature of the catalogue. `archived=True`: no longer sold, and still granted to who holds it."""

    class Meta:
        model = Feature

    class Params:
        archived = Trait(active=False, stripe_id=LazyAttribute(lambda row: f"{feature_id(row.lookup_key)}_archived"))

    stripe_id = LazyAttribute(lambda row: feature_id(row.lookup_key))
    livemode = LazyFunction(conf.livemode)
    lookup_key = Sequence(lambda number: f"feature_{number}")
    name = LazyAttribute(lambda row: row.lookup_key.replace("_", " ").capitalize())


class CustomerFactory(_RowFactory[Customer]):
    """A customer as a fetch left it an hour ago: known, settled, and due again in its time.

    `subscriber=ada` links it. It holds the features of `keys`, none by default; `pro=True` holds `PRO`. `lapsed=True`
    held them, and lost them. Features that are not in the catalogue are made.
    """

    class Meta:
        model = Customer

    class Params:
        settled_at = _ago(hours=1)
        pro = Trait(keys=PRO)
        lapsed = Trait(keys=PRO, loses_keys=True)

    stripe_id = Sequence(lambda number: f"cus_test_{number}")
    livemode = LazyFunction(conf.livemode)
    subscriber = None
    email = LazyAttribute(lambda row: f"{row.stripe_id}@example.com")
    name = LazyAttribute(lambda row: f"Customer {row.stripe_id}")
    window_from = LazyAttribute(lambda row: int(row.settled_at.timestamp()))
    window_to = SelfAttribute("window_from")
    fetched_at = SelfAttribute("settled_at")
    next_fetch_at = LazyAttribute(lambda row: row.settled_at + conf.confirm_every())
    created_at = SelfAttribute("settled_at")
    keys: Iterable[str] = ()
    loses_keys = False

    @classmethod
    def _build(cls, model_class: type[Customer], **fields: Any) -> Customer:
        for held in ("keys", "loses_keys"):
            del fields[held]
        build: Callable[..., Customer] = super()._build
        return build(model_class, **fields)

    @classmethod
    def _create(cls, model_class: type[Customer], *, keys: Iterable[str], loses_keys: bool, **fields: Any) -> Customer:
        create: Callable[..., Customer] = super()._create
        lookup_keys = _checked(keys)

        def work() -> Customer:
            customer = create(model_class, **fields)
            grants = [_grant(_feature(key, customer)) for key in lookup_keys]
            for holds in (grants, []) if loses_keys else (grants,):
                mirror.save([customer], [Holding(customer, holds, Cause.FETCH, confirmed_at=customer.fetched_at)])
            return customer

        return transactions.write(work)


class ActiveEntitlementFactory(_RowFactory[ActiveEntitlement]):
    """One feature more that a customer holds: that of `lookup_key`, or `feature`.

    Confirmed by a fetch, unless `confirmed_at=None`: then only an event has said so.
    """

    class Meta:
        model = ActiveEntitlement

    customer = SubFactory(CustomerFactory)
    feature = None
    stripe_id = Sequence(lambda number: f"ent_test_{number}")
    lookup_key = LazyAttribute(lambda row: row.feature.lookup_key if row.feature else PRO[0])
    created_at = LazyFunction(timezone.now)
    confirmed_at = LazyFunction(timezone.now)

    @classmethod
    def _create(
        cls,
        model_class: type[ActiveEntitlement],
        *,
        customer: Customer,
        feature: Feature | None,
        stripe_id: str,
        lookup_key: str,
        created_at: datetime,
        confirmed_at: datetime | None,
    ) -> ActiveEntitlement:
        cause = Cause.EVENT if confirmed_at is None else Cause.FETCH

        def work() -> ActiveEntitlement:
            of = feature or _feature(lookup_key, customer)
            locked = primary(Customer).select_for_update().get(pk=customer.pk)
            held = primary(model_class).filter(customer=customer)
            grants = [
                Grant(row.stripe_id, row.feature.stripe_id, row.lookup_key) for row in held.select_related("feature")
            ]
            grants.append(Grant(stripe_id, of.stripe_id, lookup_key))
            mirror.save([locked], [Holding(locked, grants, cause)])
            customer.version = locked.version
            held.filter(feature=of).update(created_at=created_at, confirmed_at=confirmed_at)
            return held.get(feature=of)

        return transactions.write(work)


class EntitlementOverrideFactory(_RowFactory[EntitlementOverride]):
    """A grant by hand, or with `denied=True` a denial, for a `subscriber`, who has to be given.

    In force from now on and for good; `expired=True`: over since yesterday.
    """

    class Meta:
        model = EntitlementOverride

    class Params:
        denied = Trait(effect=DENY)
        expired = Trait(starts_at=_ago(days=30), expires_at=_ago(days=1))

    subscriber = None
    lookup_key = PRO[0]
    effect = GRANT
    starts_at = LazyFunction(timezone.now)
    expires_at = None

    @classmethod
    def _create(
        cls, model_class: type[EntitlementOverride], *, subscriber: Any, lookup_key: str, **fields: Any
    ) -> EntitlementOverride:
        key = subscriber_key(subscriber)
        if key is None:
            raise ValueError("EntitlementOverrideFactory needs subscriber=…, a saved one.")
        create: Callable[..., EntitlementOverride] = super()._create

        def work() -> EntitlementOverride:
            return create(model_class, subscriber=subscriber, lookup_key=lookup_key, **fields)

        return transactions.write(lambda: overrides.announcing(key, lookup_key, work))


class WebhookEventFactory(_RowFactory[WebhookEvent]):
    """An event in the inbox, processed; `pending=True` is due, `failed=True` was given up.

    By default a summary that says that the customer holds `keys`. `truncated=True`: ten of twelve, and `has_more`. The
    row alone: `WebhookClient` delivers events, and changes what they change.
    """

    class Meta:
        model = WebhookEvent
        exclude = ("keys", "has_more")

    class Params:
        truncated = Trait(keys=_TEN, has_more=True)
        pending = Trait(status=WebhookEvent.Status.PENDING, processed_at=None, next_attempt_at=_ago(seconds=1))
        failed = Trait(
            status=WebhookEvent.Status.FAILED, processed_at=None, error="DatabaseError: made by a factory", attempts=8
        )

    stripe_id = Sequence(lambda number: f"evt_test_{number}")
    livemode = LazyFunction(conf.livemode)
    type = SUMMARY_UPDATED
    created = LazyFunction(lambda: int(time.time()))
    sent_at = SelfAttribute("created")
    customer_stripe_id = Sequence(lambda number: f"cus_test_of_event_{number}")
    keys: Iterable[str] = PRO
    has_more = False
    payload = LazyAttribute(lambda row: _payload(row.keys, row.has_more) if row.type == SUMMARY_UPDATED else None)
    status = WebhookEvent.Status.PROCESSED
    processed_at = LazyFunction(timezone.now)


def _checked(keys: Iterable[str]) -> tuple[str, ...]:
    if isinstance(keys, str):
        raise TypeError(f'keys is a list of lookup keys: keys=["{keys}"].')
    return tuple(map(check_key, dict.fromkeys(keys)))


def _feature(key: str, customer: Customer) -> Feature:
    """The feature behind a lookup key, made if the catalogue has none; of several one that is sold."""
    of_customer = {"account": customer.account, "livemode": customer.livemode, "lookup_key": key}
    known = primary(Feature).filter(**of_customer).order_by("-active", "pk").first()
    return known or FeatureFactory.create(**of_customer)


def _grant(feature: Feature) -> Grant:
    return Grant(f"ent_test_{uuid4().hex}", feature.stripe_id, feature.lookup_key)


def _payload(keys: Iterable[str], has_more: bool) -> dict[str, Any]:
    grants = [Grant(f"ent_test_{key}", feature_id(key), key) for key in _checked(keys)]
    return Summary(tuple(grants), complete=not has_more).as_payload()
