"""What is promised at every step, and in the end."""

from __future__ import annotations

import sys
import time
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone
from hypothesis.stateful import invariant

from entitlements_app import bridges, budget, inbox, overrides, poll, provisioning
from entitlements_app.access import get_entitlements
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementChange, SubscriberState, WebhookEvent
from tests.machine.world import World, concerns_us, customer_of
from tests.rows import replay

NOTHING: frozenset[str] = frozenset()


class Promises(World):
    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.held_before: dict[str, frozenset[str]] = {}

    # --- what is true

    @property
    def is_ordered(self) -> bool:
        """Whether Stripe's times tell the order of things: no list has lagged, no event had another time than its own.

        Without a `Date` our own clock stands in, and has to be right.
        """
        return not (self.has_lagged or self.was_misdated or (self.was_undated and self.ours_is_ahead))

    def history(self, customer: str) -> list[frozenset[str]]:
        return [NOTHING, *(keys for _, keys in self.stripe.held_since(customer))]

    def holds(self, customer: str) -> frozenset[str]:
        return self.history(customer)[-1]

    def told(self) -> set[str]:
        """Customers of whom all events have been delivered, or polled, and processed."""
        processed = set(WebhookEvent.objects.filter(status="processed").values_list("stripe_id", flat=True))
        events = filter(concerns_us, self.stripe.all_events())
        return set(self.customers) - {customer_of(event) for event in events if event["id"] not in processed}

    def rows(self) -> dict[str, tuple[Customer, frozenset[str]]]:
        held: dict[int, set[str]] = {}
        for pk, key in ActiveEntitlement.objects.values_list("customer_id", "lookup_key"):
            held.setdefault(pk, set()).add(key)
        return {row.stripe_id: (row, frozenset(held.get(row.pk, ()))) for row in Customer.objects.all()}

    # --- at every step

    @invariant()
    def all_is_as_promised(self) -> None:
        self.customers_are_as_promised()
        self.no_bridge_is_left_over()
        if self.is_written:
            self.the_log_replays()
        self.is_written = False

    def customers_are_as_promised(self) -> None:
        told = self.told()
        for customer, (row, held) in self.rows().items():
            who, truth = self.names[customer], self.holds(customer)
            self._goes_not_back(customer, row, held)
            if customer in told and held != truth and self.is_ordered:
                assert row.urgent, f"{who}: all is told, {set(held)} is not {set(truth)}, and nobody hurries"
            if customer in told and row.hinted_at is None:
                assert held == truth, f"{who}: all is told and settled, and {set(held)} is not {set(truth)}"
            if row.deleted_at is not None:
                assert not held, "deletion is final"

    def no_bridge_is_left_over(self) -> None:
        for bridge in bridges.standing(livemode=False):
            held = ActiveEntitlement.objects.granting(livemode=False).filter(lookup_key=bridge.lookup_key)
            assert not held.filter(customer__subscriber=bridge.subscriber_id).exists(), f"{bridge}: nobody ends it"

    def _goes_not_back(self, customer: str, row: Customer, held: frozenset[str]) -> None:
        who, states = self.names[customer], self.history(customer)
        before = self.versions.get(customer, 0)
        assert row.version >= before, f"{who}: the version fell"
        if row.version == before:
            assert held == self.held_before.get(customer, NOTHING), f"{who}: another state, and the same version"
        reached = self.reached.get(customer, 0)
        now_at = [nth for nth, keys in enumerate(states) if nth >= reached and keys == held]
        if not now_at:
            assert held in states or self.pages_moved, f"{who}: {set(held)} never was true"
            assert held not in states or not self.is_ordered, f"{who}: {set(held)} is older than what was held"
        self.reached[customer] = min(now_at, default=0)
        self.versions[customer], self.held_before[customer] = row.version, held

    def the_log_replays(self) -> None:
        changes = list(EntitlementChange.objects.order_by("pk"))
        for row, held in self.rows().values():
            assert held == replay(
                change for change in changes if change.customer_id == row.pk and change.cause in ("event", "fetch")
            )
        states = {row.subscriber_id: row for row in SubscriberState.objects.all()}
        for subscriber in self.subscribers:
            effective = [row for row in changes if row.subscriber_id == subscriber.pk and row.effective]
            announced, state = replay(effective), states.get(subscriber.pk)
            assert announced == frozenset((state and state.announced) or ())
            if state is None or state.next_boundary_at is None or state.next_boundary_at > timezone.now():
                assert announced == self.answer(subscriber)
            heard = list(dict.fromkeys(self.listener.of(subscriber)))
            assert heard == [row.pk for row in effective][: len(heard)], "told out of order, or one was left out"
            assert {row.pk for row in effective if row.delivered_at} <= set(heard), "delivered, and nobody was told"

    def answer(self, subscriber: Any) -> frozenset[str]:
        """What gates say; but a process that died between commit and cache leaves an old answer for a while."""
        if not self.has_died:
            return frozenset(get_entitlements(subscriber))
        with override_settings(ENTITLEMENTS_CACHE=None):
            return frozenset(get_entitlements(subscriber))

    # --- in the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "closing") and sys.exception() is None:
                self.the_end()
        finally:
            super().teardown()

    def the_end(self) -> None:
        """No fault any more. Who was at work has died, and what was on its way is lost."""
        self.step("the end: all faults stop, workers die, events are lost")
        self.stripe.clear_faults()
        self.listener.fails = self.listener.dies = 0
        for event in self.wire:
            if not self.is_findable(event):
                self.store(event)
        self.in_flight, self.wire = [], []
        budget.resume()
        self._time_goes_on(600)
        self._one_pass()
        self._all_is_true()
        before = self._state()
        self._one_pass()
        assert self._state() == before, "a second pass changed something"
        self._time_goes_on(7200)
        overrides.tell_boundaries(deadline=time.monotonic() + 60)
        provisioning.deliver_due(deadline=time.monotonic() + 60)
        self.the_log_replays()
        for subscriber in self.subscribers:
            effective = EntitlementChange.objects.filter(subscriber=subscriber, effective=True).order_by("pk")
            assert list(dict.fromkeys(self.listener.of(subscriber))) == [change.pk for change in effective]
        assert not EntitlementChange.objects.undelivered().exists()

    def _one_pass(self) -> None:
        with self.process():
            assert poll.backfill_events(deadline=time.monotonic() + 60).problem == ""
            inbox.process_due(deadline=time.monotonic() + 60)
            call_command("entitlements_sync", marked=True, verbosity=0, stdout=StringIO(), stderr=StringIO())

    def _time_goes_on(self, seconds: float) -> None:
        """What is due by then at Stripe is told and heard."""
        self.time_goes_on(seconds)
        for event in self.wire:
            self.store(event)
        self.wire = []

    def _all_is_true(self) -> None:
        for customer, (_, held) in self.rows().items():
            truth = self.holds(customer)
            assert held == truth, f"{self.names[customer]}: in the end {set(held)} is not {set(truth)}"
        self.the_log_replays()

    def _state(self) -> tuple[list[Any], list[int], list[frozenset[str]]]:
        rows = ActiveEntitlement.objects.order_by("pk").values_list("customer_id", "feature_id", "stripe_id")
        changes = EntitlementChange.objects.order_by("pk").values_list("pk", flat=True)
        return list(rows), list(changes), self.answers()

    def answers(self) -> list[frozenset[str]]:
        return [self.answer(subscriber) for subscriber in self.subscribers]
