"""Make the simulated Stripe misbehave. The real one has no such address, and needs none."""

import json
from urllib.request import Request, urlopen

from example_project.settings import STRIPE

CONTROL_URL = f"{STRIPE.api_base}/_simulator/"


def lose_next_summary() -> None:
    fault = {"drop_webhooks": {"times": 1, "type": "entitlements.active_entitlement_summary.updated"}}
    request = Request(CONTROL_URL + "faults", data=json.dumps(fault).encode(), method="POST")  # noqa: S310  (this machine)
    urlopen(request, timeout=5).close()  # noqa: S310


def is_loss_armed() -> bool:
    """Whether a webhook is still to be lost; False when the simulated Stripe does not answer, and for a real one."""
    if not STRIPE.simulated:
        return False
    try:
        with urlopen(CONTROL_URL + "state", timeout=5) as answer:  # noqa: S310
            return bool(json.load(answer)["webhooks_to_drop"])
    except OSError:
        return False
