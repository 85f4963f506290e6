"""Random walks over the real code: fetches in flight at any step, a list that lags, lost news, and a clock that jumps.

Stripe is a model in memory here, and only here: the truth has to be known at every second, and a walk must be cheap.
What is replaced is the one call that goes over the wire, `stripe_client.get`. A fetch is taken apart into its claim,
its question and its answer, so that anything may happen between them.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from entitlements_app import fetches, inbox, mirror, reconcile, settle, stripe_client
from entitlements_app.access import get_entitlements
from entitlements_app.budget import Allowance, Stopped
from entitlements_app.exceptions import CustomerDeleted, StripeRefused, StripeUnavailable
from entitlements_app.fetches import Fetch
from entitlements_app.linking import link, unlink
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementChange, SubscriberState, WebhookEvent
from entitlements_app.stripe_objects import parse_event
from tests.delivery import customer_deleted, grants, subscription_updated, summary
from tests.rows import make_subscriber, replay

pytestmark = pytest.mark.django_db

START = 1_790_000_000
LAG = 60.0  # seconds by which Stripe's list may be behind, and no more
SEEDS = range(int(os.environ.get("TEST_WALKS", "12")))
STEPS = 60


@dataclass
class Account:
    """The truth about one customer: what it held since when, on Stripe's clock."""

    states: list[tuple[float, frozenset[str]]] = field(default_factory=lambda: [(0.0, frozenset())])
    deleted: bool = False
    told_at: float = 0.0  # when we processed some news of it, whatever they were

    def at(self, when: float) -> frozenset[str]:
        return next(keys for since, keys in reversed(self.states) if since <= when)


@dataclass
class InFlight:
    fetch: Fetch
    answer: Any = None
    held: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.held = _grants(self.fetch)


class Walk:
    def __init__(self, seed: int, clock: Any) -> None:
        self.chance = random.Random(seed)
        self.clock = clock
        self.skew = self.chance.choice([0, 0, -90, 90, 4000])  # of Stripe's clock against ours
        self.accounts = {f"cus_{name}": Account() for name in "abc"[: self.chance.randint(1, 3)]}
        self.subscribers = [make_subscriber(), make_subscriber()]
        self.waiting: list[dict[str, Any]] = []
        self.in_flight: list[InFlight] = []
        self.calm = False
        self.trace: list[str] = []
        for stripe_id in self.accounts:
            if self.chance.random() < 0.7:
                self._is_known_and_settled(stripe_id)

    def _is_known_and_settled(self, stripe_id: str) -> None:
        link(self.subscribers[0], stripe_id)
        Customer.objects.filter(stripe_id=stripe_id).update(
            hinted_at=None, urgent=False, next_fetch_at=timezone.now() + timedelta(days=7)
        )

    # --- the world

    @property
    def now(self) -> float:
        return timezone.now().timestamp()

    @property
    def stripe_now(self) -> float:
        return self.now + self.skew

    def answers(self, path: str, params: dict[str, Any], allowance: Allowance) -> stripe_client.Answer:
        """In place of `stripe_client.get`."""
        if not self.calm and self.chance.random() < 0.1:
            raise self.chance.choice(
                [
                    StripeUnavailable("500", status=500),
                    StripeUnavailable("429", status=429),
                    stripe_client.UnusableAnswer("unreadable"),
                    stripe_client.NoAnswer("silence"),
                    Stopped("401"),
                ]
            )
        account = self.accounts[params.get("customer") or path.rpartition("/")[2]]
        date = None if self.chance.random() < 0.1 else int(self.stripe_now)
        if "customer" not in params:
            return stripe_client.Answer({"object": "customer", "deleted": account.deleted}, date, 0.1)
        if account.deleted and self.chance.random() < 0.5:
            raise stripe_client.NoSuchObject("Stripe does not know it.")
        keys = account.at(self.stripe_now - self.chance.choice([0, 0, 1, 20, LAG]))
        page = {"object": "list", "data": grants(*sorted(keys)), "has_more": False}
        return stripe_client.Answer(page, date, self.chance.choice([0.05, 3.0]))

    def check(self) -> None:
        changes = list(EntitlementChange.objects.order_by("pk"))
        for customer in Customer.objects.prefetch_related("active_entitlements"):
            rows = {row.lookup_key for row in customer.active_entitlements.all()}
            told = [row for row in changes if row.customer_id == customer.pk and row.cause in ("event", "fetch")]
            assert replay(told) == rows
            assert not (customer.deleted_at and rows), "deletion is final"
            assert rows in [keys for _, keys in self.accounts[customer.stripe_id].states], "it never was true"
        states = {state.subscriber_id: set(state.announced) for state in SubscriberState.objects.all()}
        for subscriber in self.subscribers:
            told = [row for row in changes if row.subscriber_id == subscriber.pk and row.effective]
            assert replay(told) == set(get_entitlements(subscriber)) == states.get(subscriber.pk, set())

    # --- steps

    def time_passes(self) -> None:
        self.clock.shift(self.chance.choice([0.2, 0.9, 1.0, 2.1, 5.0, 30.0, 59.0, 61.0, 301.0]))

    def plan_changes(self) -> None:
        stripe_id, account = self._anyone()
        if account.deleted:
            return
        if self.chance.random() < 0.3:  # two at once, of which the first is dated after the second
            self._change_plan(stripe_id, account, dated=2)
            self._change_plan(stripe_id, account, dated=0)
        else:
            dated = [0, 0, 0, 0, -1, 1, 2, -30, -400 * 86_400, 400 * 86_400]
            self._change_plan(stripe_id, account, dated=self.chance.choice(dated))

    def _change_plan(self, stripe_id: str, account: Account, *, dated: int) -> None:
        keys = frozenset(self.chance.sample("xyz", self.chance.randint(0, 3)))
        account.states.append((self.stripe_now, keys))
        created = int(self.stripe_now) + dated
        cut = self.chance.random() < 0.15
        self.waiting.append(summary(stripe_id, *sorted(keys)[: 1 if cut else 3], created=created, has_more=cut))
        if self.chance.random() < 0.3:
            self.waiting.append(subscription_updated(stripe_id, created=created))

    def customer_is_deleted(self) -> None:
        stripe_id, account = self._anyone()
        if account.deleted or self.chance.random() < 0.4:
            return
        account.deleted = True
        account.states.append((self.stripe_now, frozenset()))
        created = int(self.stripe_now)
        self.waiting.append(customer_deleted(stripe_id, created=created))
        if self.chance.random() < 0.5:
            self.waiting.append(summary(stripe_id, created=created))

    def event_arrives(self) -> None:
        if self.waiting:
            event = self.chance.choice(self.waiting)
            if self.chance.random() < 0.85:
                self.waiting.remove(event)
            sent_at = int(self.stripe_now)
            row = inbox.store(parse_event(json.dumps(event)), sent_at=sent_at)
            if self.chance.random() < 0.7:
                inbox.process(row)
                self._told()

    def event_is_lost(self) -> None:
        if self.waiting:
            self.waiting.remove(self.chance.choice(self.waiting))

    def batch_is_processed(self) -> None:
        inbox.process_due(deadline=float("inf"))
        self._told()

    def somebody_links(self) -> None:
        stripe_id, account = self._anyone()
        with suppress(CustomerDeleted):
            customer = link(self.chance.choice(self.subscribers), stripe_id, move=True)
            if customer.hinted_at == timezone.now():  # linking again is no news
                account.told_at = self.now

    def somebody_unlinks(self) -> None:
        with suppress(Customer.DoesNotExist):
            unlink(self._anyone()[0])

    def worker_claims(self) -> None:
        if len(self.in_flight) < 3:
            self.in_flight += map(InFlight, fetches.claim_wave(self.chance.randint(1, 2)))

    def staff_asks(self) -> None:
        for row in mirror.asked_about().filter(stripe_id=self._anyone()[0], deleted_at=None):
            self.in_flight.append(InFlight(fetches.of(row)))

    def stripe_answers(self) -> None:
        asked = [item for item in self.in_flight if item.answer is None]
        if asked:
            item = self.chance.choice(asked)
            try:
                item.answer = fetches.ask(item.fetch, Allowance(seconds=9))
            except (StripeUnavailable, StripeRefused) as error:
                self.in_flight.remove(item)
                fetches.give_back(item.fetch, error)

    def answer_arrives(self) -> None:
        answered = [item for item in self.in_flight if item.answer is not None]
        if answered:
            item = self.chance.choice(answered)
            self.in_flight.remove(item)
            before = _grants(item.fetch)
            settle.apply([(item.fetch, item.answer)])
            assert before == item.held or before == _grants(item.fetch), "it undid what came after its question"

    def worker_dies(self) -> None:
        if self.in_flight and self.chance.random() < 0.3:
            self.in_flight.remove(self.chance.choice(self.in_flight))

    # --- and in the end

    def the_end(self) -> None:
        """All news that are not lost have come; cron runs each minute and Stripe answers."""
        while self.waiting:
            self.event_arrives()
            if self.chance.random() < 0.3:
                self.event_is_lost()
        inbox.process_due(deadline=float("inf"))
        self._told()
        assert not WebhookEvent.objects.exclude(status="processed").exists()
        while any(item.answer for item in self.in_flight):
            self.answer_arrives()
        self.calm = True
        last_news = self.now
        while Customer.objects.marked().exists() or Customer.objects.due(timezone.now()).exists():
            assert self.now < last_news + 3600 * 2, "never settles"
            reconcile.fetch_due(deadline=float("inf"))
            self.check()
            self.clock.shift(60)
        for stripe_id, account in self.accounts.items():
            for customer in Customer.objects.filter(stripe_id=stripe_id):
                if account.told_at >= account.states[-1][0] - self.skew:
                    rows = set(customer.active_entitlements.values_list("lookup_key", flat=True))
                    assert rows == account.states[-1][1], "we were told, and forgot"
                assert customer.deleted_at is not None or customer.next_fetch_at <= timezone.now() + timedelta(days=7)

    def _anyone(self) -> tuple[str, Account]:
        return self.chance.choice(list(self.accounts.items()))

    def _told(self) -> None:
        """Note which customers' last news have been processed."""
        for stripe_id, account in self.accounts.items():
            rows = WebhookEvent.objects.filter(customer_stripe_id=stripe_id, status="processed")
            for processed_at in rows.order_by("-processed_at").values_list("processed_at", flat=True)[:1]:
                account.told_at = max(account.told_at, processed_at.timestamp())


WRITING = {
    Walk.event_arrives,
    Walk.batch_is_processed,
    Walk.somebody_links,
    Walk.somebody_unlinks,
    Walk.answer_arrives,
}
STEPS_BY_WEIGHT = {
    Walk.time_passes: 5,
    Walk.plan_changes: 4,
    Walk.customer_is_deleted: 1,
    Walk.event_arrives: 6,
    Walk.event_is_lost: 1,
    Walk.batch_is_processed: 2,
    Walk.somebody_links: 2,
    Walk.somebody_unlinks: 1,
    Walk.worker_claims: 4,
    Walk.staff_asks: 1,
    Walk.stripe_answers: 5,
    Walk.answer_arrives: 5,
    Walk.worker_dies: 1,
}


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_what_we_were_told_is_true_in_the_end(seed: int, clock: Any, monkeypatch: Any) -> None:
    walk = Walk(seed, clock)
    monkeypatch.setattr(stripe_client, "get", walk.answers)
    steps, weights = zip(*STEPS_BY_WEIGHT.items(), strict=True)
    try:
        for step in walk.chance.choices(steps, weights, k=STEPS):
            step(walk)
            walk.trace.append(step.__name__)
            clock.shift(0.001)
            if step in WRITING:
                walk.check()
        walk.trace.append("the end")
        walk.the_end()
    except AssertionError as error:
        error.add_note(f"seed {seed}: {', '.join(walk.trace)}")
        raise


def _grants(fetch: Fetch) -> set[str]:
    """What its customer holds, by ids: here each answer and each event has its own."""
    return set(ActiveEntitlement.objects.filter(customer_id=fetch.pk).values_list("stripe_id", flat=True))
