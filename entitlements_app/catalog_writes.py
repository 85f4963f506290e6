"""The only writer of products and of what is attached to them: make our catalogue equal to what was read of Stripe's.

Access never follows from it. Features are never deleted, whatever Stripe's lists say: somebody may hold them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import TypeVar

from django.db.models import QuerySet

from . import conf
from .catalog_reads import Catalog
from .models import Feature, Product, ProductFeature
from .stripe_objects import CatalogFeature, FeatureDetails
from .transactions import lock_no_key, primary

_M = TypeVar("_M", Feature, Product, ProductFeature)

_BATCH = 500  # rows an update: what a longer one costs grows faster than it
_DETAILS = ("name", "active", "metadata")


@dataclass(frozen=True)
class Saved:
    """What was written, in lines for people, and how many rows were compared."""

    changes: tuple[str, ...]
    features: int
    products: int
    attachments: int


def save(catalog: Catalog, *, now: datetime, first: bool) -> Saved:
    """Write what was read. The caller owns the transaction.

    Unless it is the first time that a catalogue is read, features remember when they were attached and detached.
    """
    told = dict(catalog.features)
    for attachments in catalog.attachments.values():
        told |= {attachment.feature.id: attachment.feature for attachment in attachments}
    features, changes = _save_features(told)
    before = {row.stripe_id: row for row in _of_mode(Product)}
    # Since when these have had their features nobody knows.
    never_asked = {row.stripe_id for row in before.values() if row.features_read_at is None}
    held = list(_of_mode(ProductFeature).select_related("product", "feature"))
    products, product_changes = _save_products(catalog, before, now=now)
    attached, detached = _save_attachments(catalog, products, features, held)
    _delete_products(catalog)
    if not first:
        news = [row.feature_id for row in attached if row.product.stripe_id not in never_asked]
        primary(Feature).filter(pk__in=news).update(attached_at=now)
        primary(Feature).filter(pk__in=[row.feature_id for row in detached]).update(detached_at=now)
    changes += product_changes
    changes += sorted(f"attached {_named(row)}" for row in attached)
    changes += sorted(f"detached {_named(row)}" for row in detached)
    return Saved(
        changes=tuple(changes),
        features=len(features),
        products=len(products),
        attachments=sum(map(len, catalog.attachments.values())),
    )


def _save_features(told: Mapping[str, CatalogFeature]) -> tuple[dict[str, Feature], list[str]]:
    """Insert and update. Returns all features of the mode by id, locked, and what changed."""
    livemode = conf.livemode()
    known = set(_of_mode(Feature).values_list("stripe_id", flat=True))
    new = sorted(told.keys() - known)
    rows = [
        Feature(
            stripe_id=stripe_id,
            livemode=livemode,
            lookup_key=told[stripe_id].lookup_key,
            **dict(zip(_DETAILS, astuple(told[stripe_id].details), strict=True)),
        )
        for stripe_id in new
    ]
    primary(Feature).bulk_create(rows, ignore_conflicts=True)
    features = {row.stripe_id: row for row in lock_no_key(_of_mode(Feature).order_by("stripe_id"))}
    changes = [f"new feature {_described(features[stripe_id])}" for stripe_id in new]
    stale = []
    for stripe_id, row in features.items():
        if stripe_id in told and (said := _renew(row, told[stripe_id].details)):
            stale.append(row)
            changes.append(said)
    primary(Feature).bulk_update(stale, _DETAILS, batch_size=_BATCH)
    return features, sorted(changes)


def _renew(row: Feature, details: FeatureDetails) -> str:
    """Bring the row up to date, and say how it differed; empty if it did not."""
    moved = [name for name in _DETAILS if getattr(row, name) != getattr(details, name)]
    was_active = row.active
    row.name, row.active, row.metadata = astuple(details)
    if not moved:
        return ""
    if was_active and not row.active:
        return f"archived feature {row}"
    return f"changed feature {row}: {', '.join(moved)}"


def _described(row: Feature) -> str:
    return f"{row}{'' if row.active else ', archived'}"


def _save_products(
    catalog: Catalog, before: Mapping[str, Product], *, now: datetime
) -> tuple[dict[str, Product], list[str]]:
    """Insert and update. Returns all products of the mode by id, the deleted ones too, and what changed."""
    changes = []
    new = [
        Product(stripe_id=stripe_id, livemode=conf.livemode(), name=catalog.products[stripe_id].name)
        for stripe_id in sorted(catalog.products.keys() - before.keys() - catalog.gone)
    ]
    primary(Product).bulk_create(new)
    changes += [f"new product {row}" for row in new]
    stale = []
    for stripe_id, row in sorted(before.items()):
        listed = catalog.products.get(stripe_id)
        name, active = (listed.name, True) if listed else (row.name, False)
        if stripe_id in catalog.gone:
            changes.append(f"deleted product {row}")
        elif (row.name, row.active) != (name, active):
            word = "archived" if row.active and not active else "changed"
            row.name, row.active = name, active
            stale.append(row)
            changes.append(f"{word} product {row}")
    primary(Product).bulk_update(stale, ["name", "active"], batch_size=_BATCH)
    products = dict(before) | {row.stripe_id: row for row in new}
    asked = [products[stripe_id].pk for stripe_id in catalog.attachments]
    primary(Product).filter(pk__in=asked).update(features_read_at=now)
    return products, changes


def _save_attachments(
    catalog: Catalog, products: Mapping[str, Product], features: Mapping[str, Feature], held: Iterable[ProductFeature]
) -> tuple[list[ProductFeature], list[ProductFeature]]:
    """Insert and delete those of the products that were asked about. Returns which pairs came and which went.

    A feature that was detached and attached again has another id, and neither came nor went.
    """
    wanted = {
        attachment.id: ProductFeature(
            stripe_id=attachment.id,
            livemode=conf.livemode(),
            product=products[stripe_id],
            feature=features[attachment.feature.id],
        )
        for stripe_id, attachments in catalog.attachments.items()
        for attachment in attachments
    }
    asked = catalog.attachments.keys() | catalog.gone
    rows = {row.stripe_id: row for row in held if row.product.stripe_id in asked}
    stale = [row for stripe_id, row in rows.items() if stripe_id not in wanted]
    new = [row for stripe_id, row in wanted.items() if stripe_id not in rows]
    primary(ProductFeature).filter(pk__in=[row.pk for row in stale]).delete()
    primary(ProductFeature).bulk_create(new)
    pairs_before = {_pair(row) for row in rows.values()}
    pairs_now = {_pair(row) for row in wanted.values()}
    attached = [row for row in new if _pair(row) not in pairs_before]
    return attached, [row for row in stale if _pair(row) not in pairs_now]


def _delete_products(catalog: Catalog) -> None:
    if catalog.gone:
        _of_mode(Product).filter(stripe_id__in=catalog.gone).delete()


def _pair(row: ProductFeature) -> tuple[str, str]:
    return row.product.stripe_id, row.feature.stripe_id


def _named(row: ProductFeature) -> str:
    return f"feature {row.feature}, product {row.product}"


def _of_mode(model: type[_M]) -> QuerySet[_M]:
    return primary(model).filter(account="", livemode=conf.livemode())
