"""What to fetch next: customers whose time has come, urgent ones first."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from django.utils import timezone

from . import conf, sync
from .budget import Allowance, Stopped
from .exceptions import StripeRefused, StripeUnavailable
from .models import Customer, CustomerQuerySet
from .transactions import alias

logger = logging.getLogger(__name__)

INLINE_SECONDS = 5.0


@dataclass
class FetchReport:
    """What a pass of fetches did, and why it ended early, if it did. `stopped`: Stripe refused the API key."""

    fetched: int = 0
    changed: int = 0
    failed: int = 0
    problem: str = ""
    stopped: bool = False

    def as_line(self) -> str:
        return f"Fetches: {self.fetched} answered, {self.changed} of them changed something, {self.failed} failed."

    def take(self, outcome: sync.Synced | StripeUnavailable | StripeRefused) -> bool:
        """Count one outcome. Returns whether to go on with the next customer."""
        if isinstance(outcome, sync.Synced):
            self.fetched += 1
            self.changed += outcome.changed
            return True
        self.failed += 1
        self.stopped = isinstance(outcome, Stopped)
        if self.stopped or isinstance(outcome, StripeUnavailable):
            self.problem = str(outcome)
        return not self.problem


def fetch_one() -> None:
    """Fetch the customer that is first in the order of work, if one is due and a call is free now. 5 s in all."""
    allowance = Allowance(seconds=INLINE_SECONDS)
    if conf.stripe_api_key() is None or not _customers().due(timezone.now()).exists():
        return
    try:
        fetches = sync.claim_due(limit=1) if allowance.prepay() else []
        for fetch in fetches:
            sync.run_fetch(fetch, allowance)
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching after a webhook failed; it is planned again. %s", error)


def fetch_due(*, deadline: float) -> FetchReport:
    """Fetch what is due until nothing is, Stripe cannot be asked, or `deadline` (on `time.monotonic`) is past."""
    report = FetchReport()
    while (left := deadline - time.monotonic()) > 0 and (fetches := sync.claim_due(limit=1)):
        if not report.take(_run(fetches[0], Allowance(seconds=left))):
            break
    return report


def fetch_marked() -> FetchReport:
    """Fetch each marked customer once, now. An early answer applies, but the customer stays marked."""
    report = FetchReport()
    for customer in _customers().marked().order_by("-urgent", "next_fetch_at", "pk"):
        if not report.take(_sync(customer)):
            break
    return report


def _customers() -> CustomerQuerySet:
    return Customer.objects.using(alias()).in_mode(conf.livemode())


def _run(fetch: sync.Fetch, allowance: Allowance) -> sync.Synced | StripeUnavailable | StripeRefused:
    try:
        return sync.run_fetch(fetch, allowance)
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching %s failed. %s", fetch.stripe_id, error)
        return error


def _sync(customer: Customer) -> sync.Synced | StripeUnavailable | StripeRefused:
    try:
        return sync.sync_customer(customer)
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching %s failed. %s", customer.stripe_id, error)
        return error
