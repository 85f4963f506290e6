"""Fill a simulator from a description, such as a JSON file.

    {"features": [{"lookup_key": "premium_support", "name": "Premium support", "metadata": {"seats": "5"}}],
     "products": [{"name": "Pro", "features": ["premium_support"],
                   "prices": [{"unit_amount": 2000, "currency": "usd", "interval": "month"}]}],
     "customers": [{"email": "ada@example.com", "name": "Ada", "metadata": {}, "subscribe_to": "Pro"}]}

Everything but `lookup_key` and a product's `name` may be left out. `subscribe_to` takes a product's first price.
"""

from typing import Any

from .account import Json
from .conveniences import Conveniences


class SeedError(ValueError):
    """The description cannot be followed; the message says where."""


def fill(simulator: Conveniences, description: Any) -> None:
    """Create what is described, in the order features, products with prices, customers. Raises SeedError."""
    if not isinstance(description, dict):
        raise SeedError("a seed is a JSON object with features, products and customers")
    if unknown := sorted(set(description) - {"features", "products", "customers"}):
        raise SeedError(f"unknown {', '.join(unknown)}")
    features: dict[str, Json] = {}
    for entry in _entries(description, "features", {"lookup_key", "name", "metadata"}, "lookup_key"):
        features[entry["lookup_key"]] = simulator.create_feature(**entry)
    first_prices: dict[str, Json] = {}
    for entry in _entries(description, "products", {"name", "features", "prices"}, "name"):
        keys = entry.get("features", [])
        if not isinstance(keys, list):
            raise SeedError(f"products: features must be a list of lookup keys, not {keys!r}")
        wanted = [_look_up(features, key, "feature") for key in keys]
        product = simulator.create_product(entry["name"], features=wanted)
        prices = _entries(entry, "prices", {"unit_amount", "currency", "interval"}) or [{}]
        created = [simulator.create_price(product, **price) for price in prices]
        first_prices[entry["name"]] = created[0]
    for entry in _entries(description, "customers", {"email", "name", "metadata", "subscribe_to"}):
        product_name = entry.pop("subscribe_to", None)
        customer = simulator.create_customer(**entry)
        if product_name is not None:
            simulator.subscribe(customer, _look_up(first_prices, product_name, "product"))


def _entries(holder: Json, name: str, known: set[str], required: str | None = None) -> list[Json]:
    entries = holder.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SeedError(f"{name} must be a list of objects")
    for entry in entries:
        if unknown := sorted(set(entry) - known):
            raise SeedError(f"{name}: unknown {', '.join(unknown)}")
        if required and required not in entry:
            raise SeedError(f"{name}: {required} is missing in {entry}")
    return [dict(entry) for entry in entries]


def _look_up(created: dict[str, Json], name: Any, kind: str) -> Json:
    if not isinstance(name, str) or name not in created:
        raise SeedError(f"no {kind} {name!r}; there is {', '.join(created) or 'none'}")
    return created[name]
