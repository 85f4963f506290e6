"""What each page shows around its own content: a context processor, so that views show only what is theirs."""

from __future__ import annotations

from typing import Any

import stripe
from django.contrib.auth.models import User

from entitlements_app.middleware import EntitlementsHttpRequest
from example_project.settings import STRIPE

from . import billing, event_log, orders
from .demo_sign_in import USERS
from .explanation import explain_gate, is_open
from .gates import GATES, gate_of


def page_frame(request: EntitlementsHttpRequest) -> dict[str, Any]:
    gate = gate_of(request)
    frame: dict[str, Any] = {
        "news": event_log.newest(request),
        "demo_users": USERS,
        "simulated": STRIPE.simulated,
        "gates": [{"gate": each, "is_open": is_open(each, request)} for each in GATES],
    }
    if gate is not None:
        frame |= {"gate": gate, "explanation": explain_gate(gate, request), "waiting": _waiting(request)}
    return frame


def _waiting(request: EntitlementsHttpRequest) -> orders.Waiting | None:
    """An order of long ago may have been changed since, elsewhere: then Stripe is asked what it bills."""
    waiting = orders.waiting(request)
    if waiting is None or not waiting.long or not isinstance(request.user, User):
        return waiting
    try:
        return orders.waiting(request, billing.get_bill(request.user).plan)
    except stripe.StripeError:
        return None
