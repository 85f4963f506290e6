"""`expand[]`: an id in an answer is replaced by the object it names, where Stripe's API allows it."""

from collections.abc import Callable
from typing import Any

from . import errors
from .account import Account, Json

DEEPEST = 4

# What may be named on the way, by the type of the object it stands in; lists are walked through `data`.
FIELDS: dict[str, dict[str, str]] = {
    "entitlements.active_entitlement": {"feature": "entitlements.feature"},
    "product_feature": {"entitlement_feature": "entitlements.feature"},
    "product": {"default_price": "price"},
    "price": {"product": "product", "currency_options": "currency_options", "tiers": "tiers"},
    "customer": {"default_source": "source", "sources": "sources"},
    "subscription": {"customer": "customer", "discounts": "discount", "items": "list:subscription_item"},
    "subscription_item": {"discounts": "discount", "price": "price"},
}


def _sources(customer: Json) -> Json:
    """Always empty: nobody pays with the cards of before payment methods here."""
    return {"object": "list", "data": [], "has_more": False, "url": f"/v1/customers/{customer['id']}/sources"}


def _currency_options(price: Json) -> Json:
    """Only the price's own currency."""
    fields = ("custom_unit_amount", "tax_behavior", "unit_amount", "unit_amount_decimal")
    return {price["currency"]: {name: price[name] for name in fields}}


# What an answer has only if it is asked for.
LEFT_OUT: dict[str, Callable[[Json], Json]] = {"sources": _sources, "currency_options": _currency_options}


def expand(account: Account, answer: Json, paths: list[str], returns: str) -> None:
    """Expand in place. Raises a 400 for a path that cannot be expanded, whether or not there are rows."""
    for path in paths:
        keys = path.split(".")
        if len(keys) > DEEPEST or not _is_expandable(keys, returns):
            raise errors.parameter_invalid(f"This property cannot be expanded ({path}).", "expand")
        _expand_keys(account, answer, keys, returns)


def _is_expandable(keys: list[str], kind: str) -> bool:
    for key in keys:
        step = _step(kind, key)
        if step is None:
            return False
        kind = step
    return ":" not in kind


def _step(kind: str, key: str) -> str | None:
    if kind.startswith("list:"):
        return kind.removeprefix("list:") if key == "data" else None
    return FIELDS.get(kind, {}).get(key)


def _expand_keys(account: Account, node: Any, keys: list[str], kind: str) -> None:
    if not keys or node is None or node.get("deleted"):
        return
    key, rest = keys[0], keys[1:]
    step = _step(kind, key) or ""
    if step in LEFT_OUT:
        node[key] = LEFT_OUT[step](node)
    if key not in node:  # tiers, which no price has here
        return
    if isinstance(node[key], str):
        node[key] = _named(account, step, node[key])
    for child in node[key] if isinstance(node[key], list) else [node[key]]:
        _expand_keys(account, child, rest, step)


def _named(account: Account, kind: str, name: str) -> Json:
    tables = {
        "entitlements.feature": account.features,
        "price": account.prices,
        "product": account.products,
        "customer": account.customers,
    }
    return dict(tables[kind][name])
