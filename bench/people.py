"""Subscribers, each with a Stripe customer that holds five of twenty features; and what Stripe says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from bench.simulated import HELD, KEYS
from entitlements_app.models import ActiveEntitlement, Customer, Feature, SubscriberState
from entitlements_app.testing import webhook_client
from entitlements_app.testing.simulator.webhooks import signature

SECRET = "whsec_fixture_not_a_real_secret_000001"  # noqa: S105
PLANS = (KEYS[:HELD], KEYS[1 : HELD + 1])  # an event that is a change puts one in the place of the other


def make(stripe_ids: Sequence[str], features: Mapping[str, str]) -> None:
    """Rows as after a first fetch of each, with the next one a week away."""
    users = User.objects.bulk_create(User(username=f"of {stripe_id}", password="!") for stripe_id in stripe_ids)
    week = timezone.now() + timedelta(days=7)
    customers = Customer.objects.bulk_create(
        Customer(
            stripe_id=stripe_id, livemode=False, subscriber=user, version=1, window_from=1, window_to=1,
            next_fetch_at=week, fetched_at=timezone.now(),
        )
        for stripe_id, user in zip(stripe_ids, users, strict=True)
    )  # fmt: skip
    rows = Feature.objects.bulk_create(
        Feature(stripe_id=feature, livemode=False, lookup_key=key, name=key) for key, feature in features.items()
    )
    by_key = {row.lookup_key: row for row in rows}
    ActiveEntitlement.objects.bulk_create(
        ActiveEntitlement(
            customer=customer,
            feature=by_key[key],
            lookup_key=key,
            stripe_id=entitlement_id(customer.stripe_id, key),
            confirmed_at=timezone.now(),
        )
        for customer in customers
        for key in PLANS[0]
    )
    SubscriberState.objects.bulk_create(
        SubscriberState(subscriber=user, livemode=False, announced=PLANS[0]) for user in users
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def entitlement_id(customer: str, key: str) -> str:
    """Of 34 characters, as in live mode: `ent_` and 30."""
    return f"ent_{customer[4:]}{key.removeprefix('feature_')}".ljust(34, "0")[:34]


def entitlements(customer: str, keys: Sequence[str], features: Mapping[str, str]) -> list[dict[str, Any]]:
    """As a summary lists them."""
    return [
        {
            "id": entitlement_id(customer, key),
            "object": "entitlements.active_entitlement",
            "feature": features[key],
            "livemode": False,
            "lookup_key": key,
        }
        for key in keys
    ]


def summary(customer: str, keys: Sequence[str], features: Mapping[str, str]) -> tuple[bytes, str]:
    """The body of an event that was created now, and the header that Stripe would sign it with."""
    event = webhook_client.summary_updated(customer, created=int(time.time()), livemode=False)
    event["data"]["object"]["entitlements"]["data"] = entitlements(customer, keys, features)
    body = json.dumps(event).encode()
    return body, signature(body, secret=SECRET, t=int(time.time()))
