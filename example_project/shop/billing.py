"""The site's own dealings with Stripe: customers and subscriptions, with plain stripe-python.

Nothing here opens a gate. What a customer may use comes back from Stripe, by webhook.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import stripe
from django.contrib.auth.models import User

from entitlements_app import conf
from entitlements_app.linking import link
from entitlements_app.models import Customer
from example_project.settings import BESIDE_DJSTRIPE

from . import catalogue
from .plans import FREE, PLANS, Plan

if BESIDE_DJSTRIPE:
    from . import beside_djstripe

TEST_CARD = "pm_card_visa"  # a checkout would ask for one
MADE_FOR = "entitlements_demo_user"  # in a customer's metadata
TRIAL_DAYS = 14


@dataclass(frozen=True)
class Bill:
    """What Stripe bills. At `until` it renews, unless it `ends`; until then a trial costs nothing."""

    plan: Plan = FREE
    until: datetime | None = None
    ends: bool = False
    is_trial: bool = False


def client() -> stripe.StripeClient:
    return _client(conf.stripe_api_key() or "", conf.stripe_api_base())


@cache
def _client(api_key: str, api_base: str | None) -> stripe.StripeClient:
    # Two tries more: after a connection that broke, Stripe tells the same call from a new one by its idempotency key.
    if api_base is None:
        return stripe.StripeClient(api_key, max_network_retries=2)
    return stripe.StripeClient(api_key, base_addresses={"api": api_base}, max_network_retries=2)


def get_customer(user: User) -> Customer | None:
    return Customer.objects.filter(subscriber=user, deleted_at=None).first()


def find_user(customer: Customer) -> User | None:
    """Whose a customer is that Stripe told of before anybody linked it: what its metadata says, as no e-mail can."""
    return User.objects.filter(username=customer.metadata.get(MADE_FOR, "")).first()


def get_bill(user: User) -> Bill:
    """Stripe is asked, so that a page can show it; gates never ask."""
    customer = get_customer(user)
    subscription = _get_subscription(customer.stripe_id) if customer else None
    return _bill_of(subscription) if subscription else Bill()


def switch_plan(user: User, plan: Plan) -> None:
    """Subscribe, change, keep or cancel, as a checkout would. The first time a Stripe customer is made and linked."""
    switch_plan_of(_get_or_create_customer(user).stripe_id, plan)


def switch_plan_of(customer_id: str, plan: Plan) -> None:
    """The same for a customer that need not be linked."""
    subscription = _get_subscription(customer_id)
    if plan is FREE:
        if subscription is not None:
            client().v1.subscriptions.cancel(subscription.id)
        return
    price = _price_id(plan)
    if subscription is None:
        client().v1.subscriptions.create({"customer": customer_id, "items": [{"price": price}]})
        return
    item = subscription["items"].data[0]
    if item.price.id != price:
        client().v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, "price": price}]})
    if _bill_of(subscription).ends:
        client().v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False})


def start_trial(user: User, plan: Plan) -> None:
    """Subscribe, and pay later. Nothing for who has a subscription."""
    customer_id = _get_or_create_customer(user).stripe_id
    if _get_subscription(customer_id) is None:
        client().v1.subscriptions.create(
            {"customer": customer_id, "items": [{"price": _price_id(plan)}], "trial_period_days": TRIAL_DAYS}
        )


def cancel_at_period_end(user: User) -> None:
    """What is paid for stays open until its end. Nothing for who has no subscription."""
    customer = get_customer(user)
    subscription = _get_subscription(customer.stripe_id) if customer else None
    if subscription is not None:
        client().v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})


def _get_or_create_customer(user: User) -> Customer:
    customer = get_customer(user)
    if customer is not None:
        return customer
    customer_id = _find_customer(user) or create_customer(user.username, user.email, made_for=user.username)
    if not BESIDE_DJSTRIPE:
        return link(user, customer_id)
    beside_djstripe.adopt(user, customer_id)
    return Customer.objects.get(stripe_id=customer_id)


def _find_customer(user: User) -> str | None:
    """A test account keeps its customers; the demo's database begins anew."""
    customers = client().v1.customers.list({"email": user.email, "limit": 100}).data
    return next((row.id for row in customers if getattr(row.metadata, MADE_FOR, None) == user.username), None)


def create_customer(name: str, email: str, *, made_for: str) -> str:
    """A customer who pays by card. `made_for` names the user that it is for."""
    user = User.objects.filter(username=made_for).first() if BESIDE_DJSTRIPE else None
    metadata = {MADE_FOR: made_for}
    if user is not None:
        customer_id = beside_djstripe.create_customer(user, metadata=metadata)
    else:
        customer_id = client().v1.customers.create({"email": email, "name": name, "metadata": metadata}).id
    card = client().v1.payment_methods.attach(TEST_CARD, {"customer": customer_id})
    client().v1.customers.update(customer_id, {"invoice_settings": {"default_payment_method": card.id}})
    return customer_id


def _get_subscription(customer_id: str) -> stripe.Subscription | None:
    subscriptions = client().v1.subscriptions.list({"customer": customer_id, "limit": 1}).data
    return subscriptions[0] if subscriptions else None


def _bill_of(subscription: stripe.Subscription) -> Bill:
    item = subscription["items"].data[0]
    plan = next((plan for plan in PLANS.values() if plan.price_lookup_key == item.price.lookup_key), FREE)
    end = subscription.cancel_at or item.current_period_end
    return Bill(
        plan,
        until=datetime.fromtimestamp(end, UTC),
        ends=subscription.cancel_at_period_end or subscription.cancel_at is not None,
        is_trial=subscription.status == "trialing",
    )


def _price_id(plan: Plan) -> str:
    return catalogue.find_prices(client())[plan.price_lookup_key].id
