"""Which customers to fetch: those whose time has come, urgent ones first; those that somebody waits for; all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from math import inf

from django.db.models import Q
from django.utils import timezone

from . import conf, fetch_pool, fetches, mirror, settle
from .budget import RequestAllowance
from .exceptions import StripeRefused, StripeUnavailable
from .fetch_pool import FetchReport
from .fetches import Fetch
from .models import Customer, CustomerQuerySet
from .subscribers import subscriber_key
from .transactions import alias

logger = logging.getLogger(__name__)

INLINE_SECONDS = 5.0
NEWEST = 3  # customers of one subscriber that are asked about while it waits
ASK_AGAIN = timedelta(seconds=15)

IN_A_ROW = 3  # server errors after which a pass by hand gives up
CHUNK = 10_000  # keys of customers read at once


def fetch_one() -> None:
    """Fetch the customer that is first in the order of work, if one is due and a call is free now. 5 s in all."""
    if conf.stripe_api_key() is None or not _customers().due(timezone.now()).exists():
        return
    allowance = RequestAllowance(seconds=INLINE_SECONDS)
    try:
        if allowance.prepay():
            for fetch in fetches.claim_wave(1):
                settle.run(fetch, allowance)
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
    allowance = RequestAllowance(seconds=INLINE_SECONDS)
    applied = False
    try:
        for pk in [row.pk for row in newest if row.fetched_at is None or row.fetched_at < recently]:
            if not allowance.prepay():
                break
            if fetch := fetches.claim_one(pk, unless_fetched_since=recently):
                applied |= settle.run(fetch, allowance).applied
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Fetching after a checkout failed; it is planned again. %s", error)
    return applied


def fetch_due(*, deadline: float, report: FetchReport | None = None) -> FetchReport:
    """Fetch what is due until nothing is, Stripe cannot be asked, or `deadline` (on `time.monotonic`) is past."""
    report = FetchReport() if report is None else report
    fetch_pool.run(fetches.claim_wave, report, seconds=deadline - time.monotonic())
    return report


def fetch_marked(report: FetchReport, *, dry: bool = False) -> None:
    """Fetch each marked customer once, now. An early answer applies, but the customer stays marked."""
    pks = list(marked().order_by("-urgent", "next_fetch_at", "pk").values_list("pk", flat=True))
    fetch_pool.run(_Walk(pks).take, report, seconds=inf, patience=IN_A_ROW, dry=dry)


def fetch_all(report: FetchReport, *, since: datetime, dry: bool = False) -> None:
    """Fetch each customer that was not fetched since then, once."""
    fetch_pool.run(_Walk(_pks(unfetched(since))).take, report, seconds=inf, patience=IN_A_ROW, dry=dry)


def fetch_these(pks: Sequence[int], report: FetchReport, *, dry: bool = False) -> None:
    """Fetch each of these customers once."""
    fetch_pool.run(_Walk(pks).take, report, seconds=inf, patience=IN_A_ROW, dry=dry)


def marked() -> CustomerQuerySet:
    """Customers of whom there was news that no fetch has settled yet."""
    return _customers().marked()


def unfetched(since: datetime) -> CustomerQuerySet:
    """Customers that were not fetched since then."""
    return _customers().filter(Q(fetched_at=None) | Q(fetched_at__lt=since), deleted_at=None)


def _pks(customers: CustomerQuerySet) -> Iterator[int]:
    last = 0
    while chunk := list(customers.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:CHUNK]):
        yield from chunk
        last = chunk[-1]


class _Walk:
    """Customers one after the other, without a claim: a periodic pass may fetch one of them as well.

    Those that were deleted meanwhile are passed over; nothing is given only at the end.
    """

    def __init__(self, pks: Iterable[int]) -> None:
        self._pks = iter(pks)

    def take(self, limit: int) -> Sequence[Fetch]:
        while pks := list(islice(self._pks, limit)):
            rows = {row.pk: row for row in mirror.asked_about().filter(pk__in=pks, deleted_at=None)}
            if rows:
                return [fetches.of(rows[pk]) for pk in pks if pk in rows]
        return []


def _customers() -> CustomerQuerySet:
    return Customer.objects.using(alias()).in_mode(conf.livemode())
