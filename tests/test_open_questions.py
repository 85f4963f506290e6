"""What nobody could verify of Stripe: the mirror is right under every answer, and under every fault once it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from entitlements_app.access import get_entitlements
from entitlements_app.linking import link
from entitlements_app.models import AccountState
from entitlements_app.testing.simulator.switch_board import SWITCHES
from tests.rows import held, make_subscriber
from tests.shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]  # about Stripe, not about databases

# How Stripe may answer, several questions at a time: each answer is in one of these.
STRIPES: dict[str, dict[str, Any]] = {
    "as assumed": {},
    "the other way": {name: switch.answers[1] for name, switch in SWITCHES.items() if switch.answers[1:]},
    "strict": {"missing_customer": "empty", "granting": {"active", "trialing"}, "pause_collection_grants": False},
    "lenient": {
        "granting": {"active", "trialing", "past_due", "unpaid", "incomplete", "paused"},
        "entitlement_per_product": True,
        "list_order": "oldest",
    },
}


class Story:
    """A customer's life. After each step the webhooks are delivered and marked customers are asked about."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.stripe = shop, shop.stripe
        self.customer = shop.customer()
        self.subscriber = make_subscriber()
        link(self.subscriber, self.customer)

    def steps(self) -> list[Callable[[], Any]]:
        stripe, shop = self.stripe, self.shop
        params = {"customer": self.customer, "items": [{"price": shop.prices["pro"]["id"]}]}
        self.subscription = stripe.call("POST", "/v1/subscriptions", params | {"trial_period_days": 14})
        url = f"/v1/subscriptions/{self.subscription['id']}"
        audit = shop.prices["pro"]["product"]
        return [
            lambda: None,
            lambda: stripe.advance(timedelta(days=14)),
            lambda: stripe.change_plan(self.subscription, shop.prices["enterprise"]),
            lambda: stripe.set_status(self.subscription, "past_due"),
            lambda: stripe.set_status(self.subscription, "unpaid"),
            lambda: stripe.set_status(self.subscription, "active"),
            lambda: stripe.call("POST", url, {"pause_collection": {"behavior": "void"}}),
            lambda: stripe.call("POST", url, {"pause_collection": ""}),
            lambda: stripe.change_plan(self.subscription, shop.prices["pro"]),
            lambda: stripe.attach_feature(audit, stripe.create_feature("new")),
            lambda: stripe.advance(timedelta(days=30)),
            lambda: stripe.archive_feature(shop.features["sso"]),
            lambda: shop.subscribe(self.customer, "reports"),
            lambda: shop.subscribe(self.customer, "enterprise"),  # has what pro has, too
            lambda: stripe.cancel(stripe.call("GET", "/v1/subscriptions", {"limit": 1})["data"][0]),
            lambda: stripe.call("POST", url, {"cancel_at_period_end": True}),
            lambda: stripe.advance(timedelta(days=30)),
            lambda: shop.subscribe(self.customer, "pro"),
            lambda: stripe.delete_customer(self.customer),
        ]

    def catch_up(self) -> None:
        self.shop.deliver()
        call_command("entitlements_sync", "--marked", stdout=StringIO(), stderr=StringIO())

    def assert_right(self) -> None:
        switch, self.stripe.deleted_customer = self.stripe.deleted_customer, "empty"
        assert held(self.customer) == self.shop.holds(self.customer)
        assert set(get_entitlements(self.subscriber)) == self.shop.holds(self.customer)
        self.stripe.deleted_customer = switch


def test_each_answer_is_tried() -> None:
    for name, switch in SWITCHES.items():
        tried = [answers[name] for answers in STRIPES.values() if name in answers]
        assert all(answer in tried for answer in switch.answers[1:])


@pytest.mark.parametrize("answers", STRIPES.values(), ids=list(STRIPES))
def test_the_mirror_is_right_at_every_step_whatever_stripe_answers(answers: dict[str, Any], shop: Shop) -> None:
    for name, answer in answers.items():
        setattr(shop.stripe, name, answer)
    story = Story(shop)
    for step in story.steps():
        step()
        story.catch_up()
        story.assert_right()


FAULTS: dict[str, Callable[[Any], Any]] = {
    "lists lag": lambda stripe: stripe.lag_lists(30),
    "of the future": lambda stripe: stripe.shift_created(86_400, 2),
    "of the past, cut": lambda stripe: (stripe.shift_created(-86_400, 2), stripe.cut_at(1)),
    "same second, no date": lambda stripe: (stripe.same_second(3), stripe.no_date()),
    "limits": lambda stripe: stripe.fail_requests(429),
    "locks": lambda stripe: stripe.fail_requests(429, reason="lock_timeout"),
    "outage": lambda stripe: stripe.fail_requests(503),
    "no answer": lambda stripe: stripe.drop_connections(),
}


WAITED_FOR = {"limits", "locks", "outage", "no answer"}  # an app that is refused waits: seconds, each time


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mirror_is_right_once_a_fault_has_ended(fault: str, shop: Shop) -> None:
    """The first step and the last are among those with a fault. In between news gather, undelivered."""
    story = Story(shop)
    for number, step in enumerate(story.steps()):
        if number % (6 if fault in WAITED_FOR else 3):
            step()
            continue
        FAULTS[fault](shop.stripe)
        step()
        with suppress(CommandError):  # an outage is told; what is checked is that it passes
            story.catch_up()
        shop.stripe.clear_faults()
        _five_seconds_pass()
        story.catch_up()
        story.assert_right()


def _five_seconds_pass() -> None:
    """After an outage nobody calls for so long."""
    AccountState.objects.update(next_call_at=None)
