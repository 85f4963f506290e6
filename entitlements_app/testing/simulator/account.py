"""The state behind the simulated API: one account in one mode."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import errors
from .clock import Clock
from .identifiers import Identifiers

Json = dict[str, Any]
Table = dict[str, Json]
Granted = tuple[str, str]  # feature id, and the product that has it

API_VERSION = "2025-06-30.basil"
INLINE_LIMIT = 10


@dataclass
class Switches:
    """Where nobody could say what Stripe does, one answer of several; `switch_board` has the others."""

    missing_customer: str = "400"
    deleted_customer: str = "empty"
    granting: frozenset[str] = frozenset({"trialing", "active", "past_due", "paused"})
    pause_collection_grants: bool = True
    entitlement_per_product: bool = False
    renewal_follows_catalogue: bool = True
    archived_in_list: bool = False
    nested_url_answers: bool = False
    deletion_sends_summary: bool = True
    product_updated_on_attach: bool = False
    previous_is_cut: bool = False
    list_order: str = "newest"


@dataclass
class Distortions:
    """What a fault changes in the answers and events for a while."""

    inline_limit: int = INLINE_LIMIT
    same_second_left: int = 0
    same_second: int | None = None
    shift_left: int = 0
    shift: int = 0
    list_lag: float = 0.0
    events_lag: float = 0.0
    between_pages: list[Callable[[], object]] = field(default_factory=list)


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
    id: str = "acct_1Simulator"
    switches: Switches = field(default_factory=Switches)
    distortions: Distortions = field(default_factory=Distortions)
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
    # subscription id -> what its products had when its items were last set
    subscription_features: dict[str, list[Granted]] = field(default_factory=dict)
    # customer id -> what is granted -> active entitlement
    entitlements: dict[str, dict[Granted, Json]] = field(default_factory=dict)
    # customer id -> (when, its active entitlements from then on), oldest first
    history: dict[str, list[tuple[float, list[Json]]]] = field(default_factory=dict)
    # event id -> when it happened, whatever its `created` says
    recorded_at: dict[str, float] = field(default_factory=dict)
    payment_methods: Table = field(default_factory=dict)
    failing_cards: set[str] = field(default_factory=set)
    # ids that exist in the mode that is not simulated
    of_other_mode: set[str] = field(default_factory=set)
    silent_about: str | None = None
    on_event: Callable[[Json], None] | None = None

    def find(self, table: Table, kind: str, name: str, *, param: str = "id", status: int = 404) -> Json:
        """The live object. Raises `resource_missing` for one that never was or was deleted."""
        row = table.get(name)
        if row is None or row.get("deleted"):
            raise self.missing(kind, name, param=param, status=status)
        return row

    def show(self, page: Json) -> Json:
        """A page as it is now. What is to happen between two pages happens then, unless it is the last one."""
        if page["has_more"]:
            page = copy.deepcopy(page)
            while self.distortions.between_pages:
                self.distortions.between_pages.pop(0)()
        return page

    def missing(self, kind: str, name: str, *, param: str, status: int) -> errors.ApiError:
        """The refusal for an id that is not there; it says so if the id is one of the other mode's."""
        other = ("test" if self.livemode else "live") if name in self.of_other_mode else ""
        return errors.resource_missing(kind, name, param=param, status=status, other_mode=other)


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
