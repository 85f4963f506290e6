"""What happens at Stripe: sales, the catalogue, time, and its faults."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.machine.world import World, after

PLANS = [
    "pro",
    "enterprise",
    "reports",
    "pro",
    "enterprise",
    "reports",
    "wide",
    "huge",
]  # a list of more than a hundred has two pages
KEYS = ["sso", "export", "audit", "reports"]
MOST_DAYS = 25  # Stripe forgets events after 30

whom = st.sampled_from([0, 0, 0, 1, 2])
which = st.integers(0, 9)
plan = st.sampled_from(PLANS)
key = st.sampled_from(KEYS)


class AtStripe(World):
    # --- sales

    @rule(who=whom, plan=plan, trial=st.sampled_from([None, None, "cancel", "pause", "create_invoice"]), after=after)
    def subscribe(self, who: int, plan: str, trial: str | None, after: int) -> None:
        customer = self.customers[who]
        if customer in self.deleted:
            return
        self.step(
            f"customer {who} subscribes to {plan}{f', three days of trial, then {trial}' if trial else ''}", after=after
        )
        params: dict[str, Any] = {"customer": customer, "items": [{"price": self.prices[plan]}]}
        if trial:
            settings = {"end_behavior": {"missing_payment_method": trial}}
            params |= {"trial_period_days": 3, "trial_settings": settings}
        self.subscriptions.append(self.stripe.call("POST", "/v1/subscriptions", params)["id"])
        self.collect()

    @rule(which=which, plan=plan, after=after)
    def change_plan(self, which: int, plan: str, after: int) -> None:
        if subscription := self._live(which):
            self.step(f"{self._told(subscription)} changes to {plan}", after=after)
            self.stripe.change_plan(subscription, self.prices[plan])
            self.collect()

    @rule(which=which, plan=plan, after=after)
    def change_plan_twice(self, which: int, plan: str, after: int) -> None:
        """Within a second."""
        self.change_plan(which, "reports", after)
        self.change_plan(which, plan, 0)

    @rule(which=which, status=st.sampled_from(["canceled", "canceled", "past_due", "unpaid", "active"]), after=after)
    def end(self, which: int, status: str, after: int) -> None:
        if subscription := self._live(which):
            self.step(f"{self._told(subscription)} becomes {status}", after=after)
            if status == "canceled":
                self.stripe.cancel(subscription)
            else:
                self.stripe.set_status(subscription, status)
            self.collect()

    @rule(who=whom, really=st.integers(0, 3))
    def delete_customer(self, who: int, really: int) -> None:
        customer = self.customers[who]
        if customer in self.deleted or really:  # seldom, as nothing comes after it
            return
        self.step(f"customer {who} is deleted")
        self.stripe.delete_customer(customer)
        self.deleted.add(customer)
        self.collect()

    def _live(self, which: int) -> str | None:
        rows = [self.stripe.call("GET", f"/v1/subscriptions/{name}") for name in self.subscriptions]
        live = [row["id"] for row in rows if row["status"] != "canceled"]
        return live[which % len(live)] if live else None

    def _told(self, subscription: str) -> str:
        row = self.stripe.call("GET", f"/v1/subscriptions/{subscription}")
        return f"subscription {self.subscriptions.index(subscription)} of {self.names[row['customer']]}"

    # --- the catalogue

    @rule(key=key, plan=plan, what=st.sampled_from(["archive", "reuse", "detach"]))
    def change_catalogue(self, key: str, plan: str, what: str) -> None:
        if what == "detach":
            self._detach(key, plan)
            return
        self.step(f"the feature of {key} is archived")
        if self.stripe.call("GET", f"/v1/entitlements/features/{self.features[key]}")["active"]:
            self.stripe.archive_feature(self.features[key])
        if what == "reuse":
            self.step(f"{key} is the key of a new feature, which {plan} has")
            self.features[key] = self.stripe.create_feature(key)["id"]
            self.stripe.attach_feature(self.products[plan], self.features[key])

    def _detach(self, key: str, plan: str) -> None:
        """Counts for each subscription from its next period on."""
        self.step(f"{plan} loses {key}, if it has it")
        with suppress(LookupError):
            self.stripe.detach_feature(self.products[plan], self.features[key])

    # --- time

    @rule(seconds=st.sampled_from([0.4, 3, 20, 61, 301, 3600]))
    def time_passes(self, seconds: float) -> None:
        self.step(f"{seconds:g} s pass")
        self.time_goes_on(seconds)

    @rule(days=st.sampled_from([3, 8]))
    def days_pass(self, days: int) -> None:
        """Trials end, periods begin anew."""
        if self.stripe.clock.now() - self.began + days * 86_400 < MOST_DAYS * 86_400:
            self.step(f"{days} days pass")
            self.time_goes_on(days * 86_400)

    # --- faults

    @rule(status=st.sampled_from([429, 500, 503, 409, 401, None]), times=st.integers(1, 3))
    def calls_fail(self, status: int | None, times: int) -> None:
        self.step(f"the next {times} calls {f'fail with {status}' if status else 'get no answer'}")
        if status:
            self.stripe.fail_requests(status, times=times)
        else:
            self.stripe.drop_connections(times)

    @rule(limit=st.sampled_from([10, 10, 1]))
    def summaries_are_cut(self, limit: int) -> None:
        self.step(f"summaries list {limit} entitlements from now on")
        self.lasting_fault("cut_at", limit)

    @precondition(lambda self: self.subscriptions)
    @rule(which=which, plan=st.sampled_from([None, *PLANS]))
    def a_list_changes_between_its_pages(self, which: int, plan: str | None) -> None:
        """Such a list can be one that never was: some of what was, and some of what is."""

        def change() -> None:
            if (subscription := self._live(which)) and plan:
                self.stripe.change_plan(subscription, self.prices[plan])
            elif subscription:
                self.stripe.cancel(subscription)

        self.step(f"between the next two pages a subscription {f'changes to {plan}' if plan else 'is cancelled'}")
        self.stripe.between_pages(change)
        self.pages_moved = True

    @precondition(lambda self: "lag" in self.troubles)
    @rule(seconds=st.sampled_from([5, 30, 59, 0]))
    def lists_lag(self, seconds: int) -> None:
        self.step(f"lists lag {seconds} s behind")
        self.lasting_fault("lag_lists", seconds)
        self.has_lagged = True

    @precondition(lambda self: "lag" in self.troubles)
    @rule(seconds=st.sampled_from([60, 1800, 0]))
    def the_events_api_lags(self, seconds: int) -> None:
        self.step(f"the Events API lags {seconds} s behind")
        self.lasting_fault("lag_events", seconds)

    @precondition(lambda self: "misdated" in self.troubles)
    @rule(seconds=st.sampled_from([-50, -1, 1, 2, 90, -400 * 86_400, 400 * 86_400]))
    def a_summary_is_misdated(self, seconds: int) -> None:
        self.step(f"the next summary is dated {seconds:+d} s")
        self.stripe.shift_created(seconds)
        self.was_misdated = True

    @precondition(lambda self: "misdated" in self.troubles)
    @rule(times=st.integers(2, 3))
    def summaries_have_one_second(self, times: int) -> None:
        self.step(f"the next {times} summaries have the same second")
        self.stripe.same_second(times)
        self.was_misdated = True

    @precondition(lambda self: "undated" in self.troubles)
    @rule(on=st.booleans())
    def answers_have_no_date(self, on: bool) -> None:
        self.step(f"answers have {'no' if on else 'a'} Date")
        self.lasting_fault("no_date", on)
        self.was_undated |= on
