"""A server in its own process, fed over HTTP by the simulator; and killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest
from django.db import connection

from entitlements_app.linking import link
from entitlements_app.models import WebhookEvent
from entitlements_app.testing import StripeSimulator
from tests.delivery import PAYLOADS, SECRET, signature
from tests.rows import customer, effective, held, make_subscriber
from tests.server import Server
from tests.shop import Shop
from tests.threads import closed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stripe() -> Iterator[StripeSimulator]:
    """One that tries again for as long as a busy machine may need to start a server."""
    with StripeSimulator(webhook_secret=SECRET, retry_delays=(0.5, 1, 2, 4, 8, 16, 32)) as simulator:
        yield simulator


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    server = Server(shop.stripe).start()
    try:
        yield server
    finally:
        server.stop()


def wait_until(true: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_a_plan_opens_and_closes_a_gate_over_http(shop: Shop, server: Server) -> None:
    shop.stripe.add_webhook_endpoint(server.webhook_url)
    subscriber = make_subscriber()
    stripe_id = shop.customer()
    link(subscriber, stripe_id)
    subscription = shop.subscribe(stripe_id, "pro")
    shop.stripe.wait_for_deliveries()
    assert held(stripe_id) == {"sso", "export"}
    shop.stripe.clock.advance(30)
    shop.stripe.change_plan(subscription, shop.prices["enterprise"])
    shop.stripe.wait_for_deliveries()
    assert held(stripe_id) == {"sso", "export", "audit"}
    shop.stripe.clock.advance(30)
    shop.stripe.cancel(subscription)
    shop.stripe.wait_for_deliveries()
    assert held(stripe_id) == set()
    assert effective() == ["+export", "+sso", "+audit", "-audit", "-export", "-sso"]
    assert {delivery.status for delivery in shop.stripe.deliveries} == {200}


def test_the_captured_events_posted_to_a_running_server_are_all_kept(server: Server) -> None:
    files = sorted(PAYLOADS.glob("event_*.json"))
    assert len(files) > 12
    for file in files:
        body = file.read_bytes()
        request = Request(server.webhook_url, data=body, headers={"Stripe-Signature": signature(body)})
        with urlopen(request, timeout=10) as response:
            assert response.status == 200, file.name
    statuses = dict(WebhookEvent.objects.values_list("stripe_id", "status"))
    assert len(statuses) == len(files)
    assert set(statuses.values()) == {"processed", "ignored"}
    ignored = WebhookEvent.objects.filter(status="ignored")
    assert {(event.livemode, event.account != "") for event in ignored} == {(True, False), (False, True)}


@contextmanager
def slow_processing() -> Iterator[None]:
    """Processing gets as far as the customer and stays there: behind a lock, or on SQLite in a trigger that counts."""
    if connection.vendor == "postgresql":
        with closed("customer"):
            yield
        return
    tables = ", ".join(f"auth_permission AS {name}" for name in "abcdef")
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TRIGGER slow BEFORE UPDATE ON entitlements_app_customer BEGIN SELECT count(*) FROM {tables}; END"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER slow")


@pytest.mark.parametrize("again", ["Stripe", "entitlements_run"])
def test_killed_between_storing_and_processing_nothing_is_lost(shop: Shop, server: Server, again: str) -> None:
    subscriber = make_subscriber()
    stripe_id = shop.customer()
    link(subscriber, stripe_id)
    shop.subscribe(stripe_id, "pro")
    [event] = [event for event in shop.new_events() if event["type"].endswith("summary.updated")]
    endpoint = shop.stripe.add_webhook_endpoint(server.webhook_url)
    with slow_processing():
        shop.stripe.resend(event["id"])
        wait_until(WebhookEvent.objects.exists)
        time.sleep(0.5)
        assert WebhookEvent.objects.get().status == "pending", "committed before it is processed"
        server.kill()
    assert held(stripe_id) == set()
    if again == "Stripe":
        server.start()
        shop.stripe.wait_for_deliveries()
    else:
        shop.stripe.call("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
        assert "1 taken" in server.command("entitlements_run")
    assert held(stripe_id) == {"sso", "export"}
    assert WebhookEvent.objects.get().status == "processed"
    assert effective() == ["+export", "+sso"]


def test_killed_in_the_middle_of_a_burst_nothing_is_lost(shop: Shop, server: Server) -> None:
    shop.stripe.add_webhook_endpoint(server.webhook_url)
    customers = [shop.customer() for _ in range(30)]
    for stripe_id in customers:
        link(make_subscriber(), stripe_id)
    for stripe_id in customers:
        shop.subscribe(stripe_id, "pro")
    wait_until(lambda: WebhookEvent.objects.count() > 10)
    server.kill()
    server.start()
    shop.stripe.wait_for_deliveries(timeout=60)
    server.command("entitlements_run")
    for stripe_id in customers:
        assert held(stripe_id) == {"sso", "export"}
        assert customer(stripe_id).version >= 1
    assert sorted(effective()) == ["+export"] * 30 + ["+sso"] * 30
    assert not WebhookEvent.objects.pending().exists()
