"""The API calls a test or a demo makes most, as Python methods. Each makes that call and nothing more."""

from collections.abc import Mapping, Sequence
from typing import Any

from .account import Json

Ref = str | Mapping[str, Any]


def id_of(ref: Ref) -> str:
    """Methods take an id or the object that has it."""
    return ref if isinstance(ref, str) else str(ref["id"])


class Conveniences:
    """Answers are plain dicts in Stripe's shape; a refusal raises ApiError."""

    def call(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Json:
        raise NotImplementedError

    def create_feature(
        self, lookup_key: str, *, name: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Json:
        """Without a name the lookup key serves as one."""
        params = {"lookup_key": lookup_key, "name": name or lookup_key, "metadata": metadata}
        return self.call("POST", "/v1/entitlements/features", params)

    def archive_feature(self, feature: Ref) -> Json:
        return self.call("POST", f"/v1/entitlements/features/{id_of(feature)}", {"active": False})

    def create_product(self, name: str, *, features: Sequence[Ref] = ()) -> Json:
        product = self.call("POST", "/v1/products", {"name": name})
        for feature in features:
            self.attach_feature(product, feature)
        return product

    def attach_feature(self, product: Ref, feature: Ref) -> Json:
        params = {"entitlement_feature": id_of(feature)}
        return self.call("POST", f"/v1/products/{id_of(product)}/features", params)

    def detach_feature(self, product: Ref, feature: Ref) -> Json:
        """Finds the attachment by its feature, then deletes it. Raises LookupError if there is none."""
        url = f"/v1/products/{id_of(product)}/features"
        for attached in self._all(url):
            if attached["entitlement_feature"]["id"] == id_of(feature):
                return self.call("DELETE", f"{url}/{attached['id']}")
        raise LookupError(f"{id_of(feature)} is not attached to {id_of(product)}")

    def create_price(
        self, product: Ref, *, unit_amount: int = 1000, currency: str = "usd", interval: str = "month"
    ) -> Json:
        params = {
            "product": id_of(product),
            "unit_amount": unit_amount,
            "currency": currency,
            "recurring": {"interval": interval},
        }
        return self.call("POST", "/v1/prices", params)

    def create_customer(
        self, email: str | None = None, name: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Json:
        return self.call("POST", "/v1/customers", {"email": email, "name": name, "metadata": metadata})

    def delete_customer(self, customer: Ref) -> Json:
        return self.call("DELETE", f"/v1/customers/{id_of(customer)}")

    def subscribe(self, customer: Ref, price: Ref) -> Json:
        params = {"customer": id_of(customer), "items": [{"price": id_of(price)}]}
        return self.call("POST", "/v1/subscriptions", params)

    def change_plan(self, subscription: Ref, price: Ref) -> Json:
        """Put this price in the place of the subscription's first item."""
        url = f"/v1/subscriptions/{id_of(subscription)}"
        item = self.call("GET", url)["items"]["data"][0]
        return self.call("POST", url, {"items": [{"id": item["id"], "price": id_of(price)}]})

    def cancel(self, subscription: Ref) -> Json:
        return self.call("DELETE", f"/v1/subscriptions/{id_of(subscription)}")

    def active_entitlements(self, customer: Ref) -> list[Json]:
        """All of them, however many pages that takes."""
        return self._all("/v1/entitlements/active_entitlements", customer=id_of(customer))

    def events(self, type: str | None = None) -> list[Json]:  # noqa: A002 Stripe's name
        """All events of the last 30 days, newest first; a type may hold `*`."""
        return self._all("/v1/events", type=type)

    def _all(self, path: str, **params: Any) -> list[Json]:
        rows: list[Json] = []
        answer: Json = {"has_more": True}
        while answer["has_more"]:
            after = {"starting_after": rows[-1]["id"]} if rows else {}
            answer = self.call("GET", path, {"limit": 100, **params, **after})
            rows += answer["data"]
        return rows
