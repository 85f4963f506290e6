"""Deliver events like Stripe: signed by hand, over the raw bytes, to the URL."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from django.http import HttpResponse
from django.test import Client

from entitlements_app import inbox, stripe_objects
from entitlements_app.testing import webhook_client
from entitlements_app.testing.simulator import webhooks

PAYLOADS = Path(__file__).parent / "payloads"
SECRET = "whsec_fixture_not_a_real_secret_000001"
URL = "/stripe/webhook/"

SUMMARY = "entitlements.active_entitlement_summary.updated"


def payload(name: str) -> dict[str, Any]:
    """A captured or composed answer or event, by its file name."""
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def signature(body: bytes, *, secret: str = SECRET, t: int | None = None) -> str:
    return webhooks.signature(body, secret=secret, t=int(time.time()) if t is None else t)


def deliver(
    event: dict[str, Any] | bytes, *, t: int | None = None, secret: str = SECRET, url: str = URL
) -> HttpResponse:
    """Post a correctly signed event, by default signed when it was created, so that it came without delay.

    The age of the signature is measured on the real clock, so `t` may not be long past.
    """
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return post(body, signature(body, secret=secret, t=t), url=url)


def post(body: bytes, header: str | None, *, url: str = URL, client: Client | None = None) -> HttpResponse:
    headers = {} if header is None else {"Stripe-Signature": header}
    client = client or Client(enforce_csrf_checks=True, raise_request_exception=True)
    return client.post(url, data=body, content_type="application/json", headers=headers)


def store_only(*events: dict[str, Any]) -> None:
    """As when the process died after each commit."""
    for event in events:
        inbox.store(stripe_objects.parse_event(json.dumps(event)), sent_at=event["created"])


def grants(*keys: str) -> list[dict[str, Any]]:
    """Active entitlements as an event lists them; the feature's id follows from the key."""
    return webhook_client.active_entitlements(*keys, livemode=False)


def summary(
    customer: str, *keys: str, created: int | None = None, has_more: bool = False, **envelope: Any
) -> dict[str, Any]:
    """A summary event in the shape of the captured ones."""
    created = int(time.time()) if created is None else created
    event = webhook_client.summary_updated(customer, *keys, has_more=has_more, created=created, livemode=False)
    return event | envelope


def envelope_of(kind: str, carried: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    return webhook_client.envelope(kind, carried, livemode=False) | envelope


def customer_deleted(customer: str, **envelope: Any) -> dict[str, Any]:
    return webhook_client.customer_deleted(customer, livemode=False) | envelope


def subscription_updated(customer: str, **envelope: Any) -> dict[str, Any]:
    return webhook_client.subscription_updated(customer, livemode=False) | envelope
