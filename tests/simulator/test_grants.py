"""What subscriptions grant, and the events that tell."""

from __future__ import annotations

import pytest
import stripe

from entitlements_app.testing import StripeSimulator
from tests.simulator.tools import SUMMARY, keys_of, payload, plan, same_shape


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
