"""Shapes of objects, parameters and refusals."""

from __future__ import annotations

import base64
import json

import pytest

from entitlements_app.testing import ApiError, StripeSimulator
from entitlements_app.testing.simulator import api, extract_parameters, parameters
from tests.simulator.tools import (
    ENTITLEMENTS,
    SUMMARY,
    client_for,
    error_body,
    keys_of,
    payload,
    plan,
    post_json,
    same_shape,
)


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
