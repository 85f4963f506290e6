"""Endpoints, deliveries, and what can go wrong with them."""

from __future__ import annotations

import json
import socket

import pytest
import stripe

from entitlements_app.testing import StripeSimulator
from tests.simulator.tools import SUMMARY, payload, plan, same_shape, wait_until


class TestWebhooks:
    def test_a_delivery_is_signed_so_that_stripe_python_accepts_it(self, simulator, receiver):
        endpoint = simulator.add_webhook_endpoint(receiver.url, enabled_events=[SUMMARY])
        simulator.subscribe(simulator.create_customer(), plan(simulator, "sso"))
        simulator.wait_for_deliveries()
        ((body, signature, path),) = receiver.received
        event = stripe.Webhook.construct_event(body, signature, simulator.webhook_secret)
        assert event.type == SUMMARY
        assert path == "/stripe/webhook/"
        assert json.loads(body)["pending_webhooks"] == 1
        assert simulator.events(SUMMARY)[0]["pending_webhooks"] == 0
        assert endpoint["secret"] == simulator.webhook_secret
        (record,) = simulator.deliveries
        assert (record.event_id, record.status, record.body, record.attempt) == (event.id, 200, "seen", 1)

    def test_an_endpoint_gets_the_types_it_enabled_signed_with_its_own_secret(self, simulator, client, receiver):
        params = {"url": receiver.url, "enabled_events": ["customer.created"]}
        secret = client.v1.webhook_endpoints.create(params).secret
        simulator.subscribe(simulator.create_customer(), plan(simulator, "sso"))
        simulator.wait_for_deliveries()
        ((body, signature, _),) = receiver.received
        assert stripe.Webhook.construct_event(body, signature, secret).type == "customer.created"

    def test_deliveries_keep_the_order_of_events(self, simulator, receiver):
        simulator.add_webhook_endpoint(receiver.url)
        for _ in range(5):
            simulator.subscribe(simulator.create_customer(), plan(simulator, "sso"))
        simulator.wait_for_deliveries()
        assert [e["id"] for e in receiver.events] == [e["id"] for e in simulator.events()][::-1]

    @pytest.mark.parametrize("status", [302, 400, 500])
    def test_anything_but_2xx_is_tried_again_with_a_fresh_signature(self, simulator, receiver, status):
        receiver.answers = [status]
        simulator.clock.freeze()
        simulator.add_webhook_endpoint(receiver.url)
        receiver.gate.clear()
        simulator.create_customer()
        wait_until(lambda: receiver.received)
        simulator.clock.advance(100)
        receiver.gate.set()
        simulator.wait_for_deliveries()
        (_, first, path), (_, second, _) = receiver.received
        assert (int(second.split(",")[0][2:]) - int(first.split(",")[0][2:])) == 100
        assert path == "/stripe/webhook/"
        assert [(r.attempt, r.status) for r in simulator.deliveries] == [(1, status), (2, 200)]

    def test_after_the_last_retry_it_gives_up(self, simulator):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            simulator.add_webhook_endpoint(f"http://127.0.0.1:{unused.getsockname()[1]}/")
            simulator.create_customer()
            simulator.wait_for_deliveries()
        assert [(r.attempt, r.status) for r in simulator.deliveries] == [(1, None), (2, None), (3, None)]
        assert "ConnectionRefused" in simulator.deliveries[0].error
        assert simulator.events()[0]["pending_webhooks"] == 1

    def test_waiting_too_short_names_what_is_open(self, simulator, receiver):
        simulator.add_webhook_endpoint(receiver.url)
        receiver.gate.clear()
        simulator.create_customer()
        with pytest.raises(TimeoutError, match=r"customer\.created"):
            simulator.wait_for_deliveries(timeout=0.1)
        receiver.gate.set()
        simulator.wait_for_deliveries()

    def test_a_deleted_endpoint_gets_no_retries(self, simulator, client, receiver):
        receiver.answers = [500]
        endpoint = simulator.add_webhook_endpoint(receiver.url)
        receiver.gate.clear()
        simulator.create_customer()
        wait_until(lambda: receiver.received)
        client.v1.webhook_endpoints.delete(endpoint["id"])
        receiver.gate.set()
        simulator.wait_for_deliveries()
        assert len(receiver.received) == 1

    def test_a_disabled_endpoint_gets_nothing(self, simulator, client, receiver):
        endpoint = simulator.add_webhook_endpoint(receiver.url)
        assert client.v1.webhook_endpoints.update(endpoint["id"], {"disabled": True}).status == "disabled"
        simulator.create_customer()
        simulator.wait_for_deliveries()
        assert receiver.received == []

    def test_an_event_can_be_sent_again(self, simulator, receiver):
        simulator.add_webhook_endpoint(receiver.url)
        simulator.create_customer()
        simulator.resend(simulator.events()[0])
        simulator.wait_for_deliveries()
        assert len(receiver.received) == 2
        assert len({event["id"] for event in receiver.events}) == 1

    def test_without_a_server_a_delivery_can_be_signed_for_a_test_client(self):
        simulator = StripeSimulator()
        simulator.subscribe(simulator.create_customer(name="Zoë"), plan(simulator, "sso"))
        delivery = simulator.signed_delivery(simulator.events("customer.created")[0]["id"])
        event = stripe.Webhook.construct_event(
            delivery.body, delivery.headers["Stripe-Signature"], simulator.webhook_secret
        )
        assert event.data.object["name"] == "Zoë"
        old = simulator.sign(b"{}", secret="whsec_other", t=1)
        with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
            stripe.Webhook.construct_event(b"{}", old, "whsec_other")


class TestWebhookFaults:
    @pytest.fixture(autouse=True)
    def endpoint(self, simulator, receiver):
        simulator.add_webhook_endpoint(receiver.url, enabled_events=[SUMMARY])

    def change_three_times(self, simulator):
        acme = simulator.create_customer()
        subscription = simulator.subscribe(acme, plan(simulator, "a"))
        simulator.change_plan(subscription, plan(simulator, "b"))
        simulator.change_plan(subscription, plan(simulator, "c"))
        return acme

    def test_dropped_webhooks_never_arrive(self, simulator, receiver):
        simulator.drop_webhooks(2)
        self.change_three_times(simulator)
        simulator.wait_for_deliveries()
        assert receiver.lookup_keys == [["c"]]
        assert [record.error for record in simulator.deliveries][:2] == ["dropped by a fault"] * 2

    def test_doubled_webhooks_arrive_twice(self, simulator, receiver):
        simulator.double_webhooks(1)
        self.change_three_times(simulator)
        simulator.wait_for_deliveries()
        assert receiver.lookup_keys == [["a"], ["a"], ["b"], ["c"]]
        assert receiver.events[0]["id"] == receiver.events[1]["id"]

    def test_reordered_webhooks_arrive_backwards(self, simulator, receiver):
        simulator.reorder_webhooks(3)
        self.change_three_times(simulator)
        simulator.wait_for_deliveries()
        assert receiver.lookup_keys == [["c"], ["b"], ["a"]]

    def test_what_is_still_held_for_reordering_is_open_until_faults_are_cleared(self, simulator, receiver):
        simulator.reorder_webhooks(5)
        self.change_three_times(simulator)
        with pytest.raises(TimeoutError):
            simulator.wait_for_deliveries(timeout=0.05)
        simulator.clear_faults()
        simulator.wait_for_deliveries()
        assert receiver.lookup_keys == [["c"], ["b"], ["a"]]

    def test_a_fault_can_be_for_one_type_of_event(self, simulator, receiver):
        simulator.drop_webhooks(1, type="customer.*")
        self.change_three_times(simulator)
        simulator.wait_for_deliveries()
        assert len(receiver.received) == 3

    def test_summaries_can_share_a_second(self, simulator):
        simulator.same_second(2)
        simulator.clock.freeze()
        acme = simulator.create_customer()
        subscription = simulator.subscribe(acme, plan(simulator, "a"))
        simulator.clock.advance(5)
        simulator.change_plan(subscription, plan(simulator, "b"))
        simulator.clock.advance(5)
        simulator.change_plan(subscription, plan(simulator, "c"))
        third, second, first = (event["created"] for event in simulator.events(SUMMARY))
        assert first == second
        assert third == first + 10
        same_shape(simulator.events(SUMMARY)[1], payload("event_summary_same_second_b_newer.json"))

    def test_the_inline_list_can_be_cut_shorter(self, simulator):
        simulator.cut_at(1)
        simulator.subscribe(simulator.create_customer(), plan(simulator, "a", "b"))
        inline = simulator.events(SUMMARY)[0]["data"]["object"]["entitlements"]
        assert (len(inline["data"]), inline["has_more"]) == (1, True)
