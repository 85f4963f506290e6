"""Anything in any order: plans change, events come late, twice, swapped, cut or never, links move, Stripe fails, staff
grant and deny.

At each moment the log replays to what our rows and the gates say, and a receiver of signals that does not fail was told
each change of an answer once, in order. In the end, when Stripe answers, we hold what it says.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from entitlements_app.access import get_entitlements
from entitlements_app.exceptions import CustomerDeleted, StripeUnavailable
from entitlements_app.linking import link, unlink
from entitlements_app.models import (
    AccountState,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    SubscriberState,
    WebhookEvent,
)
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator
from tests.delivery import SECRET, deliver
from tests.receivers import Listener, connected
from tests.rows import make_subscriber
from tests.shop import PLANS, Shop

pytestmark = pytest.mark.django_db(transaction=True)

SOAK = os.environ.get("TEST_EXAMPLES")
PLAN = st.sampled_from([*PLANS, "wide"])


class Site(RuleBasedStateMachine):
    """One subscriber pair and up to three customers."""

    customers = Bundle("customers")
    subscriptions = Bundle("subscriptions")

    @initialize(cache=st.sampled_from([None, "default"]))
    def open_shop(self, cache: str | None) -> None:
        caches["default"].clear()
        for model in (
            EntitlementOverride,
            EntitlementChange,
            WebhookEvent,
            SubscriberState,
            Customer,
            Feature,
            AccountState,
        ):
            model.objects.all().delete()
        self.stripe = StripeSimulator(webhook_secret=SECRET, seed=1).start()
        self.configuration = override_settings(
            ENTITLEMENTS_STRIPE_API_KEY=self.stripe.api_key,
            ENTITLEMENTS_STRIPE_API_BASE=self.stripe.url,
            ENTITLEMENTS_STRIPE_RATE=10_000,
            ENTITLEMENTS_CACHE=cache,
        )
        self.configuration.enable()
        self.listener = Listener()
        self.connections = connected(self.listener)
        self.connections.__enter__()
        self.shop = Shop(self.stripe)
        self.shop.prices["wide"] = self.shop.plan("wide", *(f"k{number}" for number in range(12)))
        self.shop.new_events()
        self.subscribers = [make_subscriber(), make_subscriber()]
        self.posted: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []
        self.deleted: set[str] = set()

    def teardown(self) -> None:
        if not hasattr(self, "stripe"):
            return
        try:
            self.the_truth_arrives()
        finally:
            self.connections.__exit__(None, None, None)
            self.configuration.disable()
            self.stripe.stop()

    # --- at Stripe

    @rule(target=customers)
    def create_customer(self) -> str:
        return self.shop.customer()

    @rule(target=subscriptions, customer=customers, plan=PLAN)
    def subscribe(self, customer: str, plan: str) -> dict[str, Any]:
        if customer in self.deleted:
            return {"status": "canceled"}
        return self.stripe.subscribe(customer, self.shop.prices[plan])

    @rule(subscription=subscriptions, plan=PLAN)
    def change_plan(self, subscription: dict[str, Any], plan: str) -> None:
        if self._lives(subscription):
            self.stripe.change_plan(subscription["id"], self.shop.prices[plan])

    @rule(subscription=subscriptions)
    def cancel(self, subscription: dict[str, Any]) -> None:
        if self._lives(subscription):
            self.stripe.cancel(subscription["id"])

    def _lives(self, subscription: dict[str, Any]) -> bool:
        if "id" not in subscription:
            return False
        return self.stripe.call("GET", f"/v1/subscriptions/{subscription['id']}")["status"] != "canceled"

    @rule(customer=customers)
    def delete_customer(self, customer: str) -> None:
        if customer not in self.deleted:
            self.stripe.delete_customer(customer)
            self.deleted.add(customer)

    @rule(seconds=st.sampled_from([1, 3, 70, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.stripe.clock.advance(seconds)

    @rule(times=st.integers(1, 3), status=st.sampled_from([429, 500]))
    def stripe_fails(self, times: int, status: int) -> None:
        self.stripe.fail_requests(status, times=times)

    # --- on the wire

    @rule(data=st.data(), again=st.booleans())
    def an_event_arrives(self, data: st.DataObject, again: bool) -> None:
        self.waiting += self.shop.new_events()
        if self.waiting:
            event = data.draw(st.sampled_from(self.waiting))
            if not again:
                self.waiting.remove(event)
            assert deliver(event, t=self.stripe.clock.seconds).status_code == 200

    @rule(data=st.data())
    def an_event_is_lost(self, data: st.DataObject) -> None:
        self.waiting += self.shop.new_events()
        if self.waiting:
            self.waiting.remove(data.draw(st.sampled_from(self.waiting)))

    # --- on the site

    @rule(customer=customers, who=st.integers(0, 1))
    def link(self, customer: str, who: int) -> None:
        try:
            link(self.subscribers[who], customer, move=True)
        except CustomerDeleted:
            assert customer in self.deleted

    @rule(customer=customers)
    def unlink(self, customer: str) -> None:
        if Customer.objects.filter(stripe_id=customer).exists():
            unlink(customer)

    @rule(customer=customers)
    def fetch(self, customer: str) -> None:
        AccountState.objects.update(next_call_at=None)  # any pause is over
        for row in Customer.objects.filter(stripe_id=customer):
            try:
                sync_customer(row)
            except StripeUnavailable:
                continue

    @rule(
        who=st.integers(0, 1),
        key=st.sampled_from(["sso", "audit", "k3"]),
        write=st.sampled_from([grant, deny]),
        starts=st.sampled_from([None, -1.0, 0.02, 60.0]),
        until=st.sampled_from([None, 0.04, 3600.0]),
    )
    def override(self, who: int, key: str, write: Any, starts: float | None, until: float | None) -> None:
        now = timezone.now()
        period = {name: now + timedelta(seconds=at) for name, at in (("starts", starts), ("until", until)) if at}
        try:
            write(self.subscribers[who], key, **period, force=True)
        except ValueError:  # it would never count
            assert until is not None

    @rule(who=st.integers(0, 1), key=st.sampled_from(["sso", "audit", "k3"]))
    def clear(self, who: int, key: str) -> None:
        clear(self.subscribers[who], key)

    @rule()
    def overrides_start_and_end(self) -> None:
        time.sleep(0.05)

    @rule()
    def cron(self) -> None:
        AccountState.objects.update(next_call_at=None)
        call_command("entitlements_run", verbosity=0, stdout=StringIO(), stderr=StringIO())

    # --- always

    @invariant()
    def the_log_replays(self) -> None:
        if not hasattr(self, "stripe"):
            return
        for customer in Customer.objects.all():
            changes = EntitlementChange.objects.filter(customer=customer, cause__in=["event", "fetch"])
            keys = set(customer.active_entitlements.values_list("lookup_key", flat=True))
            assert _replay(changes) == keys
        for subscriber in self.subscribers:
            replayed = _replay(EntitlementChange.objects.filter(subscriber=subscriber, effective=True))
            answer = set(get_entitlements(subscriber))
            assert replayed == answer or self._boundary_passed(subscriber)
            for state in SubscriberState.objects.filter(subscriber=subscriber):
                assert set(state.announced) == replayed

    def _boundary_passed(self, subscriber: Any) -> bool:
        """Whether an override has started or ended since the last write, which nobody has told yet."""
        return SubscriberState.objects.filter(subscriber=subscriber, next_boundary_at__lte=timezone.now()).exists()

    @invariant()
    def each_change_of_an_answer_was_told_once_and_in_order(self) -> None:
        if not hasattr(self, "stripe"):
            return
        for subscriber in self.subscribers:
            changes = EntitlementChange.objects.filter(subscriber=subscriber, effective=True).order_by("pk")
            assert self.listener.of(subscriber) == [change.pk for change in changes]
        assert not EntitlementChange.objects.undelivered().exists()

    # --- in the end

    def the_truth_arrives(self) -> None:
        self.stripe.clear_faults()
        long_ago = timezone.now() - timedelta(hours=1)
        Customer.objects.filter(deleted_at=None).update(next_fetch_at=long_ago, hinted_at=long_ago)
        self.cron()
        for customer in Customer.objects.all():
            truth = set() if customer.stripe_id in self.deleted else self.shop.holds(customer.stripe_id)
            assert set(customer.active_entitlements.values_list("lookup_key", flat=True)) == truth
        self.cron()  # which tells what has started and ended
        assert not SubscriberState.objects.filter(next_boundary_at__lte=timezone.now() - timedelta(seconds=5)).exists()
        self.the_log_replays()
        self.each_change_of_an_answer_was_told_once_and_in_order()


def _replay(changes: Any) -> set[str]:
    keys: set[str] = set()
    for change in changes.order_by("pk"):
        assert (change.kind == "granted") != (change.lookup_key in keys), f"{change} tells nothing new"
        keys ^= {change.lookup_key}
    return keys


def test_whatever_happens_we_end_with_what_stripe_says() -> None:
    run_state_machine_as_test(
        Site,
        settings=settings(
            max_examples=int(SOAK or 30),
            stateful_step_count=30,
            # The same cases each time; a soak looks for new ones.
            derandomize=SOAK is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
