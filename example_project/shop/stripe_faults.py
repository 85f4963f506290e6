"""Make the simulated Stripe misbehave. The real one has no such address, and needs none."""

import json
from urllib.request import Request, urlopen

from example_project.settings import ENTITLEMENTS_STRIPE_API_BASE

FAULTS_URL = f"{ENTITLEMENTS_STRIPE_API_BASE}/_simulator/faults"


def lose_next_summary() -> None:
    fault = {"drop_webhooks": {"times": 1, "type": "entitlements.active_entitlement_summary.updated"}}
    request = Request(FAULTS_URL, data=json.dumps(fault).encode(), method="POST")  # noqa: S310  (this machine)
    urlopen(request, timeout=5).close()  # noqa: S310
