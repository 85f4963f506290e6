"""What the site does: links, overrides, fetches taken apart, periodic work. A process may die at any statement."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from entitlements_app import fetches, mirror, overrides, poll, provisioning, settle
from entitlements_app.budget import Allowance
from entitlements_app.exceptions import (
    AlreadyLinked,
    CustomerDeleted,
    StripeRefused,
    StripeUnavailable,
    UnknownFeature,
)
from entitlements_app.linking import link, unlink
from entitlements_app.models import Customer
from entitlements_app.overrides import bridge, clear, deny, grant
from entitlements_app.sync import sync_catalog
from tests.machine.at_stripe import which, whom
from tests.machine.world import InFlight, World, die

MOST_IN_FLIGHT = 4

subscriber = st.integers(0, 1)
key = st.sampled_from(["sso", "audit", "k3"])
PERIODIC: dict[str, Callable[[float], object]] = {
    "changes are delivered": lambda deadline: provisioning.deliver_due(deadline=deadline),
    "starts and ends of overrides are told": lambda deadline: overrides.tell_boundaries(deadline=deadline),
    "the Events API is polled": lambda deadline: poll.backfill_events(deadline=deadline),
    "the catalogue is read": lambda _: sync_catalog(),
}


class OnTheSite(World):
    # --- links and overrides

    @rule(who=whom, to=st.sampled_from([0, 1, None]), move=st.booleans(), dies=die)
    def link(self, who: int, to: int | None, move: bool, dies: int | None) -> None:
        customer = self.customers[who]
        self.step(f"customer {who} is linked to subscriber {to}")
        with self.process(dies):
            try:
                if to is not None:
                    link(self.subscribers[to], customer, move=move)
                elif Customer.objects.filter(stripe_id=customer).exists():
                    unlink(customer)
            except AlreadyLinked:
                assert not move
            except CustomerDeleted:
                assert customer in self.deleted

    @rule(
        who=subscriber,
        key=key,
        write=st.sampled_from([grant, deny, clear]),
        starts=st.sampled_from([None, -1, 2, 300]),
        until=st.sampled_from([None, 3, 3600]),
        dies=die,
    )
    def override(self, who: int, key: str, write: Any, starts: int, until: int, dies: int | None) -> None:
        self.step(f"{write.__name__} {key} to subscriber {who} from {starts} until {until}")
        now = timezone.now()
        period: dict[str, Any] = {
            name: now + timedelta(seconds=at) for name, at in (("starts", starts), ("until", until)) if at
        }
        period = {} if write is clear else period | {"force": True}
        with self.process(dies):
            try:
                write(self.subscribers[who], key, **period)
            except ValueError:  # it would never count
                assert starts is not None
                assert until is not None
                assert until <= starts

    @rule(who=subscriber, key=key, until=st.sampled_from([3, 3600, 90_000]), dies=die)
    def bridge(self, who: int, key: str, until: int, dies: int | None) -> None:
        self.step(f"bridge {key} for subscriber {who} until {until}")
        with self.process(dies), suppress(UnknownFeature):
            bridge(self.subscribers[who], key, until=timezone.now() + timedelta(seconds=until))

    # --- signals

    @rule(fails=st.integers(0, 2), dies=st.integers(0, 2))
    def a_receiver_breaks(self, fails: int, dies: int) -> None:
        self.step(f"a receiver ends {dies} processes, and fails {fails} times")
        self.listener.fails, self.listener.dies = fails, dies

    # --- fetches

    @precondition(lambda self: len(self.in_flight) < MOST_IN_FLIGHT)
    @rule(limit=st.integers(1, 2), dies=die)
    def a_wave_is_claimed(self, limit: int, dies: int | None) -> None:
        self.step(f"a worker claims {limit}")
        with self.process(dies):
            self.in_flight += [InFlight(fetch) for fetch in fetches.claim_wave(limit)]
        self._tell_in_flight()

    @precondition(lambda self: len(self.in_flight) < MOST_IN_FLIGHT)
    @rule(who=whom)
    def somebody_asks(self, who: int) -> None:
        """`sync_customer`, of which the rest are steps as well."""
        self.step(f"somebody fetches customer {who} by hand")
        rows = mirror.asked_about().filter(stripe_id=self.customers[who], deleted_at=None)
        self.in_flight += [InFlight(fetches.of(row)) for row in rows]
        self._tell_in_flight()

    @precondition(lambda self: any(item.told is None for item in self.in_flight))
    @rule(which=which, dies=die)
    def stripe_is_asked(self, which: int, dies: int | None) -> None:
        asked = [item for item in self.in_flight if item.told is None]
        item = asked[which % len(asked)]
        self.step(f"Stripe is asked about {self.names[item.fetch.stripe_id]}")
        with self.process():
            try:
                item.told = fetches.ask(item.fetch, Allowance(seconds=9))
                return
            except (StripeUnavailable, StripeRefused) as error:
                self.in_flight.remove(item)
                problem = error
        self.step(f"… in vain: {type(problem).__name__}")
        with self.process(dies):
            fetches.give_back(item.fetch, problem)

    @precondition(lambda self: any(item.told is not None for item in self.in_flight))
    @rule(which=which, together=st.booleans(), dies=die)
    def an_answer_is_applied(self, which: int, together: bool, dies: int | None) -> None:
        answered = [item for item in self.in_flight if item.told is not None]
        wanted = answered if together else [answered[which % len(answered)]]
        once = {item.fetch.pk: item for item in wanted}.values()
        self.step(f"applied: the answers about {', '.join(self.names[item.fetch.stripe_id] for item in once)}")
        for item in once:
            self.in_flight.remove(item)
        with self.process(dies):
            settle.apply([(item.fetch, item.told) for item in once if item.told is not None])

    @precondition(lambda self: self.in_flight)
    @rule(which=which)
    def a_worker_dies(self, which: int) -> None:
        item = self.in_flight.pop(which % len(self.in_flight))
        self.step(f"the worker dies that has asked about {self.names[item.fetch.stripe_id]}")

    def _tell_in_flight(self) -> None:
        self.step(f"… in flight: {', '.join(self.names[item.fetch.stripe_id] for item in self.in_flight) or 'none'}")

    # --- periodic work

    @rule(what=st.sampled_from(sorted(PERIODIC)), dies=die)
    def periodic_work(self, what: str, dies: int | None) -> None:
        self.step(what)
        with self.process(dies), suppress(StripeUnavailable, StripeRefused):
            PERIODIC[what](time.monotonic() + 60)

    @rule(resume=st.booleans(), dies=die)
    def cron(self, resume: bool, dies: int | None) -> None:
        """Stripe answers: which of several threads would meet a fault differs from time to time."""
        self.step(f"entitlements_run{' --resume' if resume else ''}")
        self.calls_succeed()
        with self.process(dies):
            try:
                call_command("entitlements_run", resume=resume, verbosity=0, stdout=StringIO(), stderr=StringIO())
            except CommandError:  # calls are stopped after a 401
                assert not resume
