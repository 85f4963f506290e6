"""Change Stripe's catalogue: features, and which product has which. Stripe first, then our copy of what it answered.

Each of these makes a few calls within the call budget, for about CHANGE_SECONDS at most, and raises:

- `StripeRefused`: not as asked. Nothing was changed; what is known to be refused is refused without a call.
- `StripeUnavailable`: try again. If it has an `idempotency_key`, nobody knows whether Stripe did it: pass that key
  with the next try, and it is done once. Nor is it known of a detachment, which needs no key: it can be repeated. Our
  copy is as it was, and follows at the latest with the next reading of the catalogue.
- `ValueError` for a row of another account or mode than the configured one, `TypeError` for what is no text, and
  `RuntimeError` inside an atomic block.

A feature is given as a row, as its Stripe ID, or as its lookup key, which means the one that is not archived, as Stripe
has it now; a product as a row or its Stripe ID. Of what is not known here Stripe is asked.

What these do says what a new subscription grants. Subscriptions that exist follow at their next period, or later;
nobody loses or gains anything here and now.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from django.db.models import QuerySet

from . import catalog_copy, catalog_reads, catalog_rules, conf, stripe_client, stripe_objects, stripe_reads
from .budget import Allowance, SideAllowance
from .catalog_copy import get_feature, get_product, get_unarchived, get_version, save_feature
from .catalog_reads import FEATURES
from .exceptions import StripeRefused, StripeUnavailable
from .models import Feature, Product, ProductFeature
from .stripe_changes import Change, make, new_idempotency_key
from .stripe_client import Answer, NoSuchObject
from .stripe_objects import Attachment, CatalogFeature, CatalogProduct, FeatureDetails
from .transactions import own, refuse_open_transaction

__all__ = [
    "archive_feature",
    "attach_feature",
    "create_feature",
    "detach_feature",
    "list_product_features",
    "new_idempotency_key",
    "update_feature",
]

logger = logging.getLogger(__name__)

CHANGING = "Changing the catalogue"
CHANGE_SECONDS = 20.0
TRIES = 3

FORBIDDEN = (
    "Stripe does not let this API key change the catalogue (HTTP 403). "
    "A restricted key must be allowed to write Entitlements and Products."
)


def create_feature(
    name: str, lookup_key: str, metadata: Mapping[str, str] | None = None, *, idempotency_key: str | None = None
) -> Feature:
    """Create a feature. Its lookup key is for good: no other feature may have it until this one is archived.

    `name` and `lookup_key` have at most 80 characters, `metadata` 50 keys of 40, and values of 500. For a key that a
    feature has already it is `StripeRefused`, unless that is what a try with this `idempotency_key` has made.
    """
    refuse_open_transaction(CHANGING)
    lookup_key, name = catalog_rules.check_lookup_key(lookup_key), catalog_rules.check_name(name)
    wanted = FeatureDetails(name, active=True, metadata=catalog_rules.check_metadata(metadata or {}))
    allowance = _allowance()
    if idempotency_key is None:
        _refuse_taken(lookup_key, allowance)

    def find(allowance: Allowance) -> CatalogFeature | None:
        there = catalog_reads.find_feature(lookup_key, allowance)
        return there if there is not None and there.details == wanted else None

    params: dict[str, Any] = {"lookup_key": lookup_key, "name": name}
    if wanted.metadata:
        params["metadata"] = wanted.metadata
    try:
        made = make(Change(FEATURES, params, find), allowance, idempotency_key=idempotency_key)
    except StripeRefused:
        with contextlib.suppress(StripeUnavailable):
            if (other := catalog_reads.find_feature(lookup_key, allowance)) is not None:
                raise _taken(save_feature(other, 0, allowance)) from None
        raise
    with _done(idempotency_key):
        row = _save(made, allowance)
    logger.info("Created the feature %s.", row)
    return row


def update_feature(
    feature: Feature | str,
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Feature:
    """Change the name of a feature, or metadata, or both. What is left out stays as it is.

    `metadata` holds the keys to change, as in Stripe's API: an empty value removes a key, and others stay. A lookup key
    cannot be changed; an archived feature not at all.
    """
    refuse_open_transaction(CHANGING)
    allowance = _allowance()
    row = get_feature(feature, allowance)
    catalog_rules.check_not_archived(row, "be edited")
    params: dict[str, Any] = {}
    if name is not None:
        params["name"] = catalog_rules.check_name(name)
    if metadata:
        params["metadata"] = catalog_rules.check_metadata(metadata, held=row.metadata)
    return _update(row, params, allowance, idempotency_key) if params else row


def archive_feature(feature: Feature | str, *, idempotency_key: str | None = None) -> Feature:
    """Archive a feature, for good: no edit, no further product, no way back. Its lookup key is free again.

    Nobody loses it, and products that have it keep granting it: detach it from them to stop that. One that is archived
    already stays so.
    """
    refuse_open_transaction(CHANGING)
    allowance = _allowance()
    row = get_feature(feature, allowance)
    return _update(row, {"active": False}, allowance, idempotency_key) if row.active else row


def attach_feature(
    product: Product | str, feature: Feature | str, *, idempotency_key: str | None = None
) -> ProductFeature:
    """Attach a feature to a product: who subscribes to it from now on is entitled to it.

    An archived feature is refused. Of one that is attached already the attachment is returned.
    """
    refuse_open_transaction(CHANGING)
    allowance = _allowance()
    row = get_feature(feature, allowance)
    catalog_rules.check_not_archived(row, "be attached")
    told = get_product(product, allowance)

    def find(allowance: Allowance) -> Attachment | None:
        return _of(row, catalog_reads.list_attachments(told.id, allowance))

    seen = get_version(Product, told.id)
    change = Change(_features_of(told), {"entitlement_feature": row.stripe_id}, find)
    try:
        made = make(change, allowance, idempotency_key=idempotency_key)
    except StripeRefused:
        _tell_if_archived(row, "be attached", allowance)
        raise
    with _done(idempotency_key):
        if isinstance(made, Answer) and not made.replayed:
            parse = partial(stripe_objects.parse_attachment, livemode=row.livemode)
            attachment = stripe_reads.readable(parse, made)
            catalog_copy.save_attachments(told, lambda held: (*_without(row, held), attachment), seen, allowance)
        else:
            catalog_copy.list_attachments(told, allowance)
    attached = _attached(told).filter(feature=row).first()
    if attached is None:
        raise StripeRefused(f"The feature {row} was attached to {told.id} by an earlier try, and was detached since.")
    logger.info("Attached the feature %s to the product %s.", row, told.id)
    return attached


def detach_feature(product: Product | str, feature: Feature | str) -> None:
    """Remove a feature from a product: afterwards it is not attached, whether it was or not.

    A lookup key means whatever is attached that has it, archived or not. Who is entitled to it stays so at least until
    its subscription's next period.
    """
    refuse_open_transaction(CHANGING)
    allowance = _allowance()
    told = get_product(product, allowance)
    if isinstance(feature, str) and catalog_copy.get_by_id(feature) is None:
        listed = catalog_copy.list_attachments(told, allowance)
        keyed = [each.feature.id for each in listed if each.feature.lookup_key == feature]
        rows = list(own(Feature).filter(stripe_id__in=keyed)) or [get_feature(feature, allowance)]
    else:
        rows = [get_feature(feature, allowance)]
    for row in rows:
        _detach(told, row, allowance)


def _detach(product: CatalogProduct, row: Feature, allowance: Allowance) -> None:
    for _ in range(TRIES):
        seen = get_version(Product, product.id)
        held = _attached(product).filter(feature=row).first()
        if held is not None and _delete(product, held.stripe_id, allowance):
            catalog_copy.save_attachments(product, partial(_without, row), seen, allowance)
            logger.info("Detached the feature %s from the product %s.", row, product.id)
            return
        # Attached under another ID, or not at all.
        if _of(row, catalog_copy.list_attachments(product, allowance)) is None:
            return
    raise StripeUnavailable(f"What is attached to the product {product.id} keeps changing.")


def list_product_features(product: Product | str) -> list[ProductFeature]:
    """Ask Stripe now which features are attached to a product, make our copy equal to it, and return them."""
    refuse_open_transaction("Reading the catalogue")
    allowance = _allowance()
    told = get_product(product, allowance)
    catalog_copy.list_attachments(told, allowance)
    return list(_attached(told).select_related("product", "feature").order_by("feature__lookup_key", "pk"))


def _update(row: Feature, params: dict[str, Any], allowance: Allowance, idempotency_key: str | None) -> Feature:
    def find(allowance: Allowance) -> CatalogFeature | None:
        there = catalog_reads.retrieve_feature(row.stripe_id, allowance)
        return there if _says(there.details, params) else None

    change = Change(f"{FEATURES}/{quote(row.stripe_id, safe='')}", params, find)
    try:
        made = make(change, allowance, idempotency_key=idempotency_key)
    except StripeRefused:
        _tell_if_archived(row, "be edited", allowance)
        raise
    with _done(idempotency_key):
        changed = _save(made, allowance, seen=row.version)
    logger.info("Changed the feature %s: %s.", changed, ", ".join(params) if changed.active else "archived")
    return changed


@contextlib.contextmanager
def _done(idempotency_key: str | None) -> Iterator[None]:
    """Around what follows a change that was made: an outage there does not mean that nothing was changed."""
    try:
        yield
    except StripeUnavailable as error:
        raise StripeUnavailable(
            f"It was done in Stripe, but our copy could not follow. {error} Try again: it is not done twice.",
            status=error.status,
            idempotency_key=idempotency_key or new_idempotency_key(),
        ) from error


def _says(details: FeatureDetails, params: Mapping[str, Any]) -> bool:
    """Whether a change with these parameters has been made."""
    metadata = params.get("metadata", {})
    return (
        params.get("name", details.name) == details.name
        and params.get("active", details.active) == details.active
        and all(details.metadata.get(name, "") == value for name, value in metadata.items())
    )


def _save(made: Answer | CatalogFeature, allowance: Allowance, *, seen: int = 0) -> Feature:
    """Write what was made. A replayed answer tells how it was then, not how it is.

    `seen`: the row's version before Stripe was asked. A row that has another one is asked for anew.
    """
    if isinstance(made, CatalogFeature):
        return save_feature(made, seen, allowance)
    told = stripe_reads.readable(partial(stripe_objects.parse_feature, livemode=conf.livemode()), made)
    if made.replayed:
        seen = get_version(Feature, told.id)
        told = catalog_reads.retrieve_feature(told.id, allowance)
    return save_feature(told, seen, allowance)


def _refuse_taken(lookup_key: str, allowance: Allowance) -> None:
    """Raise if a feature has the key. One that is known to have it may have been archived in Stripe's Dashboard."""
    held = get_unarchived(lookup_key)
    there = None if held is None else catalog_copy.retrieve_feature(held.stripe_id, allowance)
    if there is not None and there.active:
        raise _taken(there)


def _taken(feature: Feature) -> StripeRefused:
    return StripeRefused(
        f"The feature {feature} has this lookup key already, under the name {feature.name!r}. A key can be used again "
        "when its feature is archived.",
        param="lookup_key",
    )


def _tell_if_archived(row: Feature, doing: str, allowance: Allowance) -> None:
    """Raise the reason of a refusal, if it is that the feature was archived in Stripe and not yet here."""
    with contextlib.suppress(StripeUnavailable):
        there = catalog_copy.retrieve_feature(row.stripe_id, allowance)
        if there is not None:
            catalog_rules.check_not_archived(there, doing)


def _delete(product: CatalogProduct, attachment_id: str, allowance: Allowance) -> bool:
    """Whether it is gone by this; if not, it was not there."""
    tries_left = TRIES
    while True:
        try:
            stripe_client.delete(f"{_features_of(product)}/{quote(attachment_id, safe='')}", allowance)
        except NoSuchObject:
            return False
        except StripeUnavailable:
            tries_left -= 1
            if not tries_left:
                raise
        else:
            return True


def _attached(product: CatalogProduct) -> QuerySet[ProductFeature]:
    return own(ProductFeature).filter(product__in=own(Product).filter(stripe_id=product.id))


def _of(feature: Feature, attachments: Iterable[Attachment]) -> Attachment | None:
    return next((each for each in attachments if each.feature.id == feature.stripe_id), None)


def _without(feature: Feature, attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    return tuple(each for each in attachments if each.feature.id != feature.stripe_id)


def _features_of(product: CatalogProduct) -> str:
    return f"/v1/products/{quote(product.id, safe='')}/features"


def _allowance() -> Allowance:
    return SideAllowance(seconds=CHANGE_SECONDS, forbidden=FORBIDDEN)
