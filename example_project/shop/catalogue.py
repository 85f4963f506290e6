"""Features, products and prices in Stripe. On a real site that is done once, by hand in Stripe's Dashboard."""

from collections.abc import Iterable

import stripe

from .plans import FEATURES, PAID_PLANS, Feature, Plan


def find_or_create(client: stripe.StripeClient) -> None:
    """Afterwards all that is sold exists in Stripe, once, however often this is called."""
    feature_ids = {feature.lookup_key: _feature_id(client, feature) for feature in FEATURES}
    prices = find_prices(client)
    for plan in PAID_PLANS:
        price = prices.get(plan.price_lookup_key) or _create_price(client, plan)
        product_id = price.product if isinstance(price.product, str) else price.product.id
        _attach_missing(client, product_id, [feature_ids[key] for key in sorted(plan.lookup_keys)])


def find_prices(client: stripe.StripeClient) -> dict[str, stripe.Price]:
    """The active prices by lookup key."""
    prices = client.v1.prices.list({"active": True, "limit": 100}).auto_paging_iter()
    return {price.lookup_key: price for price in prices if price.lookup_key}


def _feature_id(client: stripe.StripeClient, feature: Feature) -> str:
    found = client.v1.entitlements.features.list({"lookup_key": feature.lookup_key}).data
    active = [row.id for row in found if row.active]
    if active:
        return active[0]
    return client.v1.entitlements.features.create({"lookup_key": feature.lookup_key, "name": feature.name}).id


def _create_price(client: stripe.StripeClient, plan: Plan) -> stripe.Price:
    product = client.v1.products.create({"name": plan.name})
    return client.v1.prices.create(
        {
            "product": product.id,
            "lookup_key": plan.price_lookup_key,
            "currency": "usd",
            "unit_amount": plan.dollars * 100,
            "recurring": {"interval": "month"},
        }
    )


def _attach_missing(client: stripe.StripeClient, product_id: str, feature_ids: Iterable[str]) -> None:
    attached = client.v1.products.features.list(product_id, {"limit": 100}).auto_paging_iter()
    there = {row.entitlement_feature.id for row in attached}
    for feature_id in feature_ids:
        if feature_id not in there:
            client.v1.products.features.create(product_id, {"entitlement_feature": feature_id})
