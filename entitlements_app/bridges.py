"""Bridges: overrides that stand in for what Stripe owes, until it grants the key. That ends them, in that transaction.

Both sides decide under the lock of the subscriber's state: who makes a bridge looks for the grant after it has the lock
(`overrides.bridge`), and who writes a grant ends the bridges after it has it. So none is left that nobody ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from django.db.models import DateTimeField, Exists, F, OuterRef, Q, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from . import cache
from .models import Customer, EntitlementOverride, EntitlementOverrideQuerySet
from .transactions import alias


def standing(*, livemode: bool) -> EntitlementOverrideQuerySet:
    """Bridges over what Stripe owes in that mode, but for those that are over."""
    rows = EntitlementOverride.objects.using(alias()).not_over(timezone.now())
    return rows.filter(bridge_livemode=livemode)


def end_granted(gained: Iterable[tuple[Any, Collection[str]]], *, livemode: bool) -> None:
    """End the bridges of keys that a customer of each of these subscribers has just gained at Stripe.

    The answer stays yes. One statement, and none if nothing was gained. The caller holds the lock of the subscribers'
    states, and records after it.
    """
    subscribers: defaultdict[str, set[Any]] = defaultdict(set)
    for subscriber_id, keys in gained:
        for key in keys if subscriber_id is not None else ():
            subscribers[key].add(subscriber_id)
    if not subscribers:
        return
    which = Q()
    for key, pks in sorted(subscribers.items()):
        which |= Q(lookup_key=key, subscriber_id__in=pks)
    if standing(livemode=livemode).filter(which).update(expires_at=_now()):
        cache.invalidate(set().union(*subscribers.values()), livemode=livemode)


def end_ownerless(subscriber_ids: Collection[Any], *, livemode: bool) -> None:
    """End the bridges of those subscribers who have no live customer left in that mode: nobody owes them anything.

    One statement. The caller holds the lock of the subscribers' states, and records after it.
    """
    customers = Customer.objects.in_mode(livemode).filter(subscriber_id=OuterRef("subscriber_id"), deleted_at=None)
    rows = standing(livemode=livemode).filter(subscriber_id__in=subscriber_ids)
    rows.exclude(Exists(customers)).update(expires_at=_now())


def _now() -> Greatest:
    """The clock of whoever made the bridge may be ahead."""
    return Greatest(Value(timezone.now(), DateTimeField()), F("starts_at"))
