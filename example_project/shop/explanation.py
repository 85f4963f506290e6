"""Why a visitor holds the features of a gate or lacks them: what the app explains, and which plans have them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from entitlements_app.explain import explain
from entitlements_app.explanation import AboutChange, AboutCustomer, Explanation
from entitlements_app.explanation_text import get_cause
from entitlements_app.middleware import EntitlementsHttpRequest

from .gates import Gate
from .plans import Feature, Plan, plans_with


@dataclass(frozen=True)
class Answer:
    """About one feature."""

    feature: Feature
    explained: Explanation
    plans: list[Plan]

    @property
    def last_change(self) -> AboutChange | None:
        return next((change for change in self.explained.changes if change.effective), None)

    @property
    def last_cause(self) -> str:
        return get_cause(self.last_change) if self.last_change else ""


@dataclass(frozen=True)
class GateExplanation:
    is_open: bool
    by_superuser: bool
    subscriber: User | None
    answers: list[Answer]
    plans: list[Plan]

    @property
    def customers(self) -> tuple[AboutCustomer, ...]:
        return self.answers[0].explained.live_customers

    @property
    def confirmed_at(self) -> datetime | None:
        """When Stripe was last asked for the whole list."""
        return max((row.fetched_at for row in self.customers if row.fetched_at), default=None)


def explain_gate(gate: Gate, request: EntitlementsHttpRequest) -> GateExplanation:
    user = request.user if isinstance(request.user, User) and request.user.is_active else None
    return GateExplanation(
        is_open=is_open(gate, request),
        by_superuser=gate.superusers and user is not None and user.is_superuser,
        subscriber=user,
        answers=[Answer(feature, explain(user, feature.lookup_key), plans_with(feature)) for feature in gate.features],
        plans=plans_with(*gate.features, any_of=gate.any_of),
    )


def is_open(gate: Gate, request: EntitlementsHttpRequest) -> bool:
    """The same answer without the reasons, at no query of its own."""
    keys = [feature.lookup_key for feature in gate.features]
    if gate.superusers and getattr(request.user, "is_superuser", False):
        return True
    return request.entitlements.has_any(*keys) if gate.any_of else request.entitlements.has_all(*keys)
