"""Subscriptions in time: trials, pauses, cancellations, periods; over HTTP with the real stripe-python."""

from __future__ import annotations

import json
import urllib.request
from datetime import timedelta
from typing import Any

import pytest
import stripe as sdk

from entitlements_app.testing import StripeSimulator

SUMMARY = "entitlements.active_entitlement_summary.updated"
DAY = 86_400
MONTH = timedelta(days=30)


class Shop:
    """One product with the feature `sso`, sold by the month to one customer."""

    def __init__(self, simulator: StripeSimulator, client: sdk.StripeClient) -> None:
        simulator.clock.freeze()
        self.simulator, self.client = simulator, client
        self.feature = simulator.create_feature("sso")
        self.product = simulator.create_product("Pro", features=[self.feature])
        self.price = simulator.create_price(self.product)
        self.customer = simulator.create_customer()["id"]

    def subscribe(self, **params: Any) -> Any:
        self.mark()
        items = [{"price": self.price["id"]}]
        subscription = self.client.v1.subscriptions.create({"customer": self.customer, "items": items, **params})
        self.subscription = subscription.id
        return subscription

    def update(self, **params: Any) -> Any:
        return self.client.v1.subscriptions.update(self.subscription, params)

    def status(self) -> str:
        status: str = self.client.v1.subscriptions.retrieve(self.subscription).status
        return status

    def keys(self) -> list[str]:
        listed = self.client.v1.entitlements.active_entitlements.list({"customer": self.customer})
        return sorted(row.lookup_key for row in listed.data)

    def pay_with(self, token: str) -> str:
        card = self.client.v1.payment_methods.attach(token, {"customer": self.customer})
        self.client.v1.customers.update(self.customer, {"invoice_settings": {"default_payment_method": card.id}})
        return str(card.id)

    def mark(self) -> None:
        self._seen = len(self.simulator.events())

    def told(self) -> list[str]:
        """Types of the events since `mark`, oldest first, without the common beginning."""
        events = self.simulator.events()[::-1][self._seen :]
        self._seen += len(events)
        return [event["type"].removeprefix("customer.subscription.") for event in events]


@pytest.fixture
def shop(simulator: StripeSimulator, client: sdk.StripeClient) -> Shop:
    return Shop(simulator, client)


# --- trials


def test_a_trial_grants_warns_three_days_before_its_end_and_becomes_a_paid_period(shop: Shop) -> None:
    subscription = shop.subscribe(trial_period_days=14)
    assert (subscription.status, subscription.trial_end - subscription.created) == ("trialing", 14 * DAY)
    assert (shop.keys(), shop.told()) == (["sso"], ["created", SUMMARY])
    shop.simulator.advance(timedelta(days=11, seconds=-1))
    assert shop.told() == []
    shop.simulator.advance(1)
    assert shop.told() == ["trial_will_end"]
    shop.simulator.advance(timedelta(days=3))
    assert (shop.status(), shop.keys(), shop.told()) == ("active", ["sso"], ["updated"])
    ends = shop.client.v1.subscriptions.retrieve(shop.subscription)["items"].data[0].current_period_end
    assert ends == subscription.trial_end + MONTH.total_seconds()


@pytest.mark.parametrize(
    ("behaviour", "card", "status", "keys", "told"),
    [
        ("pause", None, "paused", ["sso"], ["paused", "updated"]),  # and no summary: grants stay
        ("cancel", None, "canceled", [], ["deleted", SUMMARY]),
        ("create_invoice", None, "active", ["sso"], ["updated"]),
        ("pause", "pm_card_visa", "active", ["sso"], ["updated"]),
        ("cancel", "pm_card_visa", "active", ["sso"], ["updated"]),
        ("pause", "pm_card_chargeCustomerFail", "past_due", ["sso"], ["updated"]),
    ],
)
def test_how_a_trial_ends(
    behaviour: str, card: str | None, status: str, keys: list[str], told: list[str], shop: Shop
) -> None:
    if card:
        shop.pay_with(card)
    settings = {"end_behavior": {"missing_payment_method": behaviour}}
    shop.subscribe(trial_period_days=2, trial_settings=settings)
    shop.told()
    shop.simulator.advance(timedelta(days=2))
    assert (shop.status(), shop.keys(), shop.told()) == (status, keys, told)


def test_a_trial_can_be_ended_now_or_moved(shop: Shop) -> None:
    created = shop.subscribe(trial_period_days=2).created
    shop.update(trial_end=created + 5 * DAY)
    shop.simulator.advance(timedelta(days=4))
    assert shop.status() == "trialing"
    assert shop.update(trial_end="now").status == "active"
    with pytest.raises(sdk.InvalidRequestError) as caught:
        shop.update(trial_end=created)
    assert caught.value.param == "trial_end"


def test_a_paused_subscription_is_resumed_with_a_new_period(shop: Shop) -> None:
    shop.subscribe(trial_period_days=1, trial_settings={"end_behavior": {"missing_payment_method": "pause"}})
    shop.simulator.advance(timedelta(days=10))
    shop.told()
    resumed = shop.client.v1.subscriptions.resume(shop.subscription, {})
    assert resumed.status == "active"
    assert resumed["items"].data[0].current_period_start == shop.simulator.clock.seconds
    assert shop.told() == ["resumed", "updated"]
    with pytest.raises(sdk.InvalidRequestError):
        shop.client.v1.subscriptions.resume(shop.subscription, {})


# --- cancellation


def test_cancelled_at_the_period_s_end_access_stays_until_then(shop: Shop) -> None:
    ends = shop.subscribe()["items"].data[0].current_period_end
    shop.told()
    asked = shop.update(cancel_at_period_end=True)
    assert (asked.status, asked.cancel_at, asked.cancel_at_period_end) == ("active", ends, True)
    assert shop.told() == ["updated"]
    shop.simulator.advance(MONTH - timedelta(seconds=1))
    assert (shop.keys(), shop.told()) == (["sso"], [])
    shop.simulator.advance(1)
    assert (shop.status(), shop.keys(), shop.told()) == ("canceled", [], ["deleted", SUMMARY])
    assert shop.simulator.events(type="customer.subscription.deleted")[0]["created"] == ends


def test_a_cancellation_at_the_period_s_end_follows_that_end(shop: Shop) -> None:
    created = shop.subscribe(trial_period_days=2, cancel_at_period_end=True).created
    assert shop.update(trial_end=created + 5 * DAY).cancel_at == created + 5 * DAY
    shop.simulator.advance(timedelta(days=3))
    assert shop.update(trial_end="now").cancel_at == created + 33 * DAY
    shop.simulator.advance(MONTH - timedelta(seconds=1))
    assert (shop.status(), shop.keys()) == ("active", ["sso"])
    shop.simulator.advance(1)
    assert (shop.status(), shop.keys()) == ("canceled", [])


def test_a_cancellation_has_one_time(shop: Shop) -> None:
    created = shop.subscribe().created
    with pytest.raises(sdk.InvalidRequestError) as caught:
        shop.update(cancel_at_period_end=True, cancel_at=created + DAY)
    assert caught.value.param == "cancel_at"


def test_a_price_of_another_interval_begins_a_new_period(shop: Shop) -> None:
    item = shop.subscribe(cancel_at_period_end=True)["items"].data[0].id
    yearly = shop.simulator.create_price(shop.product, interval="year")["id"]
    with pytest.raises(sdk.InvalidRequestError, match="same interval"):
        shop.update(items=[{"price": yearly}])
    shop.simulator.advance(10 * DAY)
    changed = shop.update(items=[{"id": item, "price": yearly}])
    period = changed["items"].data[0]
    now = shop.simulator.clock.seconds
    assert (period.current_period_start, period.current_period_end) == (now, now + 365 * DAY)
    assert changed.cancel_at == now + 365 * DAY


def test_a_trial_is_as_long_whatever_the_price(shop: Shop) -> None:
    subscription = shop.subscribe(trial_period_days=5)
    item, yearly = subscription["items"].data[0].id, shop.simulator.create_price(shop.product, interval="year")["id"]
    changed = shop.update(items=[{"id": item, "price": yearly}])
    assert changed["items"].data[0].current_period_end == changed.trial_end == subscription.trial_end


def test_a_cancellation_can_be_taken_back(shop: Shop) -> None:
    shop.subscribe()
    shop.update(cancel_at_period_end=True)
    back = shop.update(cancel_at_period_end=False)
    assert (back.cancel_at, back.canceled_at) == (None, None)
    shop.simulator.advance(MONTH)
    assert shop.status() == "active"


def test_cancelled_at_a_second(shop: Shop) -> None:
    created = shop.subscribe().created
    shop.update(cancel_at=created + DAY)
    shop.simulator.advance(2 * DAY)
    assert (shop.status(), shop.keys()) == ("canceled", [])
    with pytest.raises(sdk.InvalidRequestError):
        shop.subscribe(cancel_at=created)


def test_cancelled_now(shop: Shop) -> None:
    shop.subscribe()
    shop.told()
    assert shop.client.v1.subscriptions.cancel(shop.subscription).status == "canceled"
    assert (shop.keys(), shop.told()) == ([], ["deleted", SUMMARY])


# --- pause of collection, charges that fail


@pytest.mark.parametrize(("grants", "keys"), [(True, ["sso"]), (False, [])])
def test_a_pause_of_collection_follows_the_status_or_the_switch(grants: bool, keys: list[str], shop: Shop) -> None:
    shop.simulator.pause_collection_grants = grants
    shop.subscribe()
    paused = shop.update(pause_collection={"behavior": "void"})
    assert (paused.status, paused.pause_collection.behavior, shop.keys()) == ("active", "void", keys)
    assert shop.update(pause_collection="").pause_collection is None
    assert shop.keys() == ["sso"]
    resumes = shop.simulator.clock.seconds + DAY
    shop.update(pause_collection={"behavior": "keep_as_draft", "resumes_at": resumes})
    shop.simulator.advance(DAY)
    assert shop.keys() == ["sso"]


def test_a_card_that_fails_later_makes_the_subscription_past_due_until_another_pays(shop: Shop) -> None:
    shop.subscribe()
    shop.pay_with("pm_card_chargeCustomerFail")
    shop.simulator.advance(MONTH)
    assert (shop.status(), shop.keys()) == ("past_due", ["sso"])
    shop.pay_with("pm_card_visa")
    shop.simulator.advance(MONTH)
    assert shop.status() == "active"


def test_a_first_charge_that_fails_leaves_it_incomplete_and_then_expired(shop: Shop) -> None:
    shop.pay_with("pm_card_chargeCustomerFail")
    assert shop.subscribe().status == "incomplete"
    assert shop.keys() == []
    shop.simulator.advance(timedelta(hours=23))
    assert shop.status() == "incomplete_expired"
    with pytest.raises(sdk.CardError) as caught:
        shop.subscribe(payment_behavior="error_if_incomplete")
    assert (caught.value.http_status, caught.value.code) == (402, "card_declined")


def test_a_declined_card_is_not_attached(shop: Shop) -> None:
    with pytest.raises(sdk.CardError):
        shop.pay_with("pm_card_chargeDeclined")


def test_a_card_of_another_customer_does_not_pay(shop: Shop) -> None:
    card = shop.pay_with("pm_card_visa")
    shop.customer = shop.simulator.create_customer()["id"]
    with pytest.raises(sdk.InvalidRequestError) as caught:
        shop.subscribe(default_payment_method=card)
    assert caught.value.param == "default_payment_method"


STATUSES = ["incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("granting", [None, STATUSES, ["active"]])
def test_which_statuses_grant_is_a_switch(status: str, granting: list[str] | None, shop: Shop) -> None:
    if granting is not None:
        shop.simulator.granting = granting
    shop.subscribe()
    shop.simulator.set_status(shop.subscription, status)
    granted = granting or ["trialing", "active", "past_due", "paused"]
    assert shop.keys() == (["sso"] if status in granted else [])


# --- periods and the catalogue


def test_catalogue_changes_reach_subscriptions_with_their_next_period(shop: Shop) -> None:
    shop.subscribe()
    audit = shop.simulator.create_feature("audit")
    shop.simulator.attach_feature(shop.product, audit)
    shop.simulator.detach_feature(shop.product, shop.feature)
    shop.told()
    shop.simulator.advance(MONTH - timedelta(seconds=1))
    assert (shop.keys(), shop.told()) == (["sso"], [])
    shop.simulator.advance(1)
    assert (shop.keys(), shop.told()) == (["audit"], ["updated", SUMMARY])


def test_the_period_after_a_trial_is_a_next_one(shop: Shop) -> None:
    shop.subscribe(trial_period_days=2)
    shop.simulator.attach_feature(shop.product, shop.simulator.create_feature("audit"))
    shop.told()
    shop.simulator.advance(timedelta(days=2, seconds=-1))
    assert shop.keys() == ["sso"]
    shop.simulator.advance(1)
    assert (shop.keys(), shop.told()) == (["audit", "sso"], ["updated", SUMMARY])


def test_or_not_even_then_as_the_field_reports(shop: Shop) -> None:
    shop.simulator.renewal_follows_catalogue = False
    shop.subscribe()
    shop.simulator.attach_feature(shop.product, shop.simulator.create_feature("audit"))
    shop.simulator.advance(3 * MONTH)
    assert shop.keys() == ["sso"]
    other = shop.simulator.create_price(shop.product)
    shop.simulator.change_plan(shop.subscription, other)
    assert shop.keys() == ["audit", "sso"], "touching the subscription is the cure"


def test_a_year_has_every_period_at_its_own_second(shop: Shop) -> None:
    start = shop.subscribe().created
    shop.told()
    shop.simulator.advance(timedelta(days=365))
    seconds = [event["created"] - start for event in shop.simulator.events(type="customer.subscription.updated")]
    # Stripe keeps events for thirty days.
    assert seconds == [360 * DAY]
    assert shop.simulator.clock.seconds == start + 365 * DAY


def test_an_archived_feature_goes_on_granting_and_its_key_can_be_used_again(shop: Shop) -> None:
    shop.subscribe()
    shop.simulator.archive_feature(shop.feature)
    again = shop.simulator.create_feature("sso")
    product = shop.simulator.create_product("Other", features=[again])
    shop.client.v1.subscriptions.create(
        {"customer": shop.customer, "items": [{"price": shop.simulator.create_price(product)["id"]}]}
    )
    shop.simulator.advance(MONTH)
    assert shop.keys() == ["sso", "sso"]
    for refused in ({"name": "New"}, {"active": True}, {"metadata": {"a": "b"}}):
        with pytest.raises(sdk.InvalidRequestError):
            shop.client.v1.entitlements.features.update(shop.feature["id"], refused)
    with pytest.raises(sdk.InvalidRequestError) as caught:
        shop.client.v1.products.features.create(product["id"], {"entitlement_feature": shop.feature["id"]})
    assert caught.value.param == "entitlement_feature"


@pytest.mark.parametrize(
    ("follows", "told"), [(True, ["deleted", SUMMARY, "customer.deleted"]), (False, ["deleted", "customer.deleted"])]
)
def test_a_deleted_customer_loses_all_and_a_summary_may_say_so(follows: bool, told: list[str], shop: Shop) -> None:
    shop.simulator.deletion_sends_summary = follows
    shop.subscribe()
    shop.told()
    shop.client.v1.customers.delete(shop.customer)
    assert (shop.keys(), shop.told()) == ([], told)
    shop.simulator.advance(MONTH)
    assert shop.told() == []


# --- the clock


def test_one_clock_gives_date_created_and_signature(shop: Shop) -> None:
    before = shop.simulator.clock.seconds
    shop.simulator.advance(timedelta(days=400))
    now = shop.simulator.clock.seconds
    assert now == before + 400 * DAY
    answer = shop.client.v1.customers.list({})
    assert answer.last_response is not None
    event = shop.simulator.events()[0] if shop.simulator.events() else None
    assert event is None, "events are kept for thirty days of this clock"
    customer = shop.client.v1.customers.create({})
    assert customer.created == now
    [event] = shop.simulator.events()
    assert event["created"] == now
    assert f"t={now}," in shop.simulator.signed_delivery(event["id"]).headers["Stripe-Signature"]


def test_there_is_no_way_back(shop: Shop) -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        shop.simulator.advance(-1)


def test_over_http_time_passes_just_so(shop: Shop) -> None:
    shop.subscribe(trial_period_days=1)
    url = f"{shop.simulator.url}/_simulator/clock"
    request = urllib.request.Request(url, json.dumps({"advance": DAY}).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["now"] == shop.simulator.clock.now()
    assert shop.status() == "active"
