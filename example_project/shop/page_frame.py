"""What each page shows around its own content: a context processor, so that views show only what is theirs."""

from __future__ import annotations

from typing import Any

from entitlements_app.middleware import EntitlementsHttpRequest
from example_project.settings import STRIPE

from . import event_log, orders
from .demo_sign_in import USERS
from .explanation import explain, is_open
from .gates import GATES, gate_of


def page_frame(request: EntitlementsHttpRequest) -> dict[str, Any]:
    gate = gate_of(request)
    frame: dict[str, Any] = {"demo_users": USERS, "simulated": STRIPE.simulated, "news": event_log.newest(request)}
    if gate is not None:
        frame |= {"gate": gate, "explanation": explain(gate, request), "waiting": orders.waiting(request)}
    if hasattr(request, "entitlements"):
        frame["gates"] = [{"gate": each, "is_open": is_open(each, request)} for each in GATES]
    return frame
