"""Take from dj-stripe what a product is called and whether it is sold.

Our rows come from Stripe's catalogue, which is read once a day and tells of no change; dj-stripe's follow the webhooks
`product.*`. The rule: what was read of Stripe later wins. What dj-stripe saves is taken at once, also over a reading of
the catalogue that began before; the next reading of the catalogue overwrites it with what Stripe says then. Only
products that are known here are renamed: none is made, and nothing is written into dj-stripe's tables.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from django.db.models.signals import post_save
from djstripe.models import Product as DjstripeProduct

from entitlements_app import catalog_writes, conf, stripe_objects
from entitlements_app.stripe_objects import Malformed

from .accounts import is_own

logger = logging.getLogger(__name__)


def connect() -> None:
    """Listen to dj-stripe, from now on."""
    post_save.connect(_saved, sender=DjstripeProduct, dispatch_uid=f"{__name__}.saved")


def _saved(instance: DjstripeProduct, using: str, raw: bool, **_kwargs: Any) -> None:
    """After the commit: our row is never locked in a transaction of dj-stripe's, nor does our failure end its."""

    def take_name_as_it_is_by_then() -> None:
        for product in DjstripeProduct.objects.using(using).filter(pk=instance.pk):
            _take_name(product)

    if not raw:
        transaction.on_commit(take_name_as_it_is_by_then, using=using, robust=True)


def _take_name(product: DjstripeProduct) -> None:
    """Make our row of this product, if there is one, say what dj-stripe's does."""
    if product.livemode is not conf.livemode() or not is_own(product):
        return
    columns = {name: getattr(product, name) for name in ("id", "name", "active")}
    try:
        told = stripe_objects.parse_product({"object": "product", **columns})
    except Malformed as error:  # by hand, or from a time before dj-stripe knew whether it is active
        logger.info("The name of dj-stripe's product %s was not taken: %s.", product.id, error)
        return
    catalog_writes.save_product(told)
