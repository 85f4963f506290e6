"""The site's own dealings with Stripe: the catalogue, customers and subscriptions, with plain stripe-python.

Nothing here opens a gate. What a customer may use comes back from Stripe, by webhook.
"""

from functools import cache

import stripe
from django.contrib.auth.models import User

from entitlements_app.linking import link
from entitlements_app.models import Customer
from example_project.settings import ENTITLEMENTS_STRIPE_API_BASE, ENTITLEMENTS_STRIPE_API_KEY

from .plans import FEATURES, FREE, PLANS, Plan


@cache
def client() -> stripe.StripeClient:
    return stripe.StripeClient(ENTITLEMENTS_STRIPE_API_KEY, base_addresses={"api": ENTITLEMENTS_STRIPE_API_BASE})


def create_catalogue() -> None:
    """Make features, products and prices. On a real site that is done once, by hand in Stripe's Dashboard."""
    feature_ids = {
        feature.lookup_key: client()
        .v1.entitlements.features.create({"lookup_key": feature.lookup_key, "name": feature.name})
        .id
        for feature in FEATURES
    }
    for plan in PLANS.values():
        if plan is FREE:
            continue
        product = client().v1.products.create({"name": plan.name})
        for key in sorted(plan.lookup_keys):
            client().v1.products.features.create(product.id, {"entitlement_feature": feature_ids[key]})
        client().v1.prices.create(
            {
                "product": product.id,
                "lookup_key": plan.slug,
                "currency": "usd",
                "unit_amount": plan.dollars * 100,
                "recurring": {"interval": "month"},
            }
        )


def get_customer(user: User) -> Customer | None:
    return Customer.objects.filter(subscriber=user, deleted_at=None).first()


def get_plan(user: User) -> Plan:
    """The plan that Stripe bills. It is asked for, to be shown; gates never ask."""
    customer = get_customer(user)
    subscription = _get_subscription(customer.stripe_id) if customer else None
    if subscription is None:
        return FREE
    return PLANS[subscription["items"].data[0].price.lookup_key]


def switch_plan(user: User, plan: Plan) -> None:
    """Subscribe, change or cancel, as a checkout would. The first time a Stripe customer is made and linked."""
    customer_id = _get_or_create_customer(user).stripe_id
    subscription = _get_subscription(customer_id)
    if plan is FREE:
        if subscription is not None:
            client().v1.subscriptions.cancel(subscription.id)
    elif subscription is None:
        client().v1.subscriptions.create({"customer": customer_id, "items": [{"price": _price_id(plan)}]})
    else:
        item = subscription["items"].data[0]
        client().v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, "price": _price_id(plan)}]})


def _get_or_create_customer(user: User) -> Customer:
    customer = get_customer(user)
    if customer is not None:
        return customer
    created = client().v1.customers.create({"email": user.email, "name": user.username})
    return link(user, created.id)


def _get_subscription(customer_id: str) -> stripe.Subscription | None:
    subscriptions = client().v1.subscriptions.list({"customer": customer_id, "limit": 1}).data
    return subscriptions[0] if subscriptions else None


def _price_id(plan: Plan) -> str:
    prices = client().v1.prices.list({"active": True})
    return next(price.id for price in prices.data if price.lookup_key == plan.slug)
