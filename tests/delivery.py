"""Deliver events like Stripe: signed by hand, over the raw bytes, to the URL."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

from django.http import HttpResponse
from django.test import Client

PAYLOADS = Path(__file__).parent / "payloads"
SECRET = "whsec_fixture_not_a_real_secret_000001"
URL = "/stripe/webhook/"

SUMMARY = "entitlements.active_entitlement_summary.updated"


def payload(name: str) -> dict[str, Any]:
    """A captured or composed answer or event, by its file name."""
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def signature(body: bytes, *, secret: str = SECRET, t: int | None = None) -> str:
    t = int(time.time()) if t is None else t
    digest = hmac.new(secret.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={t},v1={digest}"


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


_numbers = iter(range(1, 10**9))


def grants(*keys: str) -> list[dict[str, Any]]:
    """Active entitlements as an event lists them; the feature's id follows from the key."""
    return [
        {
            "id": f"ent_test_{key}_{next(_numbers)}",
            "object": "entitlements.active_entitlement",
            "feature": f"feat_test_{key}",
            "livemode": False,
            "lookup_key": key,
        }
        for key in keys
    ]


def summary(
    customer: str, *keys: str, created: int | None = None, has_more: bool = False, **envelope: Any
) -> dict[str, Any]:
    """A summary event in the shape of the captured ones."""
    created = int(time.time()) if created is None else created
    return envelope_of(
        SUMMARY,
        {
            "object": "entitlements.active_entitlement_summary",
            "customer": customer,
            "entitlements": {
                "object": "list",
                "data": grants(*keys),
                "has_more": has_more,
                "url": f"/v1/customer/{customer}/entitlements",
            },
            "livemode": False,
        },
        created=created,
        **envelope,
    )


def envelope_of(kind: str, carried: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    return {
        "id": f"evt_{next(_numbers):024d}",
        "object": "event",
        "api_version": "2025-06-30.basil",
        "created": int(time.time()),
        "data": {"object": carried},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    } | envelope


def customer_deleted(customer: str, **envelope: Any) -> dict[str, Any]:
    return envelope_of("customer.deleted", {"id": customer, "object": "customer", "livemode": False}, **envelope)


def subscription_updated(customer: str, **envelope: Any) -> dict[str, Any]:
    carried = {"id": "sub_1", "object": "subscription", "customer": customer, "livemode": False}
    return envelope_of("customer.subscription.updated", carried, **envelope)
