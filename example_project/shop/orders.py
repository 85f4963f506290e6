"""A plan that was ordered, and whether the local copy knows of it yet."""

from __future__ import annotations

import time
from dataclasses import dataclass

from entitlements_app.middleware import EntitlementsHttpRequest

from .plans import FEATURES, PLANS, Plan

PATIENCE = 5  # seconds after which a webhook that did not come is worth a word
SOLD = {feature.lookup_key for feature in FEATURES}


@dataclass(frozen=True)
class Waiting:
    """The local copy does not say yet what the plan should give."""

    plan: Plan
    long: bool

    @property
    def reload_after(self) -> int:
        return 5 if self.long else 1


def remember(request: EntitlementsHttpRequest, plan: Plan) -> None:
    request.session["ordered"] = {"plan": plan.slug, "at": time.time()}


def waiting(request: EntitlementsHttpRequest, billed: Plan | None = None) -> Waiting | None:
    """For the plan that Stripe bills, if that is known, else for the one that was ordered."""
    ordered = request.session.get("ordered")
    plan = billed or (PLANS[ordered["plan"]] if ordered else None)
    if plan is None or plan.lookup_keys == SOLD & set(request.entitlements):
        return None
    return Waiting(plan, long=has_waited_long(request))


def has_waited_long(request: EntitlementsHttpRequest) -> bool:
    ordered = request.session.get("ordered")
    return ordered is None or time.time() - ordered["at"] > PATIENCE
