"""Lists, pages and cursors."""

from __future__ import annotations

import pytest
import stripe

from tests.simulator.tools import payload, plan, same_shape


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


def test_a_subscription_shows_its_first_items_and_another_list_has_all(simulator):
    acme = simulator.create_customer()["id"]
    prices = [plan(simulator, f"k{number}") for number in range(12)]
    items = [{"price": price["id"]} for price in prices]
    made = simulator.call("POST", "/v1/subscriptions", {"customer": acme, "items": items})
    [listed] = simulator.call("GET", "/v1/subscriptions", {"customer": acme})["data"]
    for shown in (made, listed, simulator.call("GET", f"/v1/subscriptions/{made['id']}")):
        assert (len(shown["items"]["data"]), shown["items"]["has_more"]) == (10, True)
    rest = simulator.call("GET", "/v1/subscription_items", {"subscription": made["id"], "limit": 100})
    assert {item["price"]["id"] for item in rest["data"]} == {price["id"] for price in prices}
