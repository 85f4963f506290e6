"""A small shop at the simulated Stripe: plans that grant features, and customers who change them."""

from __future__ import annotations

from typing import Any

from django.test import Client

from entitlements_app.testing import StripeSimulator
from tests.delivery import URL

PLANS = {"pro": ("sso", "export"), "enterprise": ("sso", "export", "audit"), "reports": ("reports",)}


class Shop:
    """Each plan is a product with one price. Nothing is delivered until `deliver`."""

    def __init__(self, stripe: StripeSimulator) -> None:
        self.stripe = stripe
        keys = sorted({key for plan in PLANS.values() for key in plan})
        self.features = {key: stripe.create_feature(key) for key in keys}
        self.prices = {name: self.plan(name, *plan) for name, plan in PLANS.items()}
        self._seen = len(stripe.events())

    def plan(self, name: str, *keys: str) -> dict[str, Any]:
        for key in keys:
            if key not in self.features:
                self.features[key] = self.stripe.create_feature(key)
        product = self.stripe.create_product(name, features=[self.features[key] for key in keys])
        return self.stripe.create_price(product)

    def customer(self) -> str:
        return self.stripe.create_customer()["id"]

    def subscribe(self, customer: str, plan: str) -> str:
        return self.stripe.subscribe(customer, self.prices[plan])["id"]

    def holds(self, customer: str) -> set[str]:
        """What Stripe says that a customer holds."""
        return {row["lookup_key"] for row in self.stripe.active_entitlements(customer)}

    def new_events(self) -> list[dict[str, Any]]:
        """Events since the last call, oldest first."""
        events = self.stripe.events()[::-1]
        new, self._seen = events[self._seen :], len(events)
        return new

    def deliver(self, *, later: float = 0, only: str = "") -> None:
        """Post all new events, or those of one type, in order, signed that many seconds after now."""
        for event in self.new_events():
            if only not in ("", event["type"]):
                continue
            delivery = self.stripe.signed_delivery(event["id"], t=self.stripe.clock.seconds + int(later))
            response = Client().post(URL, data=delivery.body, content_type="application/json", headers=delivery.headers)
            assert response.status_code == 200

    def calls(self) -> list[str]:
        """Paths of the calls that came over HTTP since the last time."""
        paths = [request.path for request in self.stripe.requests]
        self.stripe.clear_requests()
        return paths
