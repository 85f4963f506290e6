"""What Stripe's catalogue is: features, products, and which features are attached to which product.

Stripe has no list of all attachments: it is asked about each product by itself, so that they cost a call each. The
features and the products cost one for each hundred.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from . import conf, stripe_client, stripe_objects, stripe_reads
from .budget import Allowance, Exhausted
from .stripe_client import NoSuchObject
from .stripe_objects import Attachment, CatalogFeature, CatalogProduct, Page
from .stripe_reads import read_all

FEATURES = "/v1/entitlements/features"


@dataclass(frozen=True)
class Catalog:
    """What was read, each list of it whole.

    `products` are all that are active. `attachments` are of the products that were asked about; those in `gone` Stripe
    does not know.
    """

    features: Mapping[str, CatalogFeature]
    products: Mapping[str, CatalogProduct]
    attachments: Mapping[str, tuple[Attachment, ...]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


def list_features(allowance: Allowance) -> dict[str, CatalogFeature]:
    """All features by id. Archived ones come last: what is archived meanwhile is found by both passes, or by this."""
    read = partial(_page_of_features, livemode=conf.livemode())
    rows = [
        row
        for archived in ("false", "true")
        for row in read_all(FEATURES, {"archived": archived}, allowance, read).rows
    ]
    return {row.id: row for row in rows}


def retrieve_features(ids: Iterable[str], allowance: Allowance) -> dict[str, CatalogFeature]:
    """These features by id, but for those that Stripe does not know."""
    found = {}
    for feature_id in ids:
        with contextlib.suppress(NoSuchObject):
            found[feature_id] = retrieve_feature(feature_id, allowance)
    return found


def retrieve_feature(feature_id: str, allowance: Allowance) -> CatalogFeature:
    """This feature, archived or not. Raises `NoSuchObject` besides what a call raises."""
    answer = stripe_client.get(f"{FEATURES}/{quote(feature_id, safe='')}", {}, allowance)
    return stripe_reads.readable(partial(stripe_objects.parse_feature, livemode=conf.livemode()), answer)


def find_feature(lookup_key: str, allowance: Allowance) -> CatalogFeature | None:
    """The feature that has this key and is not archived, of which there is one at most."""
    read = partial(_page_of_features, livemode=conf.livemode())
    params = {"archived": "false", "lookup_key": lookup_key}
    rows = read_all(FEATURES, params, allowance, read).rows
    return next((row for row in rows if row.details.active and row.lookup_key == lookup_key), None)


def retrieve_product(product_id: str, allowance: Allowance) -> CatalogProduct:
    """This product, archived or not. Raises `NoSuchObject` besides what a call raises."""
    answer = stripe_client.get(f"/v1/products/{quote(product_id, safe='')}", {}, allowance)
    return stripe_reads.readable(partial(stripe_objects.parse_product_alone, livemode=conf.livemode()), answer)


def list_products(allowance: Allowance) -> dict[str, CatalogProduct]:
    """All active products by id. Archived ones may be countless: inline prices make a product each."""
    read = partial(stripe_objects.parse_list, parse=stripe_objects.parse_product, livemode=conf.livemode())
    return {row.id: row for row in read_all("/v1/products", {"active": "true"}, allowance, read).rows if row.active}


def ask_about_products(
    ids: Collection[str], allowance: Allowance, *, until: float | None
) -> tuple[dict[str, tuple[Attachment, ...]], frozenset[str]]:
    """What is attached to each of these products, in this order, and which of them Stripe does not know.

    Ends early, with those asked so far, when `until` (on `time.monotonic`) is past or the budget is used up. Without an
    `until` it asks about all, or raises.
    """
    attachments = {}
    gone = set()
    for product_id in ids:
        if until is not None and time.monotonic() > until:
            break
        try:
            attachments[product_id] = list_attachments(product_id, allowance)
        except NoSuchObject:
            gone.add(product_id)
        except Exhausted:
            if until is None:
                raise
            break
    return attachments, frozenset(gone)


def list_attachments(product_id: str, allowance: Allowance) -> tuple[Attachment, ...]:
    """What is attached to this product. Raises `NoSuchObject` besides what a call raises."""
    livemode = conf.livemode()
    parse = partial(stripe_objects.parse_attachment, livemode=livemode)
    read = partial(stripe_objects.parse_list, parse=parse, livemode=livemode)
    return read_all(f"/v1/products/{quote(product_id, safe='')}/features", {}, allowance, read).rows


def _page_of_features(data: Any, *, livemode: bool) -> Page[CatalogFeature]:
    parse = partial(stripe_objects.parse_feature, livemode=livemode)
    return stripe_objects.parse_list(data, parse=parse, livemode=livemode)
