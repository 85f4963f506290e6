"""Every documented error, as the real stripe-python reports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stripe as sdk

from entitlements_app.testing import StripeSimulator

ERRORS = Path(__file__).parent.parent / "payloads" / "errors"


def refused(call: Callable[[], Any]) -> sdk.StripeError:
    with pytest.raises(sdk.StripeError) as caught:
        call()
    return caught.value


def assert_like(captured: str, error: sdk.StripeError) -> None:
    """Status, type, code, param and the headers that decide what to do. The text is Stripe's own affair."""
    fixture = json.loads((ERRORS / f"{captured}.json").read_text())
    theirs, body = fixture["body"]["error"], error.json_body["error"]
    assert error.http_status == fixture["status"]
    for name in ("type", "code", "param"):
        assert body.get(name) == theirs.get(name), name
    wanted = fixture["headers"].get("Stripe-Rate-Limited-Reason")
    assert error.headers.get("Stripe-Rate-Limited-Reason") == wanted
    assert error.headers["Request-Id"]


def with_key(simulator: StripeSimulator, key: str, **options: Any) -> sdk.StripeClient:
    return sdk.StripeClient(key, base_addresses={"api": simulator.url}, **options)


FAULTS: dict[str, dict[str, Any]] = {
    "409_idempotency_key_in_use": {"status": 409},
    "429_lock_timeout": {"status": 429, "reason": "lock_timeout", "should_retry": True},
    "429_rate_limit_endpoint": {"status": 429, "path": "/v1/customers"},
    "429_rate_limit_global": {"status": 429},
    "500_api_error": {"status": 500},
    "503_api_error": {"status": 503},
}


@pytest.mark.parametrize("captured", FAULTS)
def test_trouble_looks_as_it_was_captured(captured: str, client: Any, simulator: StripeSimulator) -> None:
    simulator.fail_requests(**FAULTS[captured])
    assert_like(captured, refused(lambda: client.v1.customers.list({})))
    client.v1.customers.list({})


@pytest.mark.parametrize("status", [400, 401, 403, 409, 424, 429, 500, 502, 503, 504])
def test_each_status_has_an_answer(status: int, client: Any, simulator: StripeSimulator) -> None:
    simulator.fail_requests(status)
    assert refused(lambda: client.v1.customers.list({})).http_status == status


@pytest.mark.parametrize(("said", "calls"), [(True, 2), (False, 1), (None, 1)])
def test_stripe_says_whether_to_retry(said: bool | None, calls: int, simulator: StripeSimulator) -> None:
    client = with_key(simulator, simulator.api_key, max_network_retries=1)
    simulator.fail_requests(429, should_retry=said)
    if calls == 2:
        client.v1.customers.list({})
    else:
        refused(lambda: client.v1.customers.list({}))
    assert len(simulator.requests) == calls


@pytest.mark.parametrize("wrong", [{"status": 418}, {"status": 429, "reason": "boredom"}])
def test_a_fault_that_stripe_does_not_have_is_refused(wrong: Any, simulator: StripeSimulator) -> None:
    with pytest.raises(ValueError, match="known"):
        simulator.fail_requests(**wrong)


def test_a_restricted_key_may_do_what_it_may(simulator: StripeSimulator) -> None:
    simulator.add_restricted_key("rk_test_reader", "entitlement_read", "customer_read")
    reader = with_key(simulator, "rk_test_reader")
    customer = simulator.create_customer()["id"]
    reader.v1.customers.retrieve(customer)
    reader.v1.entitlements.active_entitlements.list({"customer": customer})
    reader.v1.entitlements.features.list({})
    error = refused(lambda: reader.v1.customers.create({}))
    assert_like("403_restricted_key_permission", error)
    assert isinstance(error, sdk.PermissionError)
    assert "'customer_write'" in str(error)
    for call, permission in [
        (lambda: reader.v1.entitlements.features.create({"lookup_key": "a", "name": "A"}), "entitlement_write"),
        (lambda: reader.v1.events.list({}), "event_read"),
        (lambda: reader.v1.products.list({}), "product_read"),
        (lambda: reader.v1.subscriptions.list({}), "subscription_read"),
    ]:
        assert f"'{permission}'" in str(refused(call))


def test_writing_includes_reading(simulator: StripeSimulator) -> None:
    simulator.add_restricted_key("rk_test_writer", "entitlement_write")
    writer = with_key(simulator, "rk_test_writer")
    writer.v1.entitlements.features.create({"lookup_key": "a", "name": "A"})
    assert len(writer.v1.entitlements.features.list({}).data) == 1


def test_no_message_has_the_whole_key(simulator: StripeSimulator) -> None:
    simulator.add_restricted_key("rk_test_not_to_be_repeated")
    for key in ("rk_test_not_to_be_repeated", "sk_test_unknown_and_not_to_be_repeated"):
        client = with_key(simulator, key)
        assert key not in str(refused(client.v1.customers.list))
        acting = with_key(simulator, key, stripe_account="acct_1Other")
        assert key not in str(refused(acting.v1.customers.list))


def test_another_account_is_out_of_reach(simulator: StripeSimulator) -> None:
    error = refused(with_key(simulator, simulator.api_key, stripe_account="acct_1Other").v1.customers.list)
    assert_like("403_no_access_to_connected_account", error)
    with_key(simulator, simulator.api_key, stripe_account=simulator.account_id).v1.customers.list()


def test_an_id_of_the_other_mode_is_told_apart(client: Any, simulator: StripeSimulator) -> None:
    simulator.exists_in_other_mode("cus_live")
    error = refused(lambda: client.v1.customers.retrieve("cus_live"))
    assert_like("404_mode_mismatch_customer", error)
    assert "a similar object exists in live mode" in str(error)
    listing = refused(lambda: client.v1.entitlements.active_entitlements.list({"customer": "cus_live"}))
    assert "similar object" in str(listing)
    assert "similar object" not in str(refused(lambda: client.v1.customers.retrieve("cus_nowhere")))


def test_parameters_that_do_not_exist(client: Any, simulator: StripeSimulator) -> None:
    feature = simulator.create_feature("a")
    error = refused(lambda: client.v1.entitlements.features.update(feature["id"], {"lookup_key": "b"}))
    assert (error.http_status, error.code, error.param) == (400, "parameter_unknown", "lookup_key")
