"""Our copy of the part of the catalogue that is being changed: find what is meant, write what Stripe has now.

What is written was read, or answered, while our row kept its version; otherwise Stripe is asked anew. So of two changes
at once it is not the slower answer that stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from django.utils import timezone

from . import catalog_reads, catalog_writes, conf
from .budget import Allowance
from .catalog_writes import Edit
from .exceptions import StripeRefused, StripeUnavailable
from .models import Feature, Product
from .stripe_client import NoSuchObject
from .stripe_objects import Attachment, CatalogFeature, CatalogProduct
from .transactions import own, primary, write

_M = TypeVar("_M", Feature, Product)

TRIES = 3


def get_feature(feature: Feature | str, allowance: Allowance) -> Feature:
    """The row, made if only Stripe knows it.

    Which feature a lookup key means, Stripe says: what is known here may have been archived and made anew in the
    Dashboard. It is the one that is not archived; if there is none, the newest that is known here.

    Raises `StripeRefused` if there is none, `ValueError` for one of another account or mode, `TypeError`.
    """
    if isinstance(feature, Feature):
        return _checked(primary(Feature).get(pk=feature.pk))
    if not isinstance(feature, str) or not feature:
        raise TypeError(f"A feature is a row, a Stripe ID or a lookup key, not {feature!r}.")
    row = get_by_id(feature)
    if row is None and (told := catalog_reads.find_feature(feature, allowance)) is not None:
        row = own(Feature).filter(stripe_id=told.id).first() or save_feature(told, 0, allowance)
    if row is None and (known := own(Feature).filter(lookup_key=feature).order_by("-pk").first()) is not None:
        row = retrieve_feature(known.stripe_id, allowance) if known.active else known
    if row is None and (row := retrieve_feature(feature, allowance)) is None:
        raise StripeRefused(
            f"No feature has the lookup key or the ID {feature!r} in this account and mode.",
            param="entitlement_feature",
        )
    return row


def get_by_id(stripe_id: str) -> Feature | None:
    """The row, if it is known."""
    return own(Feature).filter(stripe_id=stripe_id).first()


def get_unarchived(lookup_key: str) -> Feature | None:
    """The row that has this key. Of several, as long as one's archiving is not known here, the newest."""
    return own(Feature).filter(lookup_key=lookup_key, active=True).order_by("-pk").first()


def retrieve_feature(feature_id: str, allowance: Allowance) -> Feature | None:
    """The row as Stripe has it now. `None` if Stripe does not know it."""
    seen = get_version(Feature, feature_id)
    try:
        return save_feature(catalog_reads.retrieve_feature(feature_id, allowance), seen, allowance)
    except NoSuchObject:
        return None


def get_product(product: Product | str, allowance: Allowance) -> CatalogProduct:
    """The product as it is known here, or else as Stripe has it. Raises like `get_feature`."""
    if not isinstance(product, Product | str) or not product:
        raise TypeError(f"A product is a row or a Stripe ID, not {product!r}.")
    if isinstance(product, Product):
        row: Product | None = _checked(primary(Product).get(pk=product.pk))
    else:
        row = own(Product).filter(stripe_id=product).first()
    if row is not None:
        return CatalogProduct(row.stripe_id, row.name, row.active)
    try:
        return catalog_reads.retrieve_product(str(product), allowance)
    except NoSuchObject:
        raise StripeRefused(f"No product has the ID {product!r} in this account and mode.", param="product") from None


def save_feature(told: CatalogFeature, seen: int, allowance: Allowance) -> Feature:
    """Write it. `seen`: the row's version before Stripe was asked."""
    for _ in range(TRIES):
        saved = write(partial(catalog_writes.save_feature, told, seen=seen))
        if saved is not None:
            return saved
        seen = get_version(Feature, told.id)
        told = catalog_reads.retrieve_feature(told.id, allowance)
    raise StripeUnavailable(f"The feature {told.id} keeps changing.")


def save_attachments(product: CatalogProduct, edit: Edit, seen: int, allowance: Allowance) -> None:
    """Make of what is attached to a product what `edit` makes of it. `seen`: its version before Stripe was asked."""
    for _ in range(TRIES):
        save = partial(catalog_writes.save_attachments, product, edit, seen=seen, now=timezone.now())
        if write(save) is not None:
            return
        seen = get_version(Product, product.id)
        edit = _always(catalog_reads.list_attachments(product.id, allowance))
    raise StripeUnavailable(f"What is attached to the product {product.id} keeps changing.")


def list_attachments(product: CatalogProduct, allowance: Allowance) -> tuple[Attachment, ...]:
    """Ask Stripe what is attached to a product, and write it."""
    seen = get_version(Product, product.id)
    listed = catalog_reads.list_attachments(product.id, allowance)
    save_attachments(product, _always(listed), seen, allowance)
    return listed


def get_version(model: type[Feature] | type[Product], stripe_id: str) -> int:
    """How often the row was changed from here; 0 if there is none."""
    versions = own(model).filter(stripe_id=stripe_id)
    return versions.values_list("version", flat=True).first() or 0


def _always(listed: tuple[Attachment, ...]) -> Callable[[tuple[Attachment, ...]], tuple[Attachment, ...]]:
    return lambda _: listed


def _checked(row: _M) -> _M:
    if row.account or row.livemode is not conf.livemode():
        raise ValueError(f"{row.stripe_id} belongs to another account or mode than the API key.")
    return row
