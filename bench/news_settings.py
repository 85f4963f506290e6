"""The site that news arrive at: `bench.settings`, and a simulated Stripe behind both apps."""

from __future__ import annotations

from typing import Any

from bench.settings import settings_of
from bench.simulated import API_KEY


def settings_of_news(
    *, database: dict[str, Any], redis_url: str, stripe_url: str, djstripe_url: str = "", processing: str
) -> dict[str, Any]:
    return settings_of(database, redis_url) | {
        "ENTITLEMENTS_STRIPE_API_KEY": API_KEY,
        "ENTITLEMENTS_STRIPE_API_BASE": stripe_url,
        "ENTITLEMENTS_WEBHOOK_PROCESSING": processing,
        "ENTITLEMENTS_CACHE": "default",
        "STRIPE_TEST_SECRET_KEY": API_KEY,
        "STRIPE_API_HOST": djstripe_url,
        "LOGGING": {"version": 1, "disable_existing_loggers": True, "root": {"level": "CRITICAL"}},
    }
