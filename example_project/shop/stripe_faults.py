"""Make the simulated Stripe misbehave. The real one has no such address, and needs none."""

import hashlib
import hmac
import json
import time
from urllib.request import Request, urlopen

from example_project.settings import PORT, STRIPE, WEBHOOK_PATH

CONTROL_URL = f"{STRIPE.api_base}/_simulator/"
SITE = f"http://127.0.0.1:{PORT}"
SUMMARY = "entitlements.active_entitlement_summary.updated"


def send_unreadable_event(customer_id: str, *, site: str = SITE) -> None:
    """As from an endpoint with another API version: signed, and its summary is not what this app can read."""
    now = int(time.time())
    carried = {"object": "entitlements.active_entitlement_summary", "customer": customer_id, "livemode": False}
    event = {
        "id": f"evt_unreadable{time.time_ns()}",
        "object": "event",
        "type": SUMMARY,
        "livemode": False,
        "created": now,
    }
    body = json.dumps(event | {"data": {"object": carried}}).encode()
    signed = hmac.new(STRIPE.webhook_secret.encode(), b"%d." % now + body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={now},v1={signed}"}
    request = Request(f"{site}{WEBHOOK_PATH}", data=body, headers=headers, method="POST")  # noqa: S310  (this machine)
    urlopen(request, timeout=5).close()  # noqa: S310


def lose_next_summary() -> None:
    fault = {"drop_webhooks": {"times": 1, "type": SUMMARY}}
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
