"""Events as Stripe sends them, signed, for tests without a simulated Stripe: `WebhookClient`."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import reverse

from entitlements_app import beside_djstripe, conf
from entitlements_app.lookup_keys import check_key
from entitlements_app.models import Customer
from entitlements_app.stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED

from .simulator.account import API_VERSION
from .simulator.webhooks import signature

Event = dict[str, Any]


class WebhookClient:
    """Posts events to the site's own endpoint, signed with the first of its `ENTITLEMENTS_WEBHOOK_SECRETS`.

    Its builders make events of the configured mode. Customers are given by id or as rows. Stripe is not asked: what a
    site would fetch after such an event stays marked. `StripeSimulator` answers what it is asked, too.
    """

    def __init__(self, client: Client | None = None) -> None:
        self._client = client or Client(enforce_csrf_checks=True)
        self._newest = 0

    def deliver(self, event: Event | bytes, *, t: int | None = None, secret: str | None = None) -> HttpResponse:
        """Post an event, or any bytes, and return the answer: 200 once it is stored, processed or not.

        Signed now, in Stripe's seconds, unless `t` says when. Raises `ImproperlyConfigured` if there is no secret.
        """
        if isinstance(event, bytes):
            body, created = event, 0
        else:
            body, created = json.dumps(event).encode(), int(event.get("created", 0))
        t = max(int(time.time()), created) if t is None else t
        header = signature(body, secret=_first_secret() if secret is None else secret, t=t)
        url = reverse("entitlements:webhook")
        # The real Stripe knows nothing of customers of tests, and to be told so would take away what the event granted.
        of_djstripe = beside_djstripe.KEYS if beside_djstripe.is_installed() else ()
        no_key = dict.fromkeys(("ENTITLEMENTS_STRIPE_API_KEY", *of_djstripe))
        with override_settings(ENTITLEMENTS_LIVEMODE=conf.livemode(), **no_key):
            return self._client.post(  # type: ignore[return-value]  # a subclass
                url, data=body, content_type="application/json", headers={"Stripe-Signature": header}
            )

    def summary(
        self, customer: Customer | str, *keys: str, has_more: bool = False, created: int | None = None
    ) -> Event:
        """The event that says what a customer now holds: exactly these lookup keys, or these and more.

        Each is at least a second newer than the one made before it, so that each is believed, however fast they come.
        """
        created = max(int(time.time()), self._newest + 1) if created is None else created
        self._newest = max(self._newest, created)
        checked = map(check_key, keys)
        return summary_updated(_id(customer), *checked, has_more=has_more, created=created, livemode=conf.livemode())

    def customer_deleted(self, customer: Customer | str) -> Event:
        """The event that a customer was deleted."""
        return customer_deleted(_id(customer), livemode=conf.livemode())

    def subscription_updated(self, customer: Customer | str) -> Event:
        """The event that some subscription of a customer changed, which says nothing about what it holds."""
        return subscription_updated(_id(customer), livemode=conf.livemode())


def _id(customer: Customer | str) -> str:
    """A subscriber, or the customer's JSON, would be taken for an id by its text."""
    if isinstance(customer, Customer | str):
        return str(customer)
    raise TypeError(f"A customer is a Stripe id or a Customer, not {customer!r}.")


def _first_secret() -> str:
    secrets = conf.webhook_secrets()
    if not secrets:
        raise ImproperlyConfigured(
            "ENTITLEMENTS_WEBHOOK_SECRETS is empty, so nothing can be signed, and the endpoint would refuse it. For "
            'tests any secret will do: override_settings(ENTITLEMENTS_WEBHOOK_SECRETS=["whsec_of_the_tests"]).'
        )
    return secrets[0]


# In the shape of Stripe's; times are Unix seconds.


def summary_updated(customer: str, *keys: str, has_more: bool = False, created: int, livemode: bool) -> Event:
    carried = {
        "object": "entitlements.active_entitlement_summary",
        "customer": customer,
        "entitlements": {
            "object": "list",
            "data": active_entitlements(*keys, livemode=livemode),
            "has_more": has_more,
            "url": f"/v1/customer/{customer}/entitlements",
        },
        "livemode": livemode,
    }
    return envelope(SUMMARY_UPDATED, carried, livemode=livemode) | {"created": created}


def active_entitlements(*keys: str, livemode: bool) -> list[dict[str, Any]]:
    """As a summary lists them: with new ids, of features whose ids follow from their keys."""
    return [
        {
            "id": f"ent_test_{uuid4().hex}",
            "object": "entitlements.active_entitlement",
            "feature": feature_id(key),
            "livemode": livemode,
            "lookup_key": key,
        }
        for key in keys
    ]


def feature_id(key: str) -> str:
    """The id that features of tests have."""
    return f"feat_test_{key}"


def customer_deleted(customer: str, *, livemode: bool) -> Event:
    return envelope(CUSTOMER_DELETED, {"id": customer, "object": "customer", "livemode": livemode}, livemode=livemode)


def subscription_updated(customer: str, *, livemode: bool) -> Event:
    carried = {"id": "sub_test", "object": "subscription", "customer": customer, "livemode": livemode}
    return envelope("customer.subscription.updated", carried, livemode=livemode)


def envelope(kind: str, carried: dict[str, Any], *, livemode: bool) -> Event:
    """An event that was created now and carries this object."""
    return {
        "id": f"evt_test_{uuid4().hex}",
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": {"object": carried},
        "livemode": livemode,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
