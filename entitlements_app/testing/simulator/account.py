"""The state behind the simulated API: one account in one mode."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from . import errors
from .clock import Clock
from .identifiers import Identifiers

Json = dict[str, Any]
Table = dict[str, Json]

MissingCustomer = Literal["400", "404", "empty"]
DeletedCustomer = Literal["empty", "error"]

API_VERSION = "2025-06-30.basil"
INLINE_LIMIT = 10


@dataclass
class Switches:
    """Where nobody could say what Stripe does, both answers; and what a fault may change for a while."""

    missing_customer: MissingCustomer = "400"
    deleted_customer: DeletedCustomer = "empty"
    inline_limit: int = INLINE_LIMIT
    same_second_left: int = 0
    same_second: int | None = None


@dataclass(frozen=True)
class Call:
    """One request after its parameters were checked: the ids in its path, in order, and typed parameters."""

    ids: tuple[str, ...]
    params: Json
    request_id: str
    idempotency_key: str | None


@dataclass
class Account:
    """Everything is kept in order of creation. Whoever reads or writes it holds `lock`."""

    clock: Clock
    identifiers: Identifiers
    livemode: bool
    switches: Switches = field(default_factory=Switches)
    lock: threading.RLock = field(default_factory=threading.RLock)
    features: Table = field(default_factory=dict)
    products: Table = field(default_factory=dict)
    prices: Table = field(default_factory=dict)
    customers: Table = field(default_factory=dict)
    subscriptions: Table = field(default_factory=dict)
    events: Table = field(default_factory=dict)
    webhook_endpoints: Table = field(default_factory=dict)
    endpoint_secrets: dict[str, str] = field(default_factory=dict)
    # product id -> product feature id -> feature id
    product_features: dict[str, dict[str, str]] = field(default_factory=dict)
    # subscription id -> ids of the features its products had when its items were last set
    subscription_features: dict[str, list[str]] = field(default_factory=dict)
    # customer id -> feature id -> active entitlement
    entitlements: dict[str, Table] = field(default_factory=dict)
    on_event: Callable[[Json], None] | None = None

    def find(self, table: Table, kind: str, name: str, *, param: str = "id", status: int = 404) -> Json:
        """The live object. Raises `resource_missing` for one that never was or was deleted."""
        row = table.get(name)
        if row is None or row.get("deleted"):
            raise errors.resource_missing(kind, name, param=param, status=status)
        return row


def changed(row: Json, changes: Json) -> Json:
    """Write the changes and return what they replaced, as `previous_attributes` names it."""
    previous = {key: row.get(key) for key, value in changes.items() if row.get(key) != value}
    row.update(changes)
    return previous


def merged_metadata(held: dict[str, str], given: dict[str, str] | str) -> dict[str, str]:
    """Stripe's rule: keys are merged, an empty value removes its key, an empty string removes all."""
    if isinstance(given, str):
        return {}
    return {key: value for key, value in (held | given).items() if value != ""}
