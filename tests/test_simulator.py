"""StripeSimulator over real HTTP with the real stripe-python: what the other tests build on."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stripe
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from entitlements_app.access import has_entitlement
from entitlements_app.linking import link
from entitlements_app.testing import ApiError, StripeSimulator
from entitlements_app.testing.simulator import api, extract_parameters, parameters
from tests.rows import make_subscriber

PAYLOADS = Path(__file__).parent / "payloads"
SUMMARY = "entitlements.active_entitlement_summary.updated"
ENTITLEMENTS = "/v1/entitlements/active_entitlements"
SETTINGS = (
    "ENTITLEMENTS_STRIPE_API_KEY",
    "ENTITLEMENTS_STRIPE_API_BASE",
    "ENTITLEMENTS_WEBHOOK_SECRETS",
    "ENTITLEMENTS_LIVEMODE",
)


def payload(name):
    return json.loads((PAYLOADS / name).read_text())


def same_shape(mine, captured, where="$"):
    """The same keys and types on every level; null fits anything, the first rows of lists are compared."""
    if mine is None or captured is None:
        return
    mine = dict(mine) if isinstance(mine, dict) else mine
    assert type(mine) is type(captured), where
    if isinstance(mine, dict) and not where.endswith("metadata"):
        assert set(mine) == set(captured), where
        for key in mine:
            same_shape(mine[key], captured[key], f"{where}.{key}")
    if isinstance(mine, list) and mine and captured:
        same_shape(mine[0], captured[0], f"{where}[0]")


@pytest.fixture
def simulator():
    with StripeSimulator(retry_delays=(0.05, 0.1), seed=7) as simulator:
        yield simulator


@pytest.fixture
def client(simulator):
    return client_for(simulator)


def client_for(simulator, key=None):
    return stripe.StripeClient(key or simulator.api_key, base_addresses={"api": simulator.url})


class Receiver:
    """A webhook endpoint: keeps what it got, answers the statuses it was given, then 200."""

    def __init__(self):
        self.received = []
        self.answers = []
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((body, self.headers["Stripe-Signature"], self.path))
                receiver.gate.wait(10)
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere/")
                self.end_headers()
                self.wfile.write(b"seen")

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args):
                """The simulator may be stopped before it reads the answer."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/stripe/webhook/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def events(self):
        return [json.loads(body) for body, _, _ in self.received]

    @property
    def lookup_keys(self):
        return [
            [grant["lookup_key"] for grant in event["data"]["object"]["entitlements"]["data"]] for event in self.events
        ]


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.stop()


def plan(simulator, *keys):
    """A price of a new product with these features, made if need be."""
    held = {f["lookup_key"]: f for f in simulator.call("GET", "/v1/entitlements/features", {"limit": 100})["data"]}
    features = [held.get(key) or simulator.create_feature(key) for key in keys]
    return simulator.create_price(simulator.create_product("+".join(keys)[:80] or "empty", features=features))


def keys_of(simulator, customer):
    return sorted(row["lookup_key"] for row in simulator.active_entitlements(customer))


def post_json(simulator, path, content, method="POST", headers=None):
    host = simulator.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, path, None if content is None else json.dumps(content), headers or {})
    answer = connection.getresponse()
    result = answer.status, json.loads(answer.read())
    connection.close()
    return result


class TestLists:
    def test_23_grants_come_as_pages_of_ten_ten_and_three(self, simulator, client):
        acme = simulator.create_customer()["id"]
        simulator.subscribe(acme, plan(simulator, *(f"feature-{n}" for n in range(23))))
        sizes, seen, more = [], [], {}
        while True:
            page = client.v1.entitlements.active_entitlements.list({"customer": acme, **more})
            sizes.append(len(page.data))
            seen += [row.id for row in page.data]
            same_shape(page.last_response.data, payload(f"active_entitlements_page{len(sizes)}_of_3.json"))
            if not page.has_more:
                break
            more = {"starting_after": seen[-1]}
        assert sizes == [10, 10, 3]
        assert len(set(seen)) == 23

    def test_ending_before_goes_back_page_by_page(self, simulator, client):
        made = [simulator.create_customer()["id"] for _ in range(23)]
        page = client.v1.customers.list({"limit": 10, "ending_before": made[0]})
        assert [row.id for row in page.data] == made[1:11][::-1]
        assert page.has_more
        assert [row.id for row in page.auto_paging_iter()] == made[1:]

    def test_auto_paging_walks_all_and_lists_are_newest_first(self, simulator, client):
        made = [simulator.create_feature(f"key-{n}")["id"] for n in range(12)]
        page = client.v1.entitlements.features.list({"limit": 5})
        assert [row.id for row in page.auto_paging_iter()] == made[::-1]

    @pytest.mark.parametrize(
        ("params", "param", "code"),
        [
            ({"limit": 0}, "limit", "parameter_invalid_integer"),
            ({"limit": 101}, "limit", "parameter_invalid_integer"),
            ({"limit": "many"}, "limit", "parameter_invalid_integer"),
            ({"starting_after": "a", "ending_before": "b"}, "starting_after", None),
            ({"starting_after": "cus_gone"}, "starting_after", "resource_missing"),
            ({"ending_before": "cus_gone"}, "ending_before", "resource_missing"),
            ({"created": {"since": 1}}, "created[since]", "parameter_unknown"),
            ({"expand": ["data.nothing"]}, "expand", None),
        ],
    )
    def test_wrong_paging_is_refused(self, client, params, param, code):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.customers.list(params)
        assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, code)

    def test_a_cursor_keeps_its_place_when_its_row_is_filtered_out(self, simulator, client):
        oldest, middle, newest = (simulator.create_feature(key)["id"] for key in ("a", "b", "c"))
        first = client.v1.entitlements.features.list({"limit": 2})
        assert [row.id for row in first.data] == [newest, middle]
        simulator.archive_feature(middle)
        rest = client.v1.entitlements.features.list({"limit": 2, "starting_after": middle})
        assert [row.id for row in rest.data] == [oldest]

    def test_archived_features_are_listed_only_when_asked_for(self, simulator, client):
        simulator.create_feature("sso")
        gone = simulator.archive_feature(simulator.create_feature("legacy"))
        assert [f.lookup_key for f in client.v1.entitlements.features.list().data] == ["sso"]
        archived = client.v1.entitlements.features.list({"archived": True})
        assert [f.lookup_key for f in archived.data] == ["legacy"]
        assert client.v1.entitlements.features.retrieve(gone["id"]).active is False
        assert client.v1.entitlements.features.list({"lookup_key": "legacy", "archived": False}).data == []

    def test_expand_replaces_ids_by_objects(self, simulator, client):
        acme = simulator.create_customer()["id"]
        subscription = simulator.subscribe(acme, plan(simulator, "sso"))["id"]
        page = client.v1.entitlements.active_entitlements.list({"customer": acme, "expand": ["data.feature"]})
        same_shape(page.last_response.data["data"][0], payload("active_entitlement_expanded_feature.json"))
        one = client.v1.entitlements.active_entitlements.retrieve(page.data[0].id)
        same_shape(one.last_response.data, payload("active_entitlement.json"))
        params = {"expand": ["items.data.price.product", "customer"]}
        expanded = client.v1.subscriptions.retrieve(subscription, params)
        assert expanded.customer.id == acme
        assert expanded["items"].data[0].price.product.name == "sso"
        assert simulator.call("GET", f"/v1/subscriptions/{subscription}")["customer"] == acme

    def test_created_and_other_filters_narrow_a_list(self, simulator, client):
        simulator.clock.freeze()
        simulator.clock.set(1_770_000_000)
        early = simulator.create_customer("early@example.com")["id"]
        simulator.clock.advance(60)
        late = simulator.create_customer("late@example.com")["id"]

        def ids(**params):
            return [row.id for row in client.v1.customers.list(params).data]

        assert ids(created={"gte": 1_770_000_060}) == [late]
        assert ids(created={"gt": 1_770_000_060}) == []
        assert ids(created={"lt": 1_770_000_060}) == [early]
        assert ids(created=1_770_000_000) == [early]
        assert ids(email="late@example.com") == [late]


class TestGrants:
    def test_a_subscription_grants_the_features_of_its_products(self, simulator, client):
        acme = client.v1.customers.create({"email": "acme@example.com", "metadata": {"team": "7"}})
        price = plan(simulator, "sso", "api-access")["id"]
        client.v1.subscriptions.create({"customer": acme.id, "items": [{"price": price, "quantity": 5}]})
        page = client.v1.entitlements.active_entitlements.list({"customer": acme.id})
        assert sorted(row.lookup_key for row in page.data) == ["api-access", "sso"]
        same_shape(page.last_response.data, payload("active_entitlements_list.json"))

    def test_a_plan_change_gives_the_kept_feature_a_new_entitlement_id(self, simulator, client):
        acme = simulator.create_customer()["id"]
        subscription = client.v1.subscriptions.retrieve(simulator.subscribe(acme, plan(simulator, "individual"))["id"])
        before = simulator.active_entitlements(acme)
        bigger = plan(simulator, "individual", "team")["id"]
        item = subscription["items"].data[0].id
        client.v1.subscriptions.update(subscription.id, {"items": [{"id": item, "price": bigger}]})
        kept = [row for row in simulator.active_entitlements(acme) if row["lookup_key"] == "individual"]
        assert kept[0]["feature"] == before[0]["feature"]
        assert kept[0]["id"] != before[0]["id"]
        same_shape(simulator.events(SUMMARY)[0], payload("event_summary_upgraded.capture.json"))
        assert simulator.events(SUMMARY)[0]["data"]["previous_attributes"]["entitlements"]["data"] == before

    def test_a_cancelled_subscription_grants_nothing(self, simulator, client):
        acme = simulator.create_customer()["id"]
        subscription = simulator.subscribe(acme, plan(simulator, "sso"))["id"]
        ended = client.v1.subscriptions.cancel(subscription)
        assert ended.status == "canceled"
        empty = client.v1.entitlements.active_entitlements.list({"customer": acme})
        assert empty.last_response.data == payload("active_entitlements_empty.json")
        same_shape(simulator.events(SUMMARY)[0], payload("event_summary_revoked_all.json"))
        assert client.v1.subscriptions.list({"customer": acme}).data == []
        assert [s.id for s in client.v1.subscriptions.list({"status": "ended"}).data] == [subscription]

    def test_a_feature_of_two_subscriptions_goes_with_the_last(self, simulator):
        acme = simulator.create_customer()
        first = simulator.subscribe(acme, plan(simulator, "sso", "reports"))
        second = simulator.subscribe(acme, plan(simulator, "sso"))
        assert keys_of(simulator, acme) == ["reports", "sso"]
        assert len(simulator.events(SUMMARY)) == 1
        simulator.cancel(first)
        assert keys_of(simulator, acme) == ["sso"]
        simulator.cancel(second)
        assert keys_of(simulator, acme) == []

    def test_catalogue_changes_reach_a_subscriber_only_by_renewal(self, simulator):
        acme = simulator.create_customer()
        price = plan(simulator, "sso")
        subscription = simulator.subscribe(acme, price)
        simulator.attach_feature(price["product"], simulator.create_feature("reports"))
        simulator.detach_feature(price["product"], simulator.active_entitlements(acme)[0]["feature"])
        assert keys_of(simulator, acme) == ["sso"]
        assert len(simulator.events(SUMMARY)) == 1
        newcomer = simulator.create_customer()
        simulator.subscribe(newcomer, price)
        assert keys_of(simulator, newcomer) == ["reports"]
        simulator.renew(subscription)
        assert keys_of(simulator, acme) == ["reports"]

    @pytest.mark.parametrize(
        ("status", "keys"),
        [
            ("trialing", ["sso"]),
            ("past_due", ["sso"]),
            ("paused", ["sso"]),
            ("unpaid", []),
            ("incomplete", []),
        ],
    )
    def test_the_status_decides_whether_a_subscription_grants(self, simulator, status, keys):
        acme = simulator.create_customer()
        subscription = simulator.subscribe(acme, plan(simulator, "sso"))
        simulator.set_status(subscription, status)
        assert keys_of(simulator, acme) == keys

    def test_an_archived_feature_keeps_granting(self, simulator):
        price = plan(simulator, "sso")
        feature = simulator.call("GET", "/v1/entitlements/features")["data"][0]
        simulator.archive_feature(feature)
        acme = simulator.create_customer()
        simulator.subscribe(acme, price)
        assert keys_of(simulator, acme) == ["sso"]

    def test_deleting_a_customer_ends_its_subscriptions(self, simulator, client):
        acme = simulator.create_customer("acme@example.com")["id"]
        simulator.subscribe(acme, plan(simulator, "sso"))
        deleted = client.v1.customers.delete(acme)
        same_shape(deleted.last_response.data, payload("customer_deleted.json"))
        assert client.v1.customers.retrieve(acme).deleted is True
        assert keys_of(simulator, acme) == []
        assert [e["type"] for e in simulator.events()][:3] == [
            "customer.deleted",
            SUMMARY,
            "customer.subscription.deleted",
        ]
        same_shape(simulator.events("customer.deleted")[0], payload("event_customer_deleted.json"))
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.customers.delete(acme)
        assert refused.value.http_status == 404


class TestEvents:
    def test_the_first_grant_has_the_captured_shape(self, simulator):
        acme = simulator.create_customer()
        simulator.subscribe(acme, plan(simulator, "journeys"))
        (event,) = simulator.events(SUMMARY)
        same_shape(event, payload("event_summary_granted_first.capture.json"))
        assert event["request"] == {"id": None, "idempotency_key": None}
        assert event["data"]["previous_attributes"] == {"entitlements": {"data": []}}

    def test_a_live_account_has_live_ids(self):
        simulator = StripeSimulator(livemode=True)
        simulator.subscribe(simulator.create_customer(), plan(simulator, "journeys"))
        (event,) = simulator.events(SUMMARY)
        captured = payload("event_summary_granted_first_live.capture.json")
        same_shape(event, captured)
        mine, theirs = (e["data"]["object"]["entitlements"]["data"][0] for e in (event, captured))
        for key in ("id", "feature"):
            assert len(mine[key]) == len(theirs[key])
            assert "_test_" not in mine[key]
        assert event["livemode"]
        assert simulator.api_key.startswith("sk_live_")

    def test_more_than_ten_grants_are_cut_and_say_so(self, simulator):
        acme = simulator.create_customer()
        simulator.subscribe(acme, plan(simulator, *(f"key-{n}" for n in range(12))))
        inline = simulator.events(SUMMARY)[0]["data"]["object"]["entitlements"]
        assert len(inline["data"]) == 10
        assert inline["has_more"] is True
        assert inline["url"] == f"/v1/customer/{acme['id']}/entitlements"
        assert len(simulator.active_entitlements(acme)) == 12
        same_shape(simulator.events(SUMMARY)[0], payload("event_summary_truncated_ten_of_twelve.partial_capture.json"))

    def test_events_are_listed_by_type_and_delivery(self, simulator, client):
        simulator.add_webhook_endpoint("http://127.0.0.1:9/", enabled_events=["customer.created"])
        simulator.drop_webhooks()
        acme = simulator.create_customer()
        simulator.subscribe(acme, plan(simulator, "sso"))

        def types(**params):
            return [event.type for event in client.v1.events.list(params).data]

        assert types(type=SUMMARY) == [SUMMARY]
        assert types(types=[SUMMARY, "customer.created"]) == [SUMMARY, "customer.created"]
        assert types(type="customer.*") == ["customer.subscription.created", "customer.created"]
        assert types(delivery_success=False) == ["customer.created"]
        same_shape(client.v1.events.list({"type": SUMMARY}).last_response.data, payload("events_list.json"))
        with pytest.raises(stripe.InvalidRequestError):
            types(type=SUMMARY, types=[SUMMARY])

    def test_events_are_forgotten_after_thirty_days(self, simulator, client):
        simulator.create_customer()
        (event,) = client.v1.events.list().data
        simulator.clock.advance(31 * 24 * 3600)
        assert client.v1.events.list().data == []
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.events.retrieve(event.id)
        assert refused.value.http_status == 404

    def test_an_event_names_the_request_that_caused_it(self, simulator, client):
        answer = client.v1.customers.create({}, {"idempotency_key": "my-key"})
        (event,) = simulator.events("customer.created")
        assert event["request"] == {"id": answer.last_response.request_id, "idempotency_key": "my-key"}

    def test_one_seed_gives_the_same_ids_twice(self):
        first, second = (StripeSimulator(seed=3).create_feature("sso")["id"] for _ in range(2))
        assert first == second
        assert len(first) == len(payload("feature.json")["id"])


class TestShapes:
    def test_objects_have_the_shapes_of_the_payloads(self, simulator, client):
        feature = client.v1.entitlements.features.create(
            {"lookup_key": "reports", "name": "Reports", "metadata": {"area": "analytics"}}
        )
        same_shape(feature.last_response.data, payload("feature.json"))
        product = client.v1.products.create({"name": "Pro"})
        attached = client.v1.products.features.create(product.id, {"entitlement_feature": feature.id})
        same_shape(attached.last_response.data, payload("product_feature.json"))
        listed = client.v1.products.features.list(product.id)
        same_shape(listed.last_response.data, payload("product_features_list.json"))
        same_shape(
            client.v1.products.features.retrieve(product.id, attached.id).last_response.data,
            payload("product_feature.json"),
        )
        deleted = client.v1.products.features.delete(product.id, attached.id)
        same_shape(deleted.last_response.data, payload("product_feature_deleted.json"))
        customer = client.v1.customers.create({})
        same_shape(customer.last_response.data, payload("customer.json"))
        same_shape(client.v1.customers.list().last_response.data["data"][0], payload("customer.json"))
        features = client.v1.entitlements.features.list()
        same_shape(features.last_response.data, payload("features_list.json"))

    def test_only_the_create_answer_of_an_endpoint_has_its_secret(self, client):
        params = {"url": "http://localhost:8000/stripe/webhook/", "enabled_events": [SUMMARY]}
        created = client.v1.webhook_endpoints.create(params)
        same_shape(created.last_response.data, payload("webhook_endpoint_created_with_secret.json"))
        read = client.v1.webhook_endpoints.retrieve(created.id)
        same_shape(read.last_response.data, payload("webhook_endpoint.json"))
        assert client.v1.webhook_endpoints.delete(created.id).deleted is True
        assert client.v1.webhook_endpoints.list().data == []

    def test_features_products_and_customers_can_be_changed(self, simulator, client):
        feature = simulator.create_feature("sso", metadata={"a": "1", "b": "2"})["id"]
        updated = client.v1.entitlements.features.update(feature, {"name": "SSO", "metadata": {"a": "", "c": "3"}})
        assert updated.name == "SSO"
        assert updated.last_response.data["metadata"] == {"b": "2", "c": "3"}
        cleared = client.v1.entitlements.features.update(feature, {"metadata": ""})
        assert cleared.last_response.data["metadata"] == {}
        product = simulator.create_product("Pro")["id"]
        assert client.v1.products.update(product, {"active": False}).active is False
        assert client.v1.products.list({"active": True}).data == []
        assert simulator.events("product.updated")[0]["data"]["previous_attributes"]["active"] is True
        customer = simulator.create_customer("old@example.com")["id"]
        client.v1.customers.update(customer, {"email": "new@example.com"})
        (event,) = simulator.events("customer.updated")
        assert event["data"]["previous_attributes"] == {"email": "old@example.com"}


class TestCalls:
    def test_every_call_obeys_only_parameters_that_stripe_has(self):
        schemas = parameters.load_calls()
        for route in api.ROUTES:
            assert set(route.takes.split()) <= set(schemas[route.call].get("properties", {})), route.call
        assert set(schemas) == {route.call for route in api.ROUTES}

    def test_the_parameter_list_is_cut_from_the_specification(self):
        name = {"description": "A long text.", "maxLength": 80, "type": "string"}
        query = [{"in": "query", "name": "limit", "schema": {"type": "integer"}}, {"in": "path", "name": "id"}]
        form = {"properties": {"name": name}, "required": ["name"]}
        operations = {
            "get": {"parameters": query},
            "post": {"requestBody": {"content": {extract_parameters.FORM: {"schema": form}}}},
        }
        specification = {"info": {"version": "2026-05-27"}, "paths": {"/v1/customers": operations, "/v1/x": {}}}
        text = extract_parameters.render(extract_parameters.extract(specification))
        assert json.loads(text)["calls"] == {
            "GET /v1/customers": {"type": "object", "properties": {"limit": {"type": "integer"}}},
            "POST /v1/customers": {
                "type": "object",
                "properties": {"name": {"maxLength": 80, "type": "string"}},
                "required": ["name"],
            },
        }

    def test_products_and_prices_are_kept_and_listed(self, simulator, client):
        pro, basic = (simulator.create_product(name)["id"] for name in ("Pro", "Basic"))
        yearly = {"currency": "EUR", "product": pro, "recurring": {"interval": "year"}, "unit_amount": 9900}
        price = client.v1.prices.create(yearly)
        assert (price.currency, price.type, price.recurring.interval) == ("eur", "recurring", "year")
        once = client.v1.prices.create({"currency": "usd", "product": basic, "unit_amount": 5})
        assert [row.id for row in client.v1.prices.list({"product": pro}).data] == [price.id]
        assert [row.id for row in client.v1.prices.list({"type": "one_time"}).data] == [once.id]
        assert client.v1.prices.retrieve(price.id).unit_amount == 9900
        assert [row.id for row in client.v1.products.list({"ids": [basic]}).data] == [basic]
        assert client.v1.products.retrieve(pro).name == "Pro"
        acme = simulator.create_customer()["id"]
        items = [{"price": once.id}]
        assert error_body(lambda: client.v1.subscriptions.create({"customer": acme, "items": items}))[0] == 400
        assert error_body(lambda: client.v1.products.delete(pro))[0] == 400
        free = simulator.create_product("Free")["id"]
        assert client.v1.products.delete(free).deleted is True
        assert error_body(lambda: client.v1.products.retrieve(free))[0] == 404

    def test_subscriptions_are_filtered_and_their_items_changed(self, simulator, client):
        acme, price, extra = simulator.create_customer()["id"], plan(simulator, "a"), plan(simulator, "b")
        subscription = simulator.subscribe(acme, price)["id"]
        simulator.subscribe(simulator.create_customer(), extra)
        assert [s.id for s in client.v1.subscriptions.list({"price": price["id"]}).data] == [subscription]
        client.v1.subscriptions.update(subscription, {"items": [{"price": extra["id"]}], "metadata": {"a": "b"}})
        assert keys_of(simulator, acme) == ["a", "b"]
        item = client.v1.subscriptions.retrieve(subscription)["items"].data[0].id
        client.v1.subscriptions.update(subscription, {"items": [{"id": item, "deleted": True}]})
        assert keys_of(simulator, acme) == ["b"]
        client.v1.subscriptions.cancel(subscription, {"cancellation_details": {"comment": "too dear"}})
        ended = client.v1.subscriptions.retrieve(subscription)
        assert (ended.status, ended.cancellation_details.comment) == ("canceled", "too dear")
        items = {"items": [{"price": extra["id"]}]}
        assert error_body(lambda: client.v1.subscriptions.update(subscription, items))[0] == 400

    def test_a_change_without_new_items_keeps_entitlement_ids(self, simulator, client):
        acme = simulator.create_customer()
        subscription = simulator.subscribe(acme, plan(simulator, "sso"))
        before = simulator.active_entitlements(acme)
        client.v1.subscriptions.update(subscription["id"], {"metadata": {"seats": "5"}})
        item = subscription["items"]["data"][0]["id"]
        client.v1.subscriptions.update(subscription["id"], {"items": [{"id": item, "quantity": 9}]})
        simulator.renew(subscription)
        assert simulator.active_entitlements(acme) == before
        assert len(simulator.events(SUMMARY)) == 1
        assert len(simulator.events("customer.subscription.updated")) == 2

    def test_brackets_without_index_and_basic_authentication_are_understood(self, simulator):
        acme = simulator.create_customer()["id"]
        simulator.subscribe(acme, plan(simulator, "sso"))
        key = base64.b64encode(f"{simulator.api_key}:".encode()).decode()
        path = f"{ENTITLEMENTS}?customer={acme}&expand[]=data.feature"
        status, answer = post_json(simulator, path, None, "GET", {"Authorization": f"Basic {key}"})
        assert status == 200
        assert answer["data"][0]["feature"]["lookup_key"] == "sso"


def error_body(call):
    with pytest.raises(stripe.StripeError) as refused:
        call()
    return refused.value.http_status, refused.value.json_body, refused.value.headers


class TestErrors:
    def assert_like(self, name, call):
        """Status, keys, type, code and param as in the payload; texts are not compared."""
        expected = payload(f"errors/{name}.json")
        status, body, headers = error_body(call)
        assert status == expected["status"]
        expected["body"]["error"].pop("request_log_url", None)
        assert set(body["error"]) == set(expected["body"]["error"])
        for key in ("type", "code", "param", "doc_url"):
            assert body["error"].get(key) == expected["body"]["error"].get(key)
        for name in ("Request-Id", "Stripe-Rate-Limited-Reason"):
            assert (name in headers) == (name in expected["headers"])

    def test_what_is_missing_unknown_or_malformed_is_refused(self, client):
        entitlements, features = client.v1.entitlements.active_entitlements, client.v1.entitlements.features
        long = {"lookup_key": "k" * 81, "name": "long"}
        self.assert_like("400_missing_customer_param", lambda: entitlements.list({}))
        self.assert_like("400_unknown_param", lambda: features.list({"foo": 1}))
        self.assert_like("400_lookup_key_too_long", lambda: features.create(long))
        self.assert_like("400_resource_missing_customer_in_param", lambda: entitlements.list({"customer": "cus_x"}))
        self.assert_like("404_resource_missing_customer", lambda: client.v1.customers.retrieve("cus_x"))
        self.assert_like("404_resource_missing_feature", lambda: features.retrieve("feat_test_missing"))
        assert error_body(lambda: features.list({"archived": "perhaps"}))[1]["error"]["param"] == "archived"

    def test_the_catalogue_refuses_what_stripe_refuses(self, simulator, client):
        features, product = client.v1.entitlements.features, simulator.create_product("Pro")["id"]
        sso = simulator.create_feature("sso")["id"]
        attach = {"entitlement_feature": sso}
        client.v1.products.features.create(product, attach)
        other = simulator.create_product("Other")["id"]
        self.assert_like("400_duplicate_lookup_key", lambda: features.create({"lookup_key": "sso", "name": "again"}))
        self.assert_like("400_feature_already_attached", lambda: client.v1.products.features.create(product, attach))
        self.assert_like(
            "404_resource_missing_product_feature",
            lambda: client.v1.products.features.delete(product, "prodft_missing"),
        )
        simulator.archive_feature(sso)
        self.assert_like("400_feature_archived_update", lambda: features.update(sso, {"name": "back"}))
        self.assert_like("400_feature_archived_attach", lambda: client.v1.products.features.create(other, attach))
        assert simulator.create_feature("sso")["id"] != sso

    def test_a_wrong_key_is_401(self, simulator):
        wrong = client_for(simulator, "sk_test_wrong0000")
        self.assert_like("401_invalid_key", lambda: wrong.v1.customers.list())

    def test_the_nested_url_of_a_summary_does_not_exist(self, simulator, client):
        acme = simulator.create_customer()["id"]
        path = f"/v1/customer/{acme}/entitlements"
        self.assert_like("404_unrecognized_url", lambda: client.raw_request("get", path))
        body = error_body(lambda: client.raw_request("get", path))[1]
        assert body["error"]["message"] == f"Unrecognized request URL (GET: {path})."

    @pytest.mark.parametrize("path", ["/v1/checkout/sessions", "/v1/billing_portal/sessions"])
    def test_the_refusal_of_what_only_stripe_has_says_so(self, client, path):
        self.assert_like("404_unrecognized_url", lambda: client.raw_request("post", path))
        message = error_body(lambda: client.raw_request("post", path))[1]["error"]["message"]
        assert message == f"Unrecognized request URL (POST: {path}). StripeSimulator does not have it."

    def test_what_stripe_would_obey_and_the_simulator_would_not_is_refused(self, client):
        status, body, _ = error_body(lambda: client.v1.customers.list({"test_clock": "clock_1"}))
        assert (status, body["error"]["param"]) == (400, "test_clock")

    @pytest.mark.parametrize("answer", ["400", "404", "empty"])
    def test_an_unknown_customer_is_answered_as_the_switch_says(self, simulator, client, answer):
        simulator.missing_customer = answer
        entitlements = client.v1.entitlements.active_entitlements
        if answer == "empty":
            assert entitlements.list({"customer": "cus_x"}).data == []
        else:
            status, body, _ = error_body(lambda: entitlements.list({"customer": "cus_x"}))
            assert (status, body["error"]["code"]) == (int(answer), "resource_missing")

    def test_a_deleted_customer_is_answered_as_the_switch_says(self, simulator, client):
        acme = simulator.create_customer()["id"]
        simulator.delete_customer(acme)
        entitlements = client.v1.entitlements.active_entitlements
        assert entitlements.list({"customer": acme}).data == []
        simulator.deleted_customer = "error"
        assert error_body(lambda: entitlements.list({"customer": acme}))[0] == 400
        with pytest.raises(ValueError, match="deleted_customer"):
            simulator.deleted_customer = "perhaps"

    def test_a_refusal_changes_nothing(self, simulator, client):
        acme = simulator.create_customer()["id"]
        subscription = simulator.subscribe(acme, plan(simulator, "sso"))
        before, events = simulator.call("GET", f"/v1/subscriptions/{subscription['id']}"), simulator.events()
        item = subscription["items"]["data"][0]["id"]
        for items in ([{"id": "si_x"}], [{"id": item, "deleted": True}], [{"id": item, "price": "price_x"}]):
            assert (
                error_body(lambda items=items: client.v1.subscriptions.update(before["id"], {"items": items}))[0] == 400
            )
        assert simulator.call("GET", f"/v1/subscriptions/{subscription['id']}") == before
        assert simulator.events() == events

    def test_the_library_raises_the_same_refusals(self):
        with pytest.raises(ApiError) as refused:
            StripeSimulator().subscribe("cus_x", "price_x")
        assert refused.value.body["error"]["code"] == "resource_missing"

    @pytest.mark.parametrize(
        ("url", "cause"),
        [
            ("https://example.com/hook/", "it does not start with http:// and a host"),
            ("ftp://127.0.0.1/", "it does not start with http:// and a host"),
            ("127.0.0.1:8000/hook/", "it does not start with http:// and a host"),
            ("http:///hook/", "it does not start with http:// and a host"),
            ("http://[/", "it is no URL"),
            ("http://192.0.2.1/hook/", "192.0.2.1 is not this machine"),
            ("http://localhost.example.com/", "localhost.example.com is not this machine"),
            ("http://127.0.0.1@example.com/", "example.com is not this machine"),
            ("http://127.0.0.1:99999/", "its port is no number from 1 to 65535"),
            ("http://127.0.0.1:0/", "its port is no number from 1 to 65535"),
            ("http://127.0.0.1:http/", "its port is no number from 1 to 65535"),
        ],
    )
    def test_a_webhook_url_of_another_machine_is_refused_with_the_cause(self, simulator, client, url, cause):
        params = {"url": url, "enabled_events": ["*"]}
        assert error_body(lambda: client.v1.webhook_endpoints.create(params))[0] == 400
        with pytest.raises(ApiError, match=f"only to http URLs on this machine, not to .*: {cause}$"):
            simulator.add_webhook_endpoint(url)

    def test_it_listens_on_this_machine_only(self):
        with pytest.raises(ValueError, match="this machine only"):
            StripeSimulator(host="0.0.0.0")

    def test_key_and_mode_must_agree(self):
        with pytest.raises(ValueError, match="cannot see"):
            StripeSimulator(api_key="sk_test_x", livemode=True)


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


def wait_until(condition, timeout=5.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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
        simulator.slow(0.15, path="/v1/products")
        began = time.monotonic()
        client.v1.products.list()
        assert time.monotonic() - began >= 0.15
        simulator.clear_faults()
        began = time.monotonic()
        client.v1.products.list()
        assert time.monotonic() - began < 0.15

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
        faults = {"fail_requests": {"status": 503, "times": 1}, "no_date": True, "cut_at": 1}
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


def ask_in_vain(client):
    with contextlib.suppress(stripe.APIConnectionError):
        client.v1.products.list()


class TestLifetime:
    def test_stopping_leaves_no_thread_behind(self, receiver):
        before = set(threading.enumerate())
        simulator = StripeSimulator(retry_delays=(60,)).start()
        url = simulator.url
        simulator.add_webhook_endpoint(receiver.url)
        receiver.answers = [500]
        client_for(simulator).v1.customers.create({})
        wait_until(lambda: simulator.deliveries)
        receiver.gate.clear()
        simulator.create_customer()
        wait_until(lambda: len(receiver.received) == 2)
        simulator.slow(60)
        asking = threading.Thread(target=ask_in_vain, args=(client_for(simulator),))
        asking.start()
        wait_until(lambda: len(set(threading.enumerate()) - before) >= 5)
        began = time.monotonic()
        simulator.stop()
        assert time.monotonic() - began < 2
        receiver.gate.set()
        asking.join(5)
        wait_until(lambda: not [t for t in set(threading.enumerate()) - before if "stripe" in t.name])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1)

    def test_a_stopped_simulator_can_start_again_with_what_it_knew(self, receiver):
        simulator = StripeSimulator()
        simulator.add_webhook_endpoint(receiver.url)
        acme = simulator.create_customer()["id"]
        with simulator:
            simulator.wait_for_deliveries()
            assert client_for(simulator).v1.customers.retrieve(acme).id == acme
        with pytest.raises(RuntimeError):
            simulator.url  # noqa: B018
        with simulator:
            assert client_for(simulator).v1.customers.retrieve(acme).id == acme

    def test_many_threads_lose_nothing(self, simulator):
        def work():
            for _ in range(20):
                client_for(simulator).v1.customers.create({})

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(simulator.events("customer.created")) == 100

    def test_a_call_does_not_wait_for_the_network_stack(self, simulator, client):
        client.v1.customers.list()
        began = time.monotonic()
        for _ in range(50):
            client.v1.customers.list()
        assert time.monotonic() - began < 50 * 0.03

    def test_importing_the_plugin_and_the_names_imports_nothing_of_django(self):
        code = (
            "import sys, entitlements_app.testing.pytest_plugin\n"
            "from entitlements_app.testing import StripeSimulator\n"
            "assert not [name for name in sys.modules if name.partition('.')[0] in ('django', 'stripe')]"
        )
        environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class TestFixture:
    @pytest.fixture
    def client(self):
        return Client(enforce_csrf_checks=True)

    @pytest.fixture
    def restored(self):
        """Wraps `stripe_simulator`, if it is asked for before it."""
        before = {name: getattr(settings, name, None) for name in SETTINGS}
        yield
        assert {name: getattr(settings, name, None) for name in SETTINGS} == before

    def test_it_is_a_running_simulator_that_the_app_is_pointed_at(self, restored, stripe_simulator):
        assert client_for(stripe_simulator).v1.customers.list().data == []
        pointed_at = [getattr(settings, name) for name in SETTINGS]
        assert pointed_at == [stripe_simulator.api_key, stripe_simulator.url, [stripe_simulator.webhook_secret], False]

    @pytest.mark.django_db
    def test_what_is_subscribed_to_and_delivered_opens_the_gate(self, stripe_simulator, client):
        ada, customer = make_subscriber(), stripe_simulator.create_customer()
        link(ada, customer["id"])

        subscription = stripe_simulator.subscribe(customer, plan(stripe_simulator, "premium_support"))
        responses = stripe_simulator.deliver(client)

        in_order = [event["id"] for event in stripe_simulator.events()][::-1]
        assert [response.content.decode() for response in responses] == in_order
        assert {response.status_code for response in responses} == {200}
        assert has_entitlement(ada, "premium_support")

        assert stripe_simulator.deliver(client) == []
        stripe_simulator.cancel(subscription)
        stripe_simulator.deliver(client)
        assert not has_entitlement(ada, "premium_support")

    def test_another_path_can_be_named(self, stripe_simulator, client):
        stripe_simulator.create_customer()
        (response,) = stripe_simulator.deliver(client, path="/nowhere/")
        assert response.status_code == 404

    def test_without_django_it_is_just_a_simulator(self, tmp_path):
        (tmp_path / "test_bare.py").write_text(
            "from django.conf import settings\n"
            "def test_bare(stripe_simulator):\n"
            "    assert stripe_simulator.create_customer()['id'] and not settings.configured\n"
        )
        environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bare.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert "1 passed" in done.stdout, done.stdout + done.stderr


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path):
        """Start the command in a project of its own, that has nothing but the app."""
        (tmp_path / "bare_settings.py").write_text(
            "SECRET_KEY = 'x'\nUSE_TZ = True\n"
            "INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'entitlements_app']\n"
        )
        processes = []

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "entitlements_simulator", *arguments],
                cwd=tmp_path,
                env={**os.environ, "DJANGO_SETTINGS_MODULE": "bare_settings", "PYTHONPATH": str(tmp_path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            return process

        yield start
        for process in processes:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("stop_with", [signal.SIGINT, signal.SIGTERM])
    def test_it_serves_a_seeded_catalogue_until_interrupted(self, run, receiver, tmp_path, stop_with):
        seed = {
            "features": [{"lookup_key": "sso"}, {"lookup_key": "reports", "name": "Reports"}],
            "products": [{"name": "Pro", "features": ["sso", "reports"], "prices": [{"unit_amount": 2000}]}],
            "customers": [{"email": "ada@example.com", "subscribe_to": "Pro"}, {"name": "Bob"}],
        }
        (tmp_path / "catalogue.json").write_text(json.dumps(seed))
        process = run("--port", "0", "--webhook-url", receiver.url, "--seed-file", "catalogue.json")
        head = list(iter(process.stdout.readline, "Stop with Ctrl-C.\n"))
        settings = dict(line.strip().split(" = ") for line in head if " = " in line)
        url = json.loads(settings["ENTITLEMENTS_STRIPE_API_BASE"])
        key = json.loads(settings["ENTITLEMENTS_STRIPE_API_KEY"])
        (secret,) = json.loads(settings["ENTITLEMENTS_WEBHOOK_SECRETS"])
        client = stripe.StripeClient(key, base_addresses={"api": url})
        (ada,) = client.v1.customers.list({"email": "ada@example.com"}).data
        grants = client.v1.entitlements.active_entitlements.list({"customer": ada.id}).data
        assert sorted(grant.lookup_key for grant in grants) == ["reports", "sso"]
        client.v1.customers.create({})
        wait_until(lambda: receiver.received)
        body, signature, _ = receiver.received[0]
        assert stripe.Webhook.construct_event(body, signature, secret).type == "customer.created"
        while "customer.created" not in (line := process.stdout.readline()):
            assert line
        assert line.rstrip().endswith("attempt 1: 200")
        process.send_signal(stop_with)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("Stopped.\n")

    def test_without_a_webhook_url_it_says_that_none_are_sent_and_how_to_reach_it(self, run):
        process = run("--port", "0")
        head = "".join(iter(process.stdout.readline, "Stop with Ctrl-C.\n"))
        assert "Add --webhook-url http://127.0.0.1:8000/stripe/webhook/ to send them." in head
        assert "It forgets everything when it stops." in head
        (line,) = [line for line in head.splitlines() if line.startswith("stripe.StripeClient")]
        assert eval(line).v1.customers.list().data == []

    def test_what_it_cannot_do_is_said_in_one_line(self, simulator, tmp_path):
        port = simulator.url.rpartition(":")[2]
        for name, content in {"bad": '{"products": [{"name": "Pro", "features": ["missing"]}]}', "no": "{"}.items():
            (tmp_path / f"{name}.json").write_text(content)
        (tmp_path / "list.json").write_text('{"products": [{"name": "Pro", "features": 5}]}')
        for arguments, message in [
            (["--port", port], f"Cannot listen on port {port}: Address already in use. Choose another with --port."),
            (["--port", "65536"], "--port must be a number from 0 to 65535, not '65536'."),
            (["--port", "http"], "--port must be a number from 0 to 65535, not 'http'."),
            (["--webhook-secret", ""], "--webhook-secret must be one word, and not empty"),
            (["--api-key", ""], "--api-key must be one word that starts with sk_test_"),
            (["--api-key", "pk_test_1"], "--api-key must be one word that starts with sk_test_"),
            (["--api-key", "sk_test_a b"], "--api-key must be one word that starts with sk_test_"),
            (["--seed-file", ""], "--seed-file must name a file."),
            (["--seed-file", "none.json"], "Cannot read the seed file none.json: No such file or directory."),
            (["--seed-file", str(tmp_path / "bad.json")], "no feature 'missing'; there is none."),
            (["--seed-file", str(tmp_path / "list.json")], "features must be a list of lookup keys, not 5."),
            (["--seed-file", str(tmp_path / "no.json")], "Expecting property name"),
            (["--webhook-url", "https://example.com/"], "it does not start with http:// and a host."),
        ]:
            with pytest.raises(CommandError, match=re.escape(message)) as refused:
                call_command("entitlements_simulator", *arguments)
            assert "\n" not in str(refused.value)
            assert ".." not in str(refused.value)
            assert "Errno" not in str(refused.value)
