"""Users' tests deliver signed events without a simulated Stripe."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

from entitlements_app.access import get_entitlements
from entitlements_app.models import Customer, WebhookEvent
from entitlements_app.testing import CustomerFactory, StripeSimulator, WebhookClient
from tests.rows import effective

pytestmark = pytest.mark.django_db


@pytest.fixture
def stripe() -> WebhookClient:
    return WebhookClient()


def test_a_summary_grants_and_takes_away(acme: Any, stripe: WebhookClient) -> None:
    assert stripe.deliver(stripe.summary("cus_acme", "sso", "audit")).status_code == 200
    assert list(get_entitlements(acme)) == ["audit", "sso"]
    stripe.deliver(stripe.summary("cus_acme", "audit"))
    stripe.deliver(stripe.summary("cus_acme"))
    assert list(get_entitlements(acme)) == []
    assert effective() == ["+audit", "+sso", "-sso", "-audit"], "each counts, however fast they come"
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {"processed"}
    for number in range(6):
        stripe.deliver(stripe.summary("cus_acme", f"key_{number}"))
        assert list(get_entitlements(acme)) == [f"key_{number}"]


def test_they_count_in_the_order_in_which_they_were_made(acme: Any, stripe: WebhookClient) -> None:
    older, newer = stripe.summary("cus_acme", "sso"), stripe.summary("cus_acme", "audit")
    stripe.deliver(newer)
    stripe.deliver(older)
    assert list(get_entitlements(acme)) == ["audit"]


def test_a_row_may_name_the_customer(stripe: WebhookClient) -> None:
    customer = CustomerFactory(keys=["sso"])
    stripe.deliver(stripe.summary(customer, "audit"))
    assert [row.lookup_key for row in customer.active_entitlements.all()] == ["audit"]


def test_more_than_it_lists_only_marks_the_customer(acme: Any, stripe: WebhookClient) -> None:
    stripe.deliver(stripe.summary("cus_acme", "sso", has_more=True))
    assert list(get_entitlements(acme)) == []
    assert Customer.objects.get().urgent


def test_stripe_is_not_asked(acme: Any, stripe: WebhookClient, stripe_simulator: StripeSimulator) -> None:
    """Which would say that it knows no such customer."""
    stripe.deliver(stripe.summary("cus_acme", "sso"))
    stripe.deliver(stripe.summary("cus_acme", "sso", "audit", has_more=True))
    assert not stripe_simulator.requests
    assert list(get_entitlements(acme)) == ["sso"]
    with override_settings(ENTITLEMENTS_STRIPE_API_KEY="sk_live_x", ENTITLEMENTS_LIVEMODE=None):
        event = stripe.summary("cus_acme")
        assert event["livemode"]
        stripe.deliver(event)
    assert WebhookEvent.objects.get(stripe_id=event["id"]).status == "processed"


def test_one_of_long_ago_is_late(acme: Any, stripe: WebhookClient) -> None:
    hour_ago = int(time.time()) - 3600
    stripe.deliver(stripe.summary("cus_acme", "sso", created=hour_ago))
    assert WebhookEvent.objects.get().created == hour_ago
    assert list(get_entitlements(acme)) == ["sso"]
    stripe.deliver(stripe.summary("cus_acme", "audit", created=hour_ago - 1))
    assert list(get_entitlements(acme)) == ["sso"]


def test_deletion_and_subscriptions(acme: Any, stripe: WebhookClient) -> None:
    stripe.deliver(stripe.summary("cus_acme", "sso"))
    Customer.objects.update(hinted_at=None)
    assert stripe.deliver(stripe.subscription_updated("cus_acme")).status_code == 200
    assert Customer.objects.get().hinted_at
    assert stripe.deliver(stripe.customer_deleted("cus_acme")).status_code == 200
    assert Customer.objects.get().deleted_at
    assert list(get_entitlements(acme)) == []


def test_what_is_no_customer_or_no_key_is_an_error(acme: Any, stripe: WebhookClient) -> None:
    for build in (stripe.summary, stripe.customer_deleted, stripe.subscription_updated):
        for no_customer in (acme, {"id": "cus_acme"}, None):
            with pytest.raises(TypeError, match="A customer is a Stripe id"):
                build(no_customer)
    for no_key in (["sso"], "", None):
        with pytest.raises(TypeError, match="lookup key"):
            stripe.summary("cus_acme", no_key)  # type: ignore[arg-type]


def test_an_event_of_one_s_own_and_raw_bytes(stripe: WebhookClient) -> None:
    event = stripe.summary("cus_acme", "sso") | {"id": "evt_of_mine"}
    assert stripe.deliver(event).content == b"evt_of_mine"
    assert stripe.deliver(json.dumps(event, indent=8).encode()).content == b"evt_of_mine"
    assert WebhookEvent.objects.count() == 1
    assert stripe.deliver(b"{}").status_code == 400


def test_events_are_of_the_configured_mode(stripe: WebhookClient, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    for event in (stripe.summary("cus_a", "sso"), stripe.customer_deleted("cus_b"), stripe.subscription_updated("c")):
        stripe.deliver(event)
    rows = WebhookEvent.objects.values_list("livemode", "status")
    assert set(rows) == {(True, "processed")}
    with override_settings(ENTITLEMENTS_LIVEMODE=False):
        test_mode = stripe.summary("cus_a")
    assert stripe.deliver(test_mode).status_code == 200
    assert WebhookEvent.objects.get(stripe_id=test_mode["id"]).status == "ignored"


def test_a_wrong_secret_and_an_old_signature_are_refused(stripe: WebhookClient) -> None:
    event = stripe.summary("cus_acme")
    assert stripe.deliver(event, secret="whsec_another").status_code == 400
    assert stripe.deliver(event, t=int(time.time()) - 3600).status_code == 400
    assert not WebhookEvent.objects.exists()


class Recording(Client):
    """Keeps what was sent."""

    def post(self, *arguments: Any, **options: Any) -> Any:
        self.body, self.header = options["data"], options["headers"]["Stripe-Signature"]
        return super().post(*arguments, **options)


@pytest.mark.parametrize("secrets", [["whsec_first", "whsec_old"], [" whsec_first "]])
def test_it_signs_with_the_first_of_the_site_s_secrets(secrets: list[str]) -> None:
    client = Recording()
    stripe = WebhookClient(client)
    t = int(time.time()) - 10
    with override_settings(ENTITLEMENTS_WEBHOOK_SECRETS=secrets):
        assert stripe.deliver(stripe.summary("cus_acme"), t=t).status_code == 200
    digest = hmac.new(b"whsec_first", f"{t}.".encode() + client.body, hashlib.sha256).hexdigest()
    assert client.header == f"t={t},v1={digest}"


def test_another_secret_may_be_given(stripe: WebhookClient) -> None:
    with override_settings(ENTITLEMENTS_WEBHOOK_SECRETS=["whsec_new", "whsec_old"]):
        assert stripe.deliver(stripe.summary("cus_acme"), secret="whsec_old").status_code == 200


def test_without_a_secret_it_says_what_to_set(stripe: WebhookClient) -> None:
    with (
        override_settings(ENTITLEMENTS_WEBHOOK_SECRETS=[]),
        pytest.raises(ImproperlyConfigured, match=r"override_settings\(ENTITLEMENTS_WEBHOOK_SECRETS="),
    ):
        stripe.deliver(stripe.summary("cus_acme"))


def test_another_client_may_be_given() -> None:
    client = Client(headers={"Host": "other.example"})
    assert WebhookClient(client).deliver(WebhookClient().summary("cus_acme")).status_code == 200
