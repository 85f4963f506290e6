"""ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER: the site says whose a customer is, once Stripe was asked who it is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import F

from entitlements_app.access import has_entitlement
from entitlements_app.linking import link, unlink
from entitlements_app.models import Customer
from entitlements_app.sync import sync_customer
from tests.delivery import SUMMARY, deliver, summary
from tests.rows import customer, effective, make_subscriber
from tests.shop import Shop
from tests.threads import Crowd

pytestmark = pytest.mark.django_db(transaction=True)

asked: list[Customer] = []
answer: Any = None


def subscriber_for_customer(customer: Customer) -> Any:
    """What a site would write: here it says what the test wants."""
    asked.append(customer)
    assert not connection.in_atomic_block, "asked inside a transaction"
    return answer() if callable(answer) else answer


@pytest.fixture
def site_links(settings: Any) -> Any:
    settings.ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER = "tests.test_site_links.subscriber_for_customer"
    asked.clear()
    say(None)
    return settings


def say(what: Any) -> None:
    global answer
    answer = what


def test_a_customer_from_checkout_is_linked_with_its_first_event(site_links: Any, shop: Shop) -> None:
    somebody = make_subscriber()
    say(somebody)
    stripe_id = shop.stripe.create_customer("ada@example.com", name="Ada", metadata={"user_id": "7"})["id"]
    shop.subscribe(stripe_id, "pro")
    shop.deliver(only=SUMMARY)
    assert has_entitlement(somebody, "sso", "export")
    row = customer(stripe_id)
    assert (row.email, row.name, row.metadata) == ("ada@example.com", "Ada", {"user_id": "7"})
    assert [(each.email, each.name, each.metadata) for each in asked] == [("ada@example.com", "Ada", {"user_id": "7"})]
    assert effective() == ["+export", "+sso"]


def test_the_customer_is_retrieved_and_its_list_asked_for_at_once(site_links: Any, shop: Shop) -> None:
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    shop.calls()
    shop.deliver(only=SUMMARY)
    assert sorted(shop.calls()) == [f"/v1/customers/{stripe_id}", "/v1/entitlements/active_entitlements"]


def test_of_a_linked_customer_nobody_is_asked(site_links: Any, shop: Shop) -> None:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    shop.calls()
    shop.deliver(only=SUMMARY)
    assert shop.calls() == ["/v1/entitlements/active_entitlements"]
    assert asked == []


def test_a_site_that_does_not_know_is_asked_again_with_the_next_event(site_links: Any, shop: Shop) -> None:
    somebody = make_subscriber()
    stripe_id = shop.customer()
    subscription = shop.subscribe(stripe_id, "pro")
    shop.deliver(only=SUMMARY)
    assert customer(stripe_id).subscriber is None
    say(somebody)
    shop.stripe.clock.advance(10)
    shop.stripe.change_plan(subscription, shop.prices["enterprise"])
    shop.deliver(only=SUMMARY)
    assert len(asked) >= 2
    assert has_entitlement(somebody, "audit")


def test_a_fetch_by_hand_asks_too(site_links: Any, shop: Shop) -> None:
    stripe_id = shop.customer()
    deliver(summary(stripe_id))
    somebody = make_subscriber()
    say(somebody)
    sync_customer(customer(stripe_id))
    assert customer(stripe_id).subscriber == somebody


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: 1 / 0,
        lambda: Group(name="another model"),
        lambda: type(make_subscriber())(),
        lambda: "ada",
    ],
    ids=["raises", "another model", "not saved", "a text"],
)
def test_what_goes_wrong_in_it_is_logged_and_the_fetch_stands(
    site_links: Any, shop: Shop, caplog: pytest.LogCaptureFixture, wrong: Any
) -> None:
    say(wrong)
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    shop.deliver(only=SUMMARY)
    row = customer(stripe_id)
    assert row.subscriber is None
    assert row.fetched_at is not None
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert stripe_id in record.getMessage()


def test_who_linked_meanwhile_was_first(site_links: Any, shop: Shop) -> None:
    first, second = make_subscriber(), make_subscriber()
    stripe_id = shop.customer()

    def links_it_itself() -> Any:
        link(first, stripe_id)
        return second

    say(links_it_itself)
    shop.subscribe(stripe_id, "pro")
    shop.deliver(only=SUMMARY)
    assert customer(stripe_id).subscriber == first


def test_who_a_customer_was_before_is_not_taken_for_who_it_is(site_links: Any, shop: Shop) -> None:
    """Stripe's answer came too late to count, so what it said of the customer was not kept, either."""
    somebody = make_subscriber()
    say(lambda: somebody if asked[-1].metadata == {"user_id": "7"} else None)
    stripe_id = shop.stripe.create_customer("ada@example.com", metadata={"user_id": "7"})["id"]
    shop.subscribe(stripe_id, "pro")
    shop.deliver(only=SUMMARY)
    unlink(stripe_id)
    shop.stripe.call("POST", f"/v1/customers/{stripe_id}", {"metadata": {"user_id": "8"}})
    with shop.stripe.hold("GET", f"/v1/customers/{stripe_id}") as in_flight:
        crowd = Crowd().start(lambda: sync_customer(customer(stripe_id)))
        in_flight.wait_for_request()
        Customer.objects.update(version=F("version") + 1)  # as an event would
        in_flight.release()
        crowd.join()
    assert customer(stripe_id).subscriber is None
    sync_customer(customer(stripe_id))
    assert asked[-1].metadata == {"user_id": "8"}


def test_a_deleted_customer_is_nobody_s(site_links: Any, shop: Shop) -> None:
    say(make_subscriber())
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    shop.stripe.delete_customer(stripe_id)
    shop.deliver(only=SUMMARY)
    assert asked == []
    assert customer(stripe_id).subscriber is None


def test_without_the_setting_nobody_is_retrieved(shop: Shop) -> None:
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    shop.calls()
    shop.deliver(only=SUMMARY)
    assert shop.calls() == ["/v1/entitlements/active_entitlements"]
