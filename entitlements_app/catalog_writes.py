"""The only writer of products and of what is attached to them: make our catalogue equal to what was read of Stripe's.

Access never follows from it. Features are never deleted, whatever Stripe's lists say: somebody may hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime

from django.db.models import F

from . import conf
from .catalog_reads import Catalog
from .models import Feature, Product, ProductFeature
from .stripe_objects import Attachment, CatalogFeature, CatalogProduct, FeatureDetails
from .transactions import alias, lock_no_key, own, primary, update

_BATCH = 500  # rows an update: what a longer one costs grows faster than it
_DETAILS = ("name", "active", "metadata")


@dataclass(frozen=True)
class Saved:
    """What was written, in lines for people, and how many rows were compared."""

    changes: tuple[str, ...]
    features: int
    products: int
    attachments: int


@dataclass(frozen=True)
class Versions:
    """How often rows were changed from here when the reading of a catalogue began, by Stripe ID; 0 for unknown ones.

    What has changed since is newer than what was read, so it is left as it is.
    """

    features: Mapping[str, int]
    products: Mapping[str, int]


def get_versions() -> Versions:
    """As they are now."""
    return Versions(
        features=dict(own(Feature).values_list("stripe_id", "version")),
        products=dict(own(Product).values_list("stripe_id", "version")),
    )


def save(catalog: Catalog, versions: Versions, *, now: datetime, first: bool) -> Saved:
    """Write what was read. The caller owns the transaction.

    Unless it is the first time that a catalogue is read, features remember when they were attached and detached.
    """
    told = dict(catalog.features)
    for attachments in catalog.attachments.values():
        told |= {attachment.feature.id: attachment.feature for attachment in attachments}
    features, changes = _save_features(told, versions.features)
    known = set(own(Product).values_list("stripe_id", flat=True))
    new = sorted(catalog.products.keys() - known - catalog.gone)
    primary(Product).bulk_create([_new_product(catalog.products[key]) for key in new], ignore_conflicts=True)
    rows = {row.stripe_id: row for row in lock_no_key(own(Product).order_by("stripe_id"))}
    moved = {key for key, row in rows.items() if row.version != versions.products.get(key, 0)}
    catalog = _without(catalog, moved)
    products = {key: row for key, row in rows.items() if key not in moved}
    # Since when these have had their features nobody knows.
    never_asked = {key for key in known if key in rows and rows[key].features_read_at is None}
    held = list(own(ProductFeature).select_related("product", "feature"))
    product_changes = _save_products(catalog, products, set(new), now=now)
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


def _without(catalog: Catalog, products: set[str]) -> Catalog:
    return replace(
        catalog,
        products={key: product for key, product in catalog.products.items() if key not in products},
        attachments={key: rows for key, rows in catalog.attachments.items() if key not in products},
        gone=catalog.gone - products,
    )


def save_feature(told: CatalogFeature, *, seen: int) -> Feature | None:
    """Write what Stripe answered to a change of a feature. The caller owns the transaction.

    `seen`: the row's version before Stripe was asked, 0 if there was none. `None`, and nothing is written, if it moved.
    """
    primary(Feature).bulk_create([_new_feature(told)], ignore_conflicts=True)
    row = lock_no_key(own(Feature).filter(stripe_id=told.id)).get()
    if row.version != seen:
        return None
    row.name, row.active, row.metadata = astuple(told.details)
    row.version += 1
    row.save(using=alias(), update_fields=[*_DETAILS, "version"])
    return row


Edit = Callable[[tuple[Attachment, ...]], tuple[Attachment, ...]]


def save_attachments(product: CatalogProduct, edit: Edit, *, seen: int, now: datetime) -> Product | None:
    """Make of what is attached to a product what `edit` makes of it. The caller owns the transaction.

    A product that is not known here is made; of one that is, name and state stay. `edit` may be called twice, first
    with nothing. `seen` and `None`: as for `save_feature`, of the product's version.
    """
    new = {attachment.feature.id: attachment.feature for attachment in edit(())}
    features, _ = _save_features(new, None)
    primary(Product).bulk_create([_new_product(product)], ignore_conflicts=True)
    row = lock_no_key(own(Product).filter(stripe_id=product.id)).get()
    if row.version != seen:
        return None
    held = list(own(ProductFeature).filter(product=row).select_related("product", "feature"))
    # Whose lock was waited for may have made features, which the statement that waited does not see.
    features |= {pair.feature.stripe_id: pair.feature for pair in held}
    wanted = edit(tuple(map(_attachment, held)))
    catalog = Catalog(features={}, products={}, attachments={product.id: wanted})
    attached, detached = _save_attachments(catalog, {product.id: row}, features, held)
    primary(Feature).filter(pk__in=[pair.feature_id for pair in attached]).update(attached_at=now)
    primary(Feature).filter(pk__in=[pair.feature_id for pair in detached]).update(detached_at=now)
    row.version += 1
    row.save(using=alias(), update_fields=["version"])
    return row


def save_product(told: CatalogProduct) -> None:
    """Write what somebody else was just told of a product, if it is known here and differs.

    In one statement. A catalogue that is being read meanwhile is older, and will not undo it.
    """
    rows = own(Product).filter(stripe_id=told.id).exclude(name=told.name, active=told.active)
    update(rows, name=told.name, active=told.active, version=F("version") + 1)


def _attachment(row: ProductFeature) -> Attachment:
    feature = row.feature
    details = FeatureDetails(feature.name, feature.active, feature.metadata)
    return Attachment(row.stripe_id, CatalogFeature(feature.stripe_id, feature.lookup_key, details))


def _new_feature(told: CatalogFeature) -> Feature:
    details = dict(zip(_DETAILS, astuple(told.details), strict=True))
    return Feature(stripe_id=told.id, livemode=conf.livemode(), lookup_key=told.lookup_key, **details)


def _new_product(told: CatalogProduct) -> Product:
    return Product(stripe_id=told.id, livemode=conf.livemode(), name=told.name, active=told.active)


def _save_features(
    told: Mapping[str, CatalogFeature], versions: Mapping[str, int] | None
) -> tuple[dict[str, Feature], list[str]]:
    """Insert, and update those still of that version. Returns all features of the mode by id, locked, what changed.

    Without `versions` none that is known is updated.
    """
    known = set(own(Feature).values_list("stripe_id", flat=True))
    new = sorted(told.keys() - known)
    rows = [_new_feature(told[stripe_id]) for stripe_id in new]
    primary(Feature).bulk_create(rows, ignore_conflicts=True)
    features = {row.stripe_id: row for row in lock_no_key(own(Feature).order_by("stripe_id"))}
    changes = [f"new feature {_described(features[stripe_id])}" for stripe_id in new]
    stale = []
    for stripe_id, row in features.items():
        if stripe_id not in told or versions is None or row.version != versions.get(stripe_id, 0):
            continue
        if said := _renew(row, told[stripe_id].details):
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


def _save_products(catalog: Catalog, rows: Mapping[str, Product], new: set[str], *, now: datetime) -> list[str]:
    """Update these, all of the mode; `new` are those just inserted. Returns what changed, deletions to come as well."""
    changes = []
    stale = []
    for stripe_id, row in sorted(rows.items()):
        listed = catalog.products.get(stripe_id)
        name, active = (listed.name, True) if listed else (row.name, False)
        if stripe_id in new:
            changes.append(f"new product {row}")
        elif stripe_id in catalog.gone:
            changes.append(f"deleted product {row}")
        elif (row.name, row.active) != (name, active):
            word = "archived" if row.active and not active else "changed"
            row.name, row.active = name, active
            stale.append(row)
            changes.append(f"{word} product {row}")
    primary(Product).bulk_update(stale, ["name", "active"], batch_size=_BATCH)
    asked = [rows[stripe_id].pk for stripe_id in catalog.attachments]
    primary(Product).filter(pk__in=asked).update(features_read_at=now)
    return changes


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
        own(Product).filter(stripe_id__in=catalog.gone).delete()


def _pair(row: ProductFeature) -> tuple[str, str]:
    return row.product.stripe_id, row.feature.stripe_id


def _named(row: ProductFeature) -> str:
    return f"feature {row.feature}, product {row.product}"
