"""Faults of calls, the clock, and control over HTTP."""

from __future__ import annotations

import email.utils
import json
import threading
import time

import pytest
import stripe

from entitlements_app.testing import StripeSimulator
from tests.simulator.tools import ENTITLEMENTS, SUMMARY, client_for, error_body, payload, plan, post_json, same_shape


class TestRequestFaults:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, stripe.AuthenticationError),
            (403, stripe.PermissionError),
            (429, stripe.RateLimitError),
            (500, stripe.APIError),
            (503, stripe.APIError),
        ],
    )
    def test_the_next_requests_fail_as_asked(self, simulator, client, status, error):
        simulator.fail_requests(status, times=2)
        for _ in range(2):
            with pytest.raises(error) as failed:
                client.v1.customers.create({})
            assert failed.value.http_status == status
            assert failed.value.request_id
        assert simulator.call("GET", "/v1/customers")["data"] == []
        client.v1.customers.create({})

    @pytest.mark.parametrize(
        ("path", "name"), [(None, "429_rate_limit_global"), (ENTITLEMENTS, "429_rate_limit_endpoint")]
    )
    def test_a_rate_limit_names_its_reason(self, simulator, client, path, name):
        simulator.fail_requests(429, path=path)
        list_all = client.v1.entitlements.active_entitlements.list
        status, body, headers = error_body(lambda: list_all({"customer": "cus_x"}))
        expected = payload(f"errors/{name}.json")
        reason = "Stripe-Rate-Limited-Reason"
        assert (status, headers[reason]) == (429, expected["headers"][reason])
        same_shape(body, expected["body"])

    def test_a_failure_can_be_for_one_path(self, simulator, client):
        simulator.fail_requests(500, path="/v1/products*")
        assert client.v1.customers.list().data == []
        assert error_body(lambda: client.v1.products.list())[0] == 500

    def test_a_status_without_an_error_is_refused(self, simulator):
        with pytest.raises(ValueError, match="no error answer for status 418"):
            simulator.fail_requests(418)

    def test_a_dropped_connection_has_no_answer(self, simulator, client):
        simulator.drop_connections()
        with pytest.raises(stripe.APIConnectionError):
            client.v1.customers.create({})
        assert client.v1.customers.list().data == []
        assert [record.status for record in simulator.requests] == [None, 200]

    def test_slow_paths_are_slow_until_cleared(self, simulator, client):
        def took():
            began = time.monotonic()
            client.v1.products.list()
            return time.monotonic() - began

        simulator.slow(0.15, path="/v1/products")
        assert took() >= 0.15
        simulator.clear_faults()
        assert min(took() for _ in range(10)) < 0.15

    def test_a_held_answer_is_older_than_what_happened_meanwhile(self, simulator, client):
        acme = simulator.create_customer()["id"]
        subscription = simulator.subscribe(acme, plan(simulator, "old"))
        answers = []

        def fetch():
            page = client_for(simulator).v1.entitlements.active_entitlements.list({"customer": acme})
            answers.append([row.lookup_key for row in page.data])

        with simulator.hold("GET", ENTITLEMENTS) as held:
            first = threading.Thread(target=fetch)
            first.start()
            held.wait_for_request(5)
            simulator.change_plan(subscription, plan(simulator, "new"))
            fetch()
            held.release()
            first.join()
        assert answers == [["new"], ["old"]]

    def test_leaving_the_block_releases_what_is_held(self, simulator):
        thread = threading.Thread(target=lambda: client_for(simulator).v1.customers.list())
        with simulator.hold("GET", "/v1/customers") as held:
            thread.start()
            held.wait_for_request(5)
        thread.join(5)
        assert not thread.is_alive()
        with simulator.hold("GET", "/v1/customers") as held, pytest.raises(TimeoutError):
            held.wait_for_request(0.01)

    def test_requests_are_logged_for_counting(self, simulator, client):
        client.v1.customers.list({"limit": 3})
        assert error_body(lambda: client.v1.customers.retrieve("cus_x"))[0] == 404
        records = [(r.method, r.path, r.params, r.status) for r in simulator.requests]
        assert records == [
            ("GET", "/v1/customers", {"limit": "3"}, 200),
            ("GET", "/v1/customers/cus_x", {}, 404),
        ]
        simulator.clear_requests()
        assert simulator.requests == []


class TestClock:
    def test_date_created_and_t_are_one_time(self, simulator, client, receiver):
        simulator.clock.freeze()
        simulator.clock.set(1_770_000_000)
        simulator.clock.advance(86_400)
        simulator.add_webhook_endpoint(receiver.url)
        answer = client.v1.customers.create({})
        simulator.wait_for_deliveries()
        date = email.utils.parsedate_to_datetime(answer.last_response.headers["Date"])
        assert date.timestamp() == answer.created == 1_770_086_400
        ((body, signature, _),) = receiver.received
        assert json.loads(body)["created"] == 1_770_086_400
        assert signature.startswith("t=1770086400,v1=")

    def test_it_starts_as_real_time_and_goes_on_from_where_it_was_frozen(self):
        clock = StripeSimulator().clock
        assert abs(clock.now() - time.time()) < 5
        clock.freeze()
        clock.advance(1000)
        shown = clock.now()
        time.sleep(0.01)
        assert clock.now() == shown
        clock.unfreeze()
        assert shown <= clock.now() < shown + 5

    def test_the_date_can_be_left_out(self, simulator, client):
        simulator.no_date()
        assert "Date" not in client.v1.customers.list().last_response.headers
        simulator.no_date(False)
        assert "Date" in client.v1.customers.list().last_response.headers


class TestControl:
    def test_another_process_can_move_the_clock_and_switch_faults(self, simulator, client):
        status, clock = post_json(simulator, "/_simulator/clock", {"freeze": True, "set": 1_770_000_000})
        assert (status, clock) == (200, {"now": 1_770_000_000.0, "frozen": True})
        faults = {"fail_requests": {"status": 503, "times": 1, "method": "GET"}, "no_date": True, "cut_at": 1}
        assert post_json(simulator, "/_simulator/faults", faults)[0] == 200
        assert error_body(lambda: client.v1.customers.list())[0] == 503
        assert post_json(simulator, "/_simulator/switches", {"missing_customer": "empty"})[0] == 200
        assert client.v1.entitlements.active_entitlements.list({"customer": "cus_x"}).data == []
        logged = post_json(simulator, "/_simulator/requests", {}, "GET")[1]["data"]
        assert [record["status"] for record in logged] == [503, 200]
        assert post_json(simulator, "/_simulator/faults", {}, "DELETE")[0] == 200
        assert "Date" in client.v1.customers.list().last_response.headers
        assert post_json(simulator, "/_simulator/state", {}, "GET")[1]["clock"]["now"] == 1_770_000_000

    def test_another_process_can_renew_resend_and_wait(self, simulator, receiver):
        simulator.add_webhook_endpoint(receiver.url, enabled_events=[SUMMARY])
        price = plan(simulator, "sso")
        subscription = simulator.subscribe(simulator.create_customer(), price)["id"]
        simulator.attach_feature(price["product"], simulator.create_feature("late"))
        assert post_json(simulator, "/_simulator/renew", {"subscription": subscription})[0] == 200
        event = simulator.events(SUMMARY)[0]["id"]
        assert post_json(simulator, "/_simulator/resend", {"event": event})[0] == 200
        assert post_json(simulator, "/_simulator/wait", {"timeout": 5}) == (200, {"open": 0})
        assert len(post_json(simulator, "/_simulator/deliveries", {}, "GET")[1]["data"]) == 3
        simulator.reorder_webhooks(2)
        body = {"subscription": subscription, "status": "unpaid"}
        assert post_json(simulator, "/_simulator/status", body)[0] == 200
        assert post_json(simulator, "/_simulator/wait", {"timeout": 0.05})[0] == 504

    def test_its_state_tells_whether_a_webhook_is_still_to_be_lost(self, simulator, receiver):
        def to_drop():
            return post_json(simulator, "/_simulator/state", {}, "GET")[1]["webhooks_to_drop"]

        simulator.add_webhook_endpoint(receiver.url)
        assert to_drop() == 0
        post_json(simulator, "/_simulator/faults", {"drop_webhooks": 1})
        assert to_drop() == 1
        simulator.create_customer()
        assert to_drop() == 0

    @pytest.mark.parametrize(
        ("path", "content", "status"),
        [
            ("/_simulator/faults", {"explode": 1}, 400),
            ("/_simulator/faults", {"slow": {"minutes": 1}}, 400),
            ("/_simulator/faults", {"slow": "very"}, 400),
            ("/_simulator/faults", {"drop_webhooks": {"times": "2"}}, 400),
            ("/_simulator/faults", {"fail_requests": {"status": 418}}, 400),
            ("/_simulator/clock", [], 400),
            ("/_simulator/renew", {}, 400),
            ("/_simulator/renew", {"subscription": "sub_x"}, 404),
            ("/_simulator/nothing", {}, 404),
        ],
    )
    def test_wrong_control_is_refused(self, simulator, path, content, status):
        assert post_json(simulator, path, content)[0] == status

    @pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Host": "evil.example.com"}])
    def test_a_web_page_cannot_control_it(self, simulator, headers):
        assert post_json(simulator, "/_simulator/clock", {"advance": 1}, headers=headers)[0] == 403
