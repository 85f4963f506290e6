"""`expand[]`: an id in an answer is replaced by the object it names, where Stripe's API allows it."""

from typing import Any

from . import errors
from .account import Account, Json

DEEPEST = 4

# What may be named on the way, by the type of the object it stands in; lists are walked through `data`.
FIELDS: dict[str, dict[str, str]] = {
    "entitlements.active_entitlement": {"feature": "entitlements.feature"},
    "product_feature": {"entitlement_feature": "entitlements.feature"},
    "product": {"default_price": "price"},
    "price": {"product": "product"},
    "subscription": {"customer": "customer", "items": "list:subscription_item"},
    "subscription_item": {"price": "price"},
}


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
    if not keys or node is None:
        return
    key, rest = keys[0], keys[1:]
    step = _step(kind, key) or ""
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
