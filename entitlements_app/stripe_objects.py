"""Stripe's JSON, read once, into frozen dataclasses. Pure: beyond this module there is no dict of payload.

What does not have the documented shape raises `Malformed` with the place and the reason. Fields that Stripe may add
are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

_Row = TypeVar("_Row")

SUMMARY_UPDATED = "entitlements.active_entitlement_summary.updated"
CUSTOMER_DELETED = "customer.deleted"
SUBSCRIPTION_PREFIX = "customer.subscription."

MAX_TEXT = 255
MAX_EMAIL = 512
MAX_SECONDS = 2**53


class Malformed(ValueError):
    """Not the shape that Stripe documents."""


@dataclass(frozen=True)
class FeatureDetails:
    """What Stripe says of a feature besides its id and its key."""

    name: str
    active: bool
    metadata: dict[str, str]


@dataclass(frozen=True)
class Grant:
    """One active entitlement: this feature is granted, known to code by this lookup key.

    `feature` is set where Stripe was asked to expand it.
    """

    entitlement_id: str
    feature_id: str
    lookup_key: str
    feature: FeatureDetails | None = None


@dataclass(frozen=True)
class Summary:
    """The state that a summary event carries: at most ten grants; `complete` says whether these are all."""

    grants: tuple[Grant, ...]
    complete: bool

    def as_payload(self) -> dict[str, Any]:
        """Stripe's shape, without what an entitlement does not need; `parse_summary` reads it back."""
        data = [
            {"id": grant.entitlement_id, "feature": grant.feature_id, "lookup_key": grant.lookup_key}
            for grant in self.grants
        ]
        return {"entitlements": {"data": data, "has_more": not self.complete}}


@dataclass(frozen=True)
class Event:
    """A webhook event. `problem` says what is wrong with the object that it carries, empty if nothing is."""

    id: str
    type: str
    created: int | None
    livemode: bool
    account: str
    thin: bool = False
    customer: str = ""
    summary: Summary | None = None
    problem: str = ""

    @property
    def handled(self) -> bool:
        """Whether this type of event says something about a customer's entitlements."""
        known = self.type in (SUMMARY_UPDATED, CUSTOMER_DELETED) or self.type.startswith(SUBSCRIPTION_PREFIX)
        return known and not self.thin


@dataclass(frozen=True)
class CustomerDetails:
    """A customer as Stripe retrieves it. Of a deleted one there is nothing else."""

    deleted: bool
    email: str
    name: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class CatalogFeature:
    """A feature as the catalogue has it."""

    id: str
    lookup_key: str
    details: FeatureDetails


@dataclass(frozen=True)
class CatalogProduct:
    """A product as the catalogue has it."""

    id: str
    name: str
    active: bool


@dataclass(frozen=True)
class Attachment:
    """A feature that is attached to the product that was asked about: Stripe's `product_feature`."""

    id: str
    feature: CatalogFeature


@dataclass(frozen=True)
class Subscription:
    """A subscription, and which products it is to. `complete` says whether these are all.

    `created` and `period_end`, when its next period begins, are Stripe's seconds.
    """

    id: str
    customer: str
    status: str
    created: int
    period_end: int | None
    products: frozenset[str]
    complete: bool


@dataclass(frozen=True)
class Page(Generic[_Row]):
    """One page of a list. `unreadable` says what is wrong with the rows that were left out, where they may be."""

    rows: tuple[_Row, ...]
    has_more: bool
    last_id: str
    unreadable: tuple[str, ...] = ()


def parse_event(body: str) -> Event:
    """Read an event's envelope and what it carries.

    Raises `Malformed` if there is no usable envelope. A strange object inside a good envelope does not raise: it is
    told in `problem`, together with whatever could be read.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error
    return _event(data, "the body")


def _event(data: Any, place: str) -> Event:
    envelope = _object(data, place)
    kind = envelope.get("object")
    if kind not in ("event", "v2.core.event"):
        raise Malformed("object: expected an event")
    thin = kind == "v2.core.event"
    event = Event(
        id=_text(envelope, "id"),
        type=_text(envelope, "type"),
        created=None if thin else _seconds(envelope, "created"),
        livemode=_flag(envelope, "livemode"),
        account=_optional_text(envelope, "account") or _optional_text(envelope, "context"),
        thin=thin,
    )
    return _with_object(event, envelope) if event.handled else event


def _with_object(event: Event, envelope: dict[str, Any]) -> Event:
    customer = ""
    try:
        carried = _object(_object(envelope.get("data"), "data").get("object"), "data.object")
        customer = _id_or_object(carried, "id" if event.type == CUSTOMER_DELETED else "customer")
        summary = None
        if event.type == SUMMARY_UPDATED:
            _check_mode(carried, event.livemode)
            summary = parse_summary(carried, livemode=event.livemode)
    except Malformed as error:
        return replace(event, customer=customer, problem=str(error))
    return replace(event, customer=customer, summary=summary)


def parse_summary(carried: Any, *, livemode: bool) -> Summary:
    """Read a summary, from an event or as the inbox stored it."""
    listing = _object(_object(carried, "data.object").get("entitlements"), "entitlements")
    grants = tuple(map(parse_grant, _rows(listing, livemode=livemode)))
    return Summary(grants=grants, complete=not _flag(listing, "has_more"))


def parse_list(data: Any, *, parse: Callable[[dict[str, Any]], _Row], livemode: bool) -> Page[_Row]:
    """Read one page of a list. A row of the other mode makes the whole list unusable."""
    listing = _object(data, "the answer")
    if listing.get("object") != "list":
        raise Malformed("object: expected a list")
    rows = _rows(listing, livemode=livemode)
    return Page(
        rows=tuple(map(parse, rows)),
        has_more=_flag(listing, "has_more"),
        last_id=_text(rows[-1], "id") if rows else "",
    )


def parse_events(data: Any) -> Page[Event]:
    """Read one page of events. One without a usable envelope is left out: no other event has to wait for it."""
    listing = _object(data, "the answer")
    if listing.get("object") != "list" or not isinstance(listing.get("data"), list):
        raise Malformed("object: expected a list")
    events, problems, last_id = [], [], ""
    for row in listing["data"]:
        if isinstance(row, dict) and is_usable_id(row.get("id")):
            last_id = row["id"]
        try:
            events.append(_event(row, "data"))
        except Malformed as error:
            problems.append(str(error))
    return Page(tuple(events), _flag(listing, "has_more"), last_id, unreadable=tuple(problems))


def parse_grant(row: dict[str, Any]) -> Grant:
    """Read an active entitlement."""
    return Grant(
        entitlement_id=_text(row, "id"),
        feature_id=_id_or_object(row, "feature"),
        lookup_key=_text(row, "lookup_key"),
        feature=_feature_details(row["feature"]),
    )


def parse_feature(data: Any, *, livemode: bool) -> CatalogFeature:
    """Read a feature, whole: one without all of its fields is `Malformed`."""
    feature = _object(data, "the feature")
    if feature.get("object") != "entitlements.feature":
        raise Malformed("object: expected a feature")
    _check_mode(feature, livemode)
    details = _feature_details(feature)
    if details is None:
        raise Malformed("feature: expected active, name and metadata")
    return CatalogFeature(id=_text(feature, "id"), lookup_key=_text(feature, "lookup_key"), details=details)


def parse_product(row: dict[str, Any]) -> CatalogProduct:
    """Read a product."""
    if row.get("object") != "product":
        raise Malformed("object: expected a product")
    return CatalogProduct(id=_text(row, "id"), name=_storable(row.get("name"))[:MAX_TEXT], active=_flag(row, "active"))


def parse_product_alone(data: Any, *, livemode: bool) -> CatalogProduct:
    """Read a product that was asked for by itself."""
    product = _object(data, "the product")
    _check_mode(product, livemode)
    return parse_product(product)


def parse_attachment(data: Any, *, livemode: bool) -> Attachment:
    """Read a product feature. Which product has it, only the question tells."""
    row = _object(data, "the product feature")
    feature = parse_feature(row.get("entitlement_feature"), livemode=livemode)
    return Attachment(id=_text(row, "id"), feature=feature)


def parse_subscription(row: dict[str, Any], *, livemode: bool) -> Subscription:
    """Read a subscription with the first of its items."""
    if row.get("object") != "subscription":
        raise Malformed("object: expected a subscription")
    items = _object(row.get("items"), "items")
    rows = _rows(items, livemode=livemode)
    ends = [_seconds(holder, "current_period_end") for holder in (*rows, row) if holder.get("current_period_end")]
    return Subscription(
        id=_text(row, "id"),
        customer=_id_or_object(row, "customer"),
        status=_text(row, "status"),
        created=_seconds(row, "created"),
        period_end=min(ends, default=None),
        products=frozenset(map(parse_item, rows)),
        complete=not _flag(items, "has_more"),
    )


def parse_item(row: dict[str, Any]) -> str:
    """The product that an item of a subscription is of."""
    return _id_or_object(_object(row.get("price"), "price"), "product")


def parse_price(row: dict[str, Any]) -> str:
    """A price's id."""
    if row.get("object") != "price":
        raise Malformed("object: expected a price")
    return _text(row, "id")


def parse_customer(data: Any) -> CustomerDetails:
    """Read a retrieved customer. Details are cut to what fits, and a strange one is passed over."""
    customer = _object(data, "the answer")
    if customer.get("object") != "customer":
        raise Malformed("object: expected a customer")
    metadata = customer.get("metadata")
    return CustomerDetails(
        deleted=customer.get("deleted") is True,
        email=_storable(customer.get("email"))[:MAX_EMAIL],
        name=_storable(customer.get("name"))[:MAX_TEXT],
        metadata=_texts(metadata) if isinstance(metadata, dict) else {},
    )


def _storable(value: Any) -> str:
    """Text that every database can store; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value.replace("\x00", "").encode(errors="replace").decode()


def is_usable_id(value: object) -> bool:
    """Text of 1 to 255 characters that every database can store."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or "\x00" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False
    return True


def _rows(listing: dict[str, Any], *, livemode: bool) -> list[dict[str, Any]]:
    rows = listing.get("data")
    if not isinstance(rows, list):
        raise Malformed("data: expected a list")
    for row in rows:
        _check_mode(_object(row, "data"), livemode)
    return rows


def _feature_details(feature: Any) -> FeatureDetails | None:
    """Some that Stripe sends leave fields out: without all of them nothing is told."""
    if not isinstance(feature, dict) or not isinstance(feature.get("active"), bool):
        return None
    name, metadata = feature.get("name"), feature.get("metadata")
    if not isinstance(name, str) or not isinstance(metadata, dict):
        return None
    return FeatureDetails(_storable(name)[:MAX_TEXT], feature["active"], _texts(metadata))


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    return {_storable(key): _storable(value) for key, value in metadata.items()}


def _check_mode(holder: dict[str, Any], livemode: bool) -> None:
    if holder.get("livemode", livemode) is not livemode:
        raise Malformed("livemode: differs from what was expected")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{place}: expected an object")
    return value


def _text(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not is_usable_id(value):
        raise Malformed(f"{name}: expected a text of 1 to {MAX_TEXT} characters")
    return value


def _optional_text(holder: dict[str, Any], name: str) -> str:
    return "" if holder.get(name) is None else _text(holder, name)


def _id_or_object(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    return _text(value, "id") if isinstance(value, dict) else _text(holder, name)


def _flag(holder: dict[str, Any], name: str) -> bool:
    value = holder.get(name)
    if not isinstance(value, bool):
        raise Malformed(f"{name}: expected true or false")
    return value


def _seconds(holder: dict[str, Any], name: str) -> int:
    value = holder.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SECONDS:
        raise Malformed(f"{name}: expected a time in Unix seconds")
    return value
