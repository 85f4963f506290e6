"""Idempotency keys, over HTTP with the real stripe-python."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
import stripe as sdk

from entitlements_app.testing import StripeSimulator

SSO = {"lookup_key": "sso", "name": "Single sign-on"}


def create(client: sdk.StripeClient, key: str, **params: Any) -> Any:
    return client.v1.entitlements.features.create({**SSO, **params}, {"idempotency_key": key})


def test_the_first_result_is_given_again(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    first, second = create(client, "k"), create(client, "k")
    assert first.id == second.id
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert len(client.v1.entitlements.features.list({}).data) == 1


def test_what_is_given_again_may_be_stale(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    feature = create(client, "k")
    simulator.archive_feature(feature.id)
    assert create(client, "k").active is True


def test_it_is_kept_for_a_day(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    simulator.clock.freeze()
    first = create(client, "k")
    simulator.advance(timedelta(hours=24) - timedelta(seconds=1))
    assert create(client, "k").id == first.id
    simulator.advance(1)
    with pytest.raises(sdk.InvalidRequestError, match="lookup_key"):
        create(client, "k")


def test_other_parameters_or_another_url_are_refused(client: sdk.StripeClient) -> None:
    create(client, "k")
    with pytest.raises(sdk.IdempotencyError) as caught:
        create(client, "k", name="Other")
    assert caught.value.http_status == 400
    with pytest.raises(sdk.IdempotencyError):
        client.v1.customers.create({}, {"idempotency_key": "k"})


def test_a_refusal_once_begun_is_kept_and_a_wrong_parameter_is_not(
    client: sdk.StripeClient, simulator: StripeSimulator
) -> None:
    feature = create(client, "k")
    with pytest.raises(sdk.InvalidRequestError):
        create(client, "in use")
    simulator.archive_feature(feature.id)
    with pytest.raises(sdk.InvalidRequestError):  # the key is free now, and the answer is the one of before
        create(client, "in use")
    with pytest.raises(sdk.InvalidRequestError):
        create(client, "too long", name="x" * 81)
    assert create(client, "too long").id


@pytest.mark.parametrize(
    ("status", "again"), [(500, 500), (429, 200), (401, 200), (409, 200), (503, 200), (424, 200), (403, 200)]
)
def test_which_failures_are_kept(status: int, again: int, client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    def ask() -> int:
        try:
            create(client, "k")
        except sdk.StripeError as error:
            return error.http_status or 0
        return 200

    simulator.fail_requests(status)
    assert (ask(), ask()) == (status, again)


def test_what_is_kept_is_for_nobody_who_may_not_ask(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    create(client, "k")
    simulator.add_restricted_key("rk_test_reader", "entitlement_read")
    for key, refusal in (("sk_test_unknown", sdk.AuthenticationError), ("rk_test_reader", sdk.PermissionError)):
        other = sdk.StripeClient(key, base_addresses={"api": simulator.url})
        with pytest.raises(refusal):
            create(other, "k")


def test_a_key_in_use_is_a_conflict(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    answers: list[Any] = []
    with simulator.hold("POST", "/v1/entitlements/features") as held:
        first = threading.Thread(target=lambda: answers.append(create(client, "k").id))
        first.start()
        held.wait_for_request(timeout=30)
        other = sdk.StripeClient(simulator.api_key, base_addresses={"api": simulator.url})
        with pytest.raises(sdk.APIError) as caught:
            create(other, "k")
        assert (caught.value.http_status, caught.value.error.code) == (409, "idempotency_key_in_use")
    first.join(30)
    assert [create(client, "k").id] == answers


def test_keys_have_at_most_255_characters(client: sdk.StripeClient) -> None:
    assert create(client, "k" * 255).id
    with pytest.raises(sdk.InvalidRequestError):
        create(client, "k" * 256)


def test_get_and_delete_take_no_key(client: sdk.StripeClient) -> None:
    customer = client.v1.customers.create({})
    options: Any = {"idempotency_key": "k", "headers": {"Idempotency-Key": "k"}}
    for _ in range(2):
        client.v1.customers.retrieve(customer.id, {}, options)
    client.v1.customers.delete(customer.id, {}, options)
    with pytest.raises(sdk.InvalidRequestError):
        client.v1.customers.delete(customer.id, {}, options)


def test_an_event_says_whose_call_caused_it(client: sdk.StripeClient, simulator: StripeSimulator) -> None:
    client.v1.customers.create({}, {"idempotency_key": "mine"})
    assert simulator.events()[0]["request"]["idempotency_key"] == "mine"
