"""Events on their way: late, twice, swapped, never; processed at once, later, or by a process that dies of it.

`how`: as the endpoint does, without the fetch that may follow, or not yet.
"""

from __future__ import annotations

import time

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from entitlements_app import inbox
from entitlements_app.stripe_client import TOLERANCE
from tests.delivery import deliver
from tests.machine.at_stripe import which
from tests.machine.world import Event, World, after, die

FINDABLE = 1800  # seconds by which `created` may lie, so that a poll still finds the event


how = st.sampled_from(["inline", "inline", "no call is free", "only stored"])


class OnTheWay(World):
    @precondition(lambda self: self.wire)
    @rule(which=which, again=st.booleans(), how=how, after=after, dies=die)
    def an_event_arrives(self, which: int, again: bool, how: str, after: int, dies: int | None) -> None:
        self.step("on its way was an event", after=after)
        self._arrives(self.wire[which % len(self.wire)], again=again, how=how, dies=dies)

    @precondition(lambda self: self.wire)
    @rule(how=how, after=after, dies=die)
    def the_oldest_event_arrives(self, how: str, after: int, dies: int | None) -> None:
        self.step("next comes the oldest event", after=after)
        self._arrives(self.wire[0], again=False, how=how, dies=dies)

    @precondition(lambda self: self.wire)
    @rule(how=how, after=after, dies=die)
    def the_newest_event_arrives(self, how: str, after: int, dies: int | None) -> None:
        self.step("next comes the newest event", after=after)
        self._arrives(self.wire[-1], again=False, how=how, dies=dies)

    @precondition(lambda self: self.wire)
    @rule(how=how, swapped=st.booleans(), after=after)
    def all_events_arrive(self, how: str, swapped: bool, after: int) -> None:
        self.step(f"on their way were {len(self.wire)} events", after=after)
        for event in self.wire[::-1] if swapped else list(self.wire):
            self._arrives(event, again=False, how=how, dies=None)

    @precondition(lambda self: self.wire and "lost" in self.troubles)
    @rule(which=which)
    def an_event_is_lost(self, which: int) -> None:
        event = self.wire[which % len(self.wire)]
        if self.is_findable(event):
            self.step(f"lost: {self.describe(event)}")
            self.wire.remove(event)

    @rule(dies=die)
    def pending_events_are_processed(self, dies: int | None) -> None:
        self.step("pending events are processed")
        with self.process(dies):
            inbox.process_due(deadline=time.monotonic() + 60)

    def _arrives(self, event: Event, *, again: bool, how: str, dies: int | None) -> None:
        self.step(f"arrives, {how}{', and will come again' if again else ''}: {self.describe(event)}")
        if not again:
            self.wire.remove(event)
        with self.process(dies):
            if self.ours_is_ahead > TOLERANCE:
                # The endpoint takes it for a replay of an old delivery. What comes after it is promised all the same.
                assert deliver(event, t=self.stripe.clock.seconds).status_code == 400
            elif how == "inline":
                assert deliver(event, t=self.stripe.clock.seconds).status_code == 200
                return
            row = self.store(event)
            if how != "only stored":
                inbox.process(row)

    def is_findable(self, event: Event) -> bool:
        """Whether a poll finds it, as it looks for events by when they were created."""
        return abs(event["created"] - self.happened_at[event["id"]]) < FINDABLE
