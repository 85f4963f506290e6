"""What an explanation consists of: ids, texts and times, of which `dataclasses.asdict` makes plain data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from .in_force import GRANT, Term


class Case(StrEnum):
    """Why the answer is what it is. Of those that apply it is the first, as they stand here."""

    FORCED = "forced"  # a test has set the answer
    NOBODY = "nobody"
    UNSAVED = "unsaved"
    UNLINKED = "unlinked"  # a customer was asked about that is nobody's
    DENIED = "denied"
    HELD = "held"  # yes: a customer holds it
    GRANTED = "granted"  # yes: only an override says so
    TO_COME = "to_come"  # an override will grant it
    OTHER_SPELLING = "other_spelling"
    ENDED = "ended"  # an override granted it
    NO_CUSTOMER = "no_customer"
    OTHER_MODE = "other_mode"
    OTHER_ACCOUNT = "other_account"
    DELETED = "deleted"
    UNKNOWN_TO_STRIPE = "unknown_to_stripe"
    NOT_HEARD_OF = "not_heard_of"  # nothing has come from Stripe yet
    LOST = "lost"  # a customer held it
    UNKNOWN_KEY = "unknown_key"
    NOT_HELD = "not_held"


@dataclass(frozen=True)
class AboutFeature:
    """A feature that has the key. An archived one keeps granting to those who hold it."""

    stripe_id: str
    name: str
    is_archived: bool


@dataclass(frozen=True)
class AboutEvent:
    """A webhook event that is not processed: `pending`, or `failed` since Stripe was last asked."""

    stripe_id: str
    type: str
    status: str
    received_at: datetime
    next_attempt_at: datetime | None
    error: str


@dataclass(frozen=True)
class AboutCustomer:
    """A customer of the subscriber. `is_own`: of the site's own account and the configured mode; others never count.

    `fetched_at` is the last confirmation: when Stripe was last asked for the full list. `hinted_at` is set while there
    is news that no fetch has settled yet.
    """

    stripe_id: str
    account: str
    livemode: bool
    is_own: bool
    is_heard_of: bool
    fetched_at: datetime | None
    deleted_at: datetime | None
    missing_since: datetime | None
    hinted_at: datetime | None
    urgent: bool
    next_fetch_at: datetime | None
    events: tuple[AboutEvent, ...]

    @property
    def is_live(self) -> bool:
        """Whether what it holds counts."""
        return self.is_own and self.deleted_at is None


@dataclass(frozen=True)
class AboutEntitlement:
    """An active entitlement that grants the key. `confirmed_at`: when a fetch first confirmed what an event said."""

    stripe_id: str
    customer: str
    feature: AboutFeature
    since: datetime
    confirmed_at: datetime | None


@dataclass(frozen=True)
class AboutOverride:
    """An override of the key. `counts`: it is in force, and no denial wins over it.

    `is_bridge`: it stands in for what Stripe owes, and ends by itself when Stripe grants the key.
    """

    id: int
    effect: str
    term: Term
    counts: bool
    starts_at: datetime
    expires_at: datetime | None
    reason: str
    author: str
    is_bridge: bool = False


@dataclass(frozen=True)
class AboutChange:
    """A row of the change log. `effective`: the subscriber's answer changed. `customer` is empty for overrides."""

    id: int
    kind: str
    cause: str
    effective: bool
    customer: str
    at: datetime


@dataclass(frozen=True)
class AboutCache:
    """The answer that gates are given without asking the database."""

    entitled: bool
    as_of: datetime


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """An answer about one key, and the chain that leads to it, as the database had it at `as_of`.

    `reason` says in a sentence what `case` stands for. `held_keys` is the whole answer; `other_spellings` are keys,
    held first, that differ from this one only in case, blanks, `_` and `-`. `is_inactive`: a user whose requests hold
    nothing, whatever `entitled` says. `calls_stopped` says why Stripe is not asked at present.
    """

    entitled: bool
    key: str
    case: Case = Case.NOT_HELD
    reason: str = ""
    subscriber_id: Any
    livemode: bool
    as_of: datetime
    is_known: bool
    other_spellings: tuple[str, ...] = ()
    held_keys: tuple[str, ...] = ()
    is_inactive: bool = False
    features: tuple[AboutFeature, ...] = ()
    customers: tuple[AboutCustomer, ...] = ()
    entitlements: tuple[AboutEntitlement, ...] = ()
    overrides: tuple[AboutOverride, ...] = ()
    changes: tuple[AboutChange, ...] = ()
    cache: AboutCache | None = None
    has_api_key: bool
    calls_stopped: str

    @property
    def live_customers(self) -> tuple[AboutCustomer, ...]:
        return tuple(customer for customer in self.customers if customer.is_live)

    @property
    def counting_overrides(self) -> tuple[AboutOverride, ...]:
        return tuple(row for row in self.overrides if row.counts)

    @property
    def grants_to_come(self) -> tuple[AboutOverride, ...]:
        """The next one first."""
        return tuple(row for row in self.overrides if row.effect == GRANT and row.term is Term.TO_COME)

    @property
    def grants_over(self) -> tuple[AboutOverride, ...]:
        """The last one first."""
        return tuple(row for row in self.overrides if row.effect == GRANT and row.term is Term.OVER)

    @property
    def losses(self) -> tuple[AboutChange, ...]:
        """When a customer lost the key, or the subscriber the customer; the last one first."""
        return tuple(row for row in self.changes if row.kind == "revoked" and row.customer)
