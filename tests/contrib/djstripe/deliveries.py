"""Stripe's deliveries to dj-stripe's endpoint, and what dj-stripe knows before they come."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import stripe as stripe_sdk
from django.http import HttpResponse
from django.test import Client
from djstripe.models import Account, APIKey, WebhookEndpoint
from djstripe.models import Customer as DjstripeCustomer

from tests.delivery import post, signature

SECRET = "whsec_of_dj_stripe_s_endpoint_000000001"
NOWHERE = "http://127.0.0.1:1"
KEY, OTHER_KEY = "sk_test_" + "a" * 24, "sk_test_" + "b" * 24


def account(name: str = "acct_ours", key: str = KEY) -> Account:
    """A Stripe account whose key dj-stripe has seen, so that it need not ask whose the key is."""
    row, _ = Account.objects.get_or_create(id=name, defaults={"livemode": False})
    APIKey.objects.get_or_create(secret=key, type="secret", livemode=False, defaults={"djstripe_owner_account": row})
    return row


def make_endpoint(owner: Account | None = None, **fields: Any) -> WebhookEndpoint:
    """An endpoint as dj-stripe's admin leaves it."""
    uuid = uuid4()
    defaults = {
        "livemode": False,
        "secret": SECRET,
        "djstripe_uuid": uuid,
        "url": f"https://site.example/djstripe/webhook/{uuid}/",
        "enabled_events": ["*"],
        "status": "enabled",
        "djstripe_owner_account": owner,
    }
    id_ = f"we_{WebhookEndpoint.objects.count()}"
    return WebhookEndpoint.objects.create(id=id_, **(defaults | fields))


def make_endpoint_at_stripe(api_key: str) -> WebhookEndpoint:
    """Made as dj-stripe's form in the admin makes it, which itself refuses addresses of this machine."""
    uuid = str(uuid4())
    created = WebhookEndpoint._api_create(
        url=f"http://127.0.0.1:8000/djstripe/webhook/{uuid}/",
        api_version="2026-05-27.dahlia",
        enabled_events=["*"],
        metadata={"djstripe_uuid": uuid},
        connect=False,
    )
    return WebhookEndpoint.sync_from_stripe_data(created, api_key=api_key)


def known_to_djstripe(stripe_id: str = "cus_acme") -> DjstripeCustomer:
    """From now on dj-stripe asks Stripe about this customer at each event."""
    return DjstripeCustomer.objects.create(id=stripe_id, livemode=False, djstripe_owner_account=account())


def url_of(endpoint: WebhookEndpoint) -> str:
    return f"/djstripe/webhook/{endpoint.djstripe_uuid}/"


def to_djstripe(
    endpoint: WebhookEndpoint,
    event: dict[str, Any] | bytes,
    *,
    t: int | None = None,
    secret: str = SECRET,
    header: str | None = None,
    **headers: str,
) -> HttpResponse:
    """Post an event as Stripe does, signed now by the endpoint's secret. What is raised is a 500."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    client = Client(enforce_csrf_checks=True, raise_request_exception=False, headers=headers)
    header = signature(body, secret=secret, t=t) if header is None else header
    return post(body, header, url=url_of(endpoint), client=client)


def djstripe_asks(monkeypatch: Any, base: str = NOWHERE) -> None:
    """Whom dj-stripe calls: by default a port where nobody listens."""
    monkeypatch.setattr(stripe_sdk, "api_base", base)
    monkeypatch.setattr(stripe_sdk, "max_network_retries", 0)
