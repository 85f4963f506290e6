"""Why a visitor holds a feature or lacks it, from this app's tables and without asking Stripe."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from entitlements_app.middleware import EntitlementsHttpRequest
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementChange

from .gates import Gate
from .plans import Feature, Plan, plans_with

CAUSES = {
    "event": "a webhook said so",
    "fetch": "Stripe was asked and said so",
    "link": "the customer was linked to this user",
    "unlink": "the customer was unlinked from this user",
}


@dataclass(frozen=True)
class Answer:
    """About one feature. `proofs` are the active entitlements that say yes."""

    feature: Feature
    held: bool
    proofs: list[ActiveEntitlement]
    plans: list[Plan]
    last_change: EntitlementChange | None

    @property
    def last_cause(self) -> str:
        return CAUSES[self.last_change.cause] if self.last_change else ""


@dataclass(frozen=True)
class Explanation:
    is_open: bool
    by_superuser: bool
    subscriber: User | None
    customers: list[Customer]
    answers: list[Answer]
    plans: list[Plan]

    @property
    def confirmed_at(self) -> datetime | None:
        """When Stripe was last asked for the whole list."""
        return max((row.fetched_at for row in self.customers if row.fetched_at), default=None)


def explain(gate: Gate, request: EntitlementsHttpRequest) -> Explanation:
    user = request.user if isinstance(request.user, User) and request.user.is_active else None
    answers = [_answer(feature, request, user) for feature in gate.features]
    held = [answer.held for answer in answers]
    by_superuser = gate.superusers and user is not None and user.is_superuser
    return Explanation(
        is_open=by_superuser or (any(held) if gate.any_of else all(held)),
        by_superuser=by_superuser,
        subscriber=user,
        customers=list(Customer.objects.in_mode(False).filter(subscriber=user, deleted_at=None)) if user else [],
        answers=answers,
        plans=plans_with(*gate.features, any_of=gate.any_of),
    )


def is_open(gate: Gate, request: EntitlementsHttpRequest) -> bool:
    """The same answer without the reasons, at no query of its own."""
    keys = [feature.lookup_key for feature in gate.features]
    if gate.superusers and getattr(request.user, "is_superuser", False):
        return True
    return request.entitlements.has_any(*keys) if gate.any_of else request.entitlements.has_all(*keys)


def _answer(feature: Feature, request: EntitlementsHttpRequest, user: User | None) -> Answer:
    held = request.entitlements[feature.lookup_key]
    if user is None:
        return Answer(feature, held, [], plans_with(feature), None)
    granting = ActiveEntitlement.objects.granting(False).filter(customer__subscriber=user)
    changes = EntitlementChange.objects.filter(subscriber=user, lookup_key=feature.lookup_key, effective=True)
    return Answer(
        feature,
        held,
        proofs=list(granting.filter(lookup_key=feature.lookup_key).select_related("customer", "feature")),
        plans=plans_with(feature),
        last_change=changes.order_by("-pk").first(),
    )
