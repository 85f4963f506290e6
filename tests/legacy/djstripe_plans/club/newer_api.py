"""Stripe's API versions from 2025-03-31 on have a subscription's period and plan on its items.

dj-stripe 2.11 looks for them on the subscription: without this, is_subscribed_to raises a TypeError,
active_subscriptions is empty, and plan is None.
"""

from django.db.models.signals import pre_save
from djstripe.models import Subscription


def connect():
    pre_save.connect(_fill_in, sender=Subscription, dispatch_uid="club.newer_api")


def _fill_in(instance, **kwargs):
    data = instance.stripe_data
    for item in data.get("items", {}).get("data", []):
        data.setdefault("current_period_end", item["current_period_end"])
        data.setdefault("plan", {"id": item["price"]["id"], "product": item["price"]["product"]})
