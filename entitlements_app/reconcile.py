"""What to fetch next: customers whose time has come, urgent ones first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.utils import timezone

from . import conf, sync
from .budget import Allowance, Stopped
from .exceptions import StripeRefused, StripeUnavailable
from .models import Customer, CustomerQuerySet
from .stripe_client import UnusableAnswer
from .subscribers import subscriber_key
from .transactions import alias

logger = logging.getLogger(__name__)

INLINE_SECONDS = 5.0
NEWEST = 3  # customers of one subscriber that are asked about while it waits
ASK_AGAIN = timedelta(seconds=15)

IN_A_ROW = 3  # server errors after which a pass by hand gives up


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

    def count(self, stripe_id: str, fetch: Callable[[], sync.Synced]) -> bool:
        """Make one fetch and count how it ended. Returns whether Stripe can be asked about the next customer."""
        try:
            synced = fetch()
        except (StripeUnavailable, StripeRefused) as error:
            logger.warning("Fetching %s failed. %s", stripe_id, error)
            self.failed += 1
            self.stopped = isinstance(error, Stopped)
            if self.stopped or (isinstance(error, StripeUnavailable) and not isinstance(error, UnusableAnswer)):
                self.problem = str(error)
                return False
        except Exception:  # of whatever kind: one customer must not hold up the others
            logger.exception("Fetching %s failed.", stripe_id)
            self.failed += 1
        else:
            self.fetched += 1
            self.changed += synced.changed
        return True


def fetch_one() -> None:
    """Fetch the customer that is first in the order of work, if one is due and a call is free now. 5 s in all."""
    if conf.stripe_api_key() is None or not _customers().due(timezone.now()).exists():
        return
    allowance = Allowance(seconds=INLINE_SECONDS)
    try:
        if allowance.prepay() and (fetch := sync.claim_next()):
            sync.run_fetch(fetch, allowance)
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching after a webhook failed; it is planned again. %s", error)


def fetch_awaited(subscriber: object, *, unless_within: timedelta) -> bool:
    """Ask Stripe about this subscriber's newest customers, for someone who waits for what was bought. 5 s in all.

    Only about those that were not fetched within that time, nor in the last ASK_AGAIN, and only if a call is free now:
    reloading a page spends nothing. They are marked as well, and so asked about again when Stripe has settled. Errors
    are logged. Returns whether an answer was applied. Raises `TypeError` for an instance of another model than the
    subscriber's, and `RuntimeError` inside an atomic block.
    """
    key = subscriber_key(subscriber)
    if key is None or conf.stripe_api_key() is None:
        return False
    recently = timezone.now() - max(unless_within, ASK_AGAIN)
    newest = _customers().filter(subscriber=key, deleted_at=None).order_by("-created_at", "-pk")[:NEWEST]
    allowance = Allowance(seconds=INLINE_SECONDS)
    applied = False
    try:
        for pk in [row.pk for row in newest if row.fetched_at is None or row.fetched_at < recently]:
            if not allowance.prepay():
                break
            if fetch := sync.claim_one(pk, unless_fetched_since=recently):
                applied |= sync.run_fetch(fetch, allowance).applied
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching after a checkout failed; it is planned again. %s", error)
    return applied


def fetch_due(*, deadline: float) -> FetchReport:
    """Fetch what is due until nothing is, Stripe cannot be asked, or `deadline` (on `time.monotonic`) is past."""
    report = FetchReport()
    while (left := deadline - time.monotonic()) > 0 and (fetch := sync.claim_next()):
        run = partial(sync.run_fetch, fetch, Allowance(seconds=left))
        if not report.count(fetch.stripe_id, run):
            break
    return report


def fetch_marked() -> FetchReport:
    """Fetch each marked customer once, now. An early answer applies, but the customer stays marked."""
    report = FetchReport()
    in_a_row = 0
    for customer in _customers().marked().order_by("-urgent", "next_fetch_at", "pk"):
        answered = report.count(customer.stripe_id, partial(sync.sync_customer, customer))
        in_a_row = 0 if answered else in_a_row + 1
        if report.stopped or in_a_row == IN_A_ROW:
            break
    return report


def _customers() -> CustomerQuerySet:
    return Customer.objects.using(alias()).in_mode(conf.livemode())
