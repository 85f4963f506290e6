"""What lags, is out of order or changes meanwhile; and what nobody could verify of Stripe, in both ways."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import stripe as sdk

from entitlements_app.testing import StripeSimulator
from entitlements_app.testing.simulator import control
from entitlements_app.testing.simulator.switch_board import SWITCHES, SwitchBoard

DOCS = Path(__file__).parent.parent.parent / "docs" / "simulator.md"
SUMMARY = "entitlements.active_entitlement_summary.updated"


def sell(simulator: StripeSimulator, *keys: str) -> str:
    """A customer who is subscribed to these features."""
    features = [simulator.create_feature(key) for key in keys]
    price = simulator.create_price(simulator.create_product("Pro", features=features))
    customer = simulator.create_customer()
    simulator.subscribe(customer, price)
    return str(customer["id"])


def listed(client: sdk.StripeClient, customer: str, **params: Any) -> list[str]:
    rows = client.v1.entitlements.active_entitlements.list({"customer": customer, **params})
    return [row.lookup_key for row in rows.auto_paging_iter()]


def summaries(simulator: StripeSimulator) -> list[dict[str, Any]]:
    return [event["data"] | {"created": event["created"]} for event in simulator.events(type=SUMMARY)][::-1]


# --- faults


def test_lists_can_lag_behind_the_events(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    simulator.clock.freeze()
    simulator.lag_lists(60)
    customer = sell(simulator, "sso")
    assert summaries(simulator)[0]["object"]["entitlements"]["data"][0]["lookup_key"] == "sso"
    assert listed(client, customer) == []
    simulator.advance(59)
    assert listed(client, customer) == []
    simulator.advance(1)
    assert listed(client, customer) == ["sso"]
    simulator.delete_customer(customer)
    simulator.lag_lists(0)
    assert listed(client, customer) == []


def test_the_events_api_can_lag(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    simulator.clock.freeze()
    simulator.lag_events(30)
    simulator.create_customer()
    assert client.v1.events.list({}).data == []
    simulator.advance(30)
    assert [event.type for event in client.v1.events.list({}).data] == ["customer.created"]


@pytest.mark.parametrize("shift", [3600, -3600])
def test_created_can_be_of_another_time_while_the_signature_is_not(shift: int, simulator: StripeSimulator) -> None:
    simulator.clock.freeze()
    simulator.shift_created(shift)
    sell(simulator, "sso")
    [summary] = summaries(simulator)
    assert summary["created"] == simulator.clock.seconds + shift
    event = simulator.events(type=SUMMARY)[0]
    signature = simulator.signed_delivery(event["id"]).headers["Stripe-Signature"]
    assert signature.startswith(f"t={simulator.clock.seconds},")
    assert simulator.events(type="customer.created")[0]["created"] == simulator.clock.seconds


def test_two_summaries_can_be_out_of_order(simulator: StripeSimulator) -> None:
    simulator.clock.freeze()
    simulator.shift_created(10)
    customer = sell(simulator, "a")
    other = simulator.create_price(simulator.create_product("More", features=[simulator.create_feature("b")]))
    simulator.subscribe(customer, other)
    first, second = summaries(simulator)
    assert len(first["object"]["entitlements"]["data"]) == 1
    assert first["created"] > second["created"]


def test_a_list_can_change_between_its_pages(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    customer = sell(simulator, *"abcd")
    subscription = simulator.call("GET", "/v1/subscriptions", {"customer": customer})["data"][0]
    simulator.between_pages(lambda: simulator.cancel(subscription))
    with pytest.raises(sdk.InvalidRequestError) as caught:  # the cursor's row has vanished
        listed(client, customer, limit=2)
    assert caught.value.code == "resource_missing"
    assert listed(client, customer, limit=2) == []


def test_webhooks_can_be_held_and_released(simulator: StripeSimulator) -> None:
    simulator.add_webhook_endpoint("http://127.0.0.1:9/", enabled_events=["customer.created"])
    simulator.hold_webhooks()
    for _ in range(3):
        simulator.create_customer()
    with pytest.raises(TimeoutError):
        simulator.wait_for_deliveries(timeout=0.05)
    assert simulator.deliveries == []
    simulator.hold_webhooks(False)
    simulator.wait_for_deliveries(timeout=30)
    first_attempts = [record.event_id for record in simulator.deliveries if record.attempt == 1]
    assert first_attempts == [event["id"] for event in simulator.events(type="customer.created")[::-1]]


def test_no_fault_is_left_when_they_are_cleared(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    simulator.clock.freeze()
    simulator.lag_lists(60)
    simulator.lag_events(60)
    simulator.shift_created(60, 9)
    simulator.between_pages(lambda: pytest.fail("cleared"))
    simulator.fail_requests(500, times=9)
    simulator.hold_webhooks()
    simulator.clear_faults()
    customer = sell(simulator, *"abcd")
    assert sorted(listed(client, customer, limit=2)) == [*"abcd"]
    assert summaries(simulator)[0]["created"] == simulator.clock.seconds


# --- switches


def test_previous_attributes_are_whole_or_cut(simulator: StripeSimulator) -> None:
    customer = sell(simulator, *(f"feature-{n:02}" for n in range(12)))
    simulator.previous_is_cut = True
    simulator.delete_customer(customer)
    assert len(summaries(simulator)[-1]["previous_attributes"]["entitlements"]["data"]) == 10
    simulator.previous_is_cut = False
    other = simulator.create_customer()
    price = simulator.call("GET", "/v1/prices")["data"][0]
    simulator.subscribe(other, price)
    simulator.delete_customer(other)
    assert len(summaries(simulator)[-1]["previous_attributes"]["entitlements"]["data"]) == 12


def test_lists_are_newest_or_oldest_first(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    customer = sell(simulator, *"abc")
    newest = listed(client, customer, limit=2)
    simulator.list_order = "oldest"
    assert listed(client, customer, limit=2) == newest[::-1]


@pytest.mark.parametrize(("per_product", "keys"), [(False, ["sso"]), (True, ["sso", "sso"])])
def test_a_feature_of_two_products_is_granted_once_or_twice(
    per_product: bool, keys: list[str], simulator: StripeSimulator, client: sdk.StripeClient
) -> None:
    simulator.entitlement_per_product = per_product
    customer = sell(simulator, "sso")
    feature = client.v1.entitlements.features.list({}).data[0].id
    other = simulator.create_price(simulator.create_product("Other", features=[feature]))
    subscription = simulator.subscribe(customer, other)
    rows = simulator.active_entitlements(customer)
    assert [row["lookup_key"] for row in rows] == keys
    assert len({row["id"] for row in rows}) == len(keys)
    assert len(summaries(simulator)) == len(keys)
    simulator.cancel(subscription)
    assert listed(client, customer) == ["sso"]


def test_a_plain_list_of_features_has_archived_ones_or_not(
    simulator: StripeSimulator, client: sdk.StripeClient
) -> None:
    simulator.archive_feature(simulator.create_feature("old"))
    simulator.create_feature("new")

    def keys(**params: Any) -> list[str]:
        return [feature.lookup_key for feature in client.v1.entitlements.features.list(params).data]  # type: ignore[arg-type]

    assert (keys(), keys(archived=False), keys(archived=True)) == (["new"], ["new"], ["old"])
    simulator.archived_in_list = True
    assert (keys(), keys(archived=False), keys(archived=True)) == (["new", "old"], ["new"], ["old"])


def test_the_url_that_summaries_name_answers_or_not(simulator: StripeSimulator, client: sdk.StripeClient) -> None:
    customer = sell(simulator, "sso")
    url = summaries(simulator)[0]["object"]["entitlements"]["url"]
    with pytest.raises(sdk.InvalidRequestError, match="Unrecognized request URL"):
        client.raw_request("get", url)
    simulator.nested_url_answers = True
    assert client.raw_request("get", url).data["data"][0]["lookup_key"] == "sso"
    assert customer in url


def test_product_updated_is_sent_on_attach_or_not(simulator: StripeSimulator) -> None:
    product = simulator.create_product("Pro")
    for sent in (False, True):
        simulator.product_updated_on_attach = sent
        before = len(simulator.events(type="product.updated"))
        simulator.attach_feature(product, simulator.create_feature(f"feature-{sent}"))
        assert len(simulator.events(type="product.updated")) - before == sent


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_takes_no_other_answer(name: str, simulator: StripeSimulator) -> None:
    before = getattr(simulator, name)
    for wrong in ("perhaps", None, ["perhaps"], 1, "True"):
        with pytest.raises(ValueError, match=name):
            setattr(simulator, name, wrong)
    assert getattr(simulator, name) == before


# --- over HTTP


def post(simulator: StripeSimulator, path: str, content: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{simulator.url}/_simulator/{path}", json.dumps(content).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_switches_and_faults_are_set_over_http(simulator: StripeSimulator) -> None:
    status, answers = post(simulator, "switches", {"granting": ["active"], "nested_url_answers": True})
    assert (status, answers["granting"], answers["nested_url_answers"]) == (200, ["active"], True)
    assert simulator.granting == {"active"}
    status, _ = post(simulator, "switches", {"list_order": "oldest", "granting": ["perhaps"]})
    assert (status, simulator.list_order) == (400, "newest"), "all or nothing"
    faults = {
        "lag_lists": 60,
        "lag_events": 1.5,
        "shift_created": {"seconds": -60, "times": 2},
        "hold_webhooks": True,
        "fail_requests": {"status": 429, "reason": "lock_timeout", "should_retry": True},
    }
    assert post(simulator, "faults", faults)[0] == 200
    for wrong in ({"lag_lists": "long"}, {"fail_requests": {"reason": 5}}, {"between_pages": 1}):
        assert post(simulator, "faults", wrong)[0] == 400


@pytest.mark.parametrize("name", sorted({*SWITCHES, *control.FAULTS, "between_pages", "hold"}))
def test_each_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS.read_text()


def test_the_question_of_each_switch_is_asked() -> None:
    for name, switch in SWITCHES.items():
        assert vars(SwitchBoard)[name] is switch
        assert (switch.__doc__ or "").endswith(("?", "incomplete."))
