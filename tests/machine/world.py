"""Where the state machine plays: a simulated Stripe, a site, the wire between them, and both their clocks.

Nothing happens by itself. Both clocks stand still but for a millisecond before each step, and move when a rule says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import time_machine
from django.core.cache import caches
from django.db import connection
from django.test import override_settings
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from entitlements_app import inbox, poll
from entitlements_app.fetches import Fetch, Told
from entitlements_app.linking import link
from entitlements_app.models import (
    AccountState,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    Product,
    ProductFeature,
    SubscriberState,
    SyncRun,
    WebhookEvent,
)
from entitlements_app.stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, parse_event
from entitlements_app.testing import StripeSimulator
from tests.delivery import SECRET
from tests.receivers import Listener, connected
from tests.rows import make_subscriber

Event = dict[str, Any]

START = 1_790_000_000
TEN_MINUTES = 600
TABLES = (
    EntitlementOverride,
    EntitlementChange,
    WebhookEvent,
    SubscriberState,
    Customer,
    ProductFeature,
    Product,
    Feature,
    AccountState,
    SyncRun,
)
# What is not to be trusted in this run: nothing, one thing, or all.
TROUBLES = ((), (), ("lost",), ("lag",), ("misdated",), ("undated",), ("lost", "lag"))
TROUBLES = (*TROUBLES, ("lost", "lag", "misdated", "undated"))

# Before which of its statements a process ends, if it does.
die = st.one_of(st.none(), st.none(), st.none(), st.integers(1, 30))
# Seconds after the step before.
after = st.sampled_from([0, 0, 0, 1, 3, 61])


class Died(BaseException):
    """The process ends here."""


class MortalListener(Listener):
    """Hears what it is told, and then sometimes fails, or ends the process before anybody could write that down."""

    def __init__(self) -> None:
        super().__init__()
        self.dies = 0

    def __call__(self, **kwargs: Any) -> None:
        super().__call__(**kwargs)
        if self.dies:
            self.dies -= 1
            raise Died


@dataclass
class InFlight:
    """A fetch between its claim and its end."""

    fetch: Fetch
    told: Told | None = None


class World(RuleBasedStateMachine):
    """Three customers, two subscribers."""

    @initialize(
        ours_is_ahead=st.sampled_from([0, TEN_MINUTES, -TEN_MINUTES]),
        troubles=st.sampled_from(TROUBLES),
        cache=st.sampled_from([None, "default"]),
        deleted_customer=st.sampled_from(["empty", "error"]),
        deletion_sends_summary=st.booleans(),
        list_order=st.sampled_from(["newest", "oldest"]),
        entitlement_per_product=st.booleans(),
    )
    def begin(self, ours_is_ahead: int, troubles: tuple[str, ...], cache: str | None, **switches: Any) -> None:
        self.troubles = troubles
        self.ours_is_ahead = ours_is_ahead
        self.has_lagged = self.was_misdated = self.was_undated = self.has_died = self.pages_moved = False
        self.is_written = True
        self.lasting: dict[str, Any] = {}
        self.closing = ExitStack()
        self.stripe = self.closing.enter_context(StripeSimulator(webhook_secret=SECRET, seed=1))
        self.stripe.clock.freeze()
        self.stripe.clock.set(START)
        self.began = self.stripe.clock.now()
        for name, answer in switches.items():
            setattr(self.stripe, name, answer)
        self.ours = self.closing.enter_context(time_machine.travel(START + ours_is_ahead, tick=False))
        self.closing.enter_context(
            override_settings(
                ENTITLEMENTS_STRIPE_API_KEY=self.stripe.api_key,
                ENTITLEMENTS_STRIPE_API_BASE=self.stripe.url,
                ENTITLEMENTS_STRIPE_RATE=1_000,
                ENTITLEMENTS_CACHE=cache,
            )
        )
        self._empty_the_site()
        self.listener = MortalListener()
        self.closing.enter_context(connected(self.listener))
        self.in_flight: list[InFlight] = []
        self._open_the_shop()
        assert poll.backfill_events(deadline=time.monotonic() + 60).problem == ""  # how far the next one goes back

    def _empty_the_site(self) -> None:
        if connection.vendor == "sqlite":
            connection.cursor().execute("PRAGMA synchronous = OFF")  # nobody pulls the plug
        caches["default"].clear()
        for model in TABLES:
            model._default_manager.all().delete()

    def _open_the_shop(self) -> None:
        self.features: dict[str, str] = {}
        self.products: dict[str, str] = {}
        self.prices: dict[str, str] = {}
        plans = {"pro": ("sso", "export"), "enterprise": ("sso", "export", "audit"), "reports": ("reports",)}
        wide, huge = ([f"k{number}" for number in range(many)] for many in (12, 101))
        for name, keys in (plans | {"wide": wide, "huge": huge}).items():
            for key in keys:
                if key not in self.features:
                    self.features[key] = self.stripe.create_feature(key)["id"]
            self.products[name] = self.stripe.create_product(name, features=[self.features[key] for key in keys])["id"]
            self.prices[name] = self.stripe.create_price(self.products[name], interval="week")["id"]
        self.customers = [self.stripe.create_customer()["id"] for _ in range(3)]
        self.deleted: set[str] = set()
        self.subscriptions = [self.stripe.subscribe(who, self.prices["pro"])["id"] for who in self.customers[:2]]
        self.subscribers = [make_subscriber(), make_subscriber()]
        link(self.subscribers[0], self.customers[0])
        link(self.subscribers[0], self.customers[1])
        self.wire: list[Event] = []
        self.seen = 0
        self.happened_at: dict[str, float] = {}
        self.names = {customer: f"customer {nth}" for nth, customer in enumerate(self.customers)}
        self.collect()

    def teardown(self) -> None:
        if hasattr(self, "closing"):
            self.closing.close()

    # --- for the rules

    def lasting_fault(self, name: str, value: Any) -> None:
        self.lasting[name] = value
        getattr(self.stripe, name)(value)

    def calls_succeed(self) -> None:
        """No call fails any more; lasting faults last."""
        self.stripe.clear_faults()
        for name, value in self.lasting.items():
            getattr(self.stripe, name)(value)

    def step(self, what: str, *, after: float = 0) -> None:
        """Say what happens now: a millisecond after what happened before, or later."""
        note(f"    {f'{after:g} s later ' if after else ''}{what}")
        self.time_goes_on(after or 0.001)

    def time_goes_on(self, seconds: float) -> None:
        self.stripe.advance(seconds)
        self.ours.shift(seconds)
        self.collect()

    def collect(self) -> None:
        """Put on the wire what Stripe has told since."""
        events = self.stripe.all_events()
        for event in events[self.seen :]:
            if concerns_us(event):
                self.wire.append(event)
                self.happened_at[event["id"]] = self.stripe.clock.now()
                note(f"        Stripe tells {self.describe(event)}")
        self.seen = len(events)

    def describe(self, event: Event) -> str:
        about = self.names[customer_of(event)]
        dated = f"+{event['created'] - START} s"
        if event["type"] != SUMMARY_UPDATED:
            return f"{event['type']} of {about} ({dated})"
        listed = event["data"]["object"]["entitlements"]
        keys = " ".join(sorted(row["lookup_key"] for row in listed["data"])) or "nothing"
        return f"summary of {about} ({dated}): {keys}{' and more' if listed['has_more'] else ''}"

    @contextmanager
    def process(self, dies: int | None = None) -> Iterator[None]:
        """A process of the site, which ends before its nth statement, if it comes so far. Any pause is over."""
        AccountState.objects.update(next_call_at=None)
        self.is_written = True
        left = -1 if dies is None else dies

        def execute(execute: Any, *args: Any) -> Any:
            nonlocal left
            left -= left > 0
            if left == 0:
                raise Died
            return execute(*args)

        try:
            with connection.execute_wrapper(execute):
                yield
        except Died:
            self.has_died = True
            note("        … and its process ended there")
        assert not connection.in_atomic_block

    def store(self, event: Event) -> WebhookEvent:
        return inbox.store(parse_event(json.dumps(event)), sent_at=self.stripe.clock.seconds)


def concerns_us(event: Event) -> bool:
    kind: str = event["type"]
    return kind in (SUMMARY_UPDATED, CUSTOMER_DELETED) or kind.startswith("customer.subscription.")


def customer_of(event: Event) -> str:
    subject = event["data"]["object"]
    return str(subject["id"] if event["type"] == CUSTOMER_DELETED else subject["customer"])
