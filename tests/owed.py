"""A shop at the simulated Stripe that owes its customers features: attached to what they had subscribed to before."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any, NamedTuple

from django.core.management import call_command

from entitlements_app import sync
from entitlements_app.linking import link
from entitlements_app.models import Customer
from tests.rows import make_subscriber
from tests.shop import Shop


class Payer(NamedTuple):
    """A customer, its subscription, and who pays."""

    subscriber: Any
    customer: str
    subscription: str


class Debtor:
    """The plan `pro` has `sso` and `export` from the beginning; what is attached later, Stripe owes."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.stripe = shop, shop.stripe
        self.product = shop.prices["pro"]["product"]

    def payer(self, plan: str = "pro", *, of: Any = None, linked: bool = True) -> Payer:
        """A new customer, of this subscriber or a new one."""
        customer = self.shop.customer()
        subscriber = (of or make_subscriber()) if linked else None
        if subscriber:
            link(subscriber, customer)
        return Payer(subscriber, customer, self.shop.subscribe(customer, plan))

    def attach(self, key: str = "audit") -> None:
        self.stripe.attach_feature(self.product, self.shop.features[key])

    def settle(self) -> None:
        """All of this is known here and confirmed, and was five minutes ago."""
        self.shop.deliver()
        sync.sync_catalog()
        for row in Customer.objects.filter(deleted_at=None, account="", livemode=False):
            sync.sync_customer(row)
        Customer.objects.update(hinted_at=None, urgent=False)
        self.stripe.clock.advance(300)
        self.stripe.clear_requests()

    def pay(self, payer: Payer) -> None:
        """Stripe grants what it owes, as with a new period."""
        self.stripe.renew(payer.subscription)

    def calls(self, path: str) -> int:
        return self.shop.calls().count(path)


def report(*args: str, code: int = 0, stdin: Any = None) -> str:
    """What `entitlements_catalog gaps` says, which is to end with this exit code."""
    out = StringIO()
    ended = 0
    try:
        call_command("entitlements_catalog", "gaps", *args, stdout=out, stderr=StringIO(), stdin=stdin)
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == code, out.getvalue()
    return out.getvalue()


def found(*args: str, code: int = 2) -> set[tuple[str, str]]:
    """Which customer lacks which key."""
    return {(gap["customer"], gap["lookup_key"]) for gap in json.loads(report("--json", *args, code=code))["gaps"]}
