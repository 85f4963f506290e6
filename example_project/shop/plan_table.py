"""Which product has which feature, for a page that compares them: from our copy of the catalogue, without a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Prefetch

from entitlements_app.access import Entitlements
from entitlements_app.models import Feature, Product, ProductFeature


@dataclass(frozen=True)
class Row:
    """A feature; for each product whether a new subscription to it has it; whether the visitor is entitled to it."""

    feature: Feature
    included: Sequence[bool]
    is_held: bool


def compare(entitlements: Entitlements, *, livemode: bool) -> tuple[list[Product], list[Row]]:
    """The products that have features, and a row for each feature, archived ones where they are attached."""
    attached = ProductFeature.objects.select_related("feature")
    of_mode = Product.objects.filter(account="", livemode=livemode, active=True, product_features__isnull=False)
    rows = of_mode.distinct().prefetch_related(Prefetch("product_features", queryset=attached))
    sold = {product: {each.feature for each in product.product_features.all()} for product in rows}
    products = sorted(sold, key=lambda product: (len(sold[product]), product.name))
    active = Feature.objects.filter(account="", livemode=livemode, active=True)
    features = sorted({*active, *(feature for each in sold.values() for feature in each)}, key=lambda row: row.name)
    return products, [
        Row(feature, [feature in sold[product] for product in products], feature.lookup_key in entitlements)
        for feature in features
    ]
