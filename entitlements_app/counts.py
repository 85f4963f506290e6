"""What the overview shows and no index can tell: how many hold each feature, how much changed on each day.

The only writer of these counts. They are of both modes, and of connected accounts: whoever looks, looks at a few rows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connections, transaction
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.utils import timezone

from . import conf, runs, transactions
from .models import ActiveEntitlement, ChangeCount, Customer, EntitlementChange, Feature, FeatureCount
from .old_rows import last_before
from .runs import Kind
from .transactions import alias, own, primary

EVERY = timedelta(hours=1)
DAYS = 30
KEPT = timedelta(days=400)
DAY = timedelta(days=1)
# Changes are committed later than they are made, and local clocks are set back by an hour in autumn: so much the order
# of primary keys may differ from that of dates.
DISORDER = timedelta(hours=2)

_MODES = (False, True)
_NUMBERS = ("granted", "revoked", "first_change", "last_change")


@dataclass(frozen=True)
class CountReport:
    """What was counted. `finished`: the time was enough. `problem`: what the database would not do."""

    features: int = 0
    days: int = 0
    finished: bool = False
    problem: str = ""

    def as_line(self) -> str:
        line = f"Counted for the overview: {self.features} feature(s), changes of {self.days} day(s)."
        return line if self.finished else f"{line} There is more."


@dataclass(frozen=True)
class Day:
    """Effective changes of a day, `None` if it has not been counted yet."""

    day: date
    granted: int | None
    revoked: int | None


def by_feature(livemode: bool) -> QuerySet[Feature, Any]:
    """Features of the own account: `customers` of `of_customers` hold it, as of `counted_at`. `None` before that."""
    counted = {name: F(f"counts__{name}") for name in ("customers", "of_customers", "counted_at")}
    rows = primary(Feature).filter(account="", livemode=livemode)
    ordered = rows.order_by(F("counts__customers").desc(nulls_last=True), "lookup_key", "pk")
    return ordered.values("pk", "lookup_key", "name", "active", **counted)


def by_day(livemode: bool) -> tuple[list[Day], datetime | None]:
    """The last DAYS, oldest first, today included, and when the newest of them was counted."""
    days = _last_days()
    found = {row.day: row for row in primary(ChangeCount).filter(livemode=livemode, day__gte=days[0])}
    counted = [Day(day, row.granted, row.revoked) if (row := found.get(day)) else Day(day, None, None) for day in days]
    return counted, max((row.counted_at for row in found.values()), default=None)


def keys_of(day: date) -> tuple[int, int] | None:
    """Between which primary keys the changes of a day lie, as far as they were counted. `None` if none were."""
    counted = primary(ChangeCount).filter(day=day, last_change__gt=0)
    first, last = counted.aggregate(first=Min("first_change"), last=Max("last_change")).values()
    return None if first is None else (first, last)


def now_holding(lookup_keys: Collection[str]) -> dict[str, int]:
    """How many customers hold each of these keys at Stripe now, by our rows; a key of nobody is left out.

    Customers of the own account, in the configured mode, not deleted. In one query, which reads all that is held of
    these keys: for commands, not for pages.
    """
    if not lookup_keys:
        return {}
    features = own(Feature).filter(lookup_key__in=lookup_keys)
    held = ActiveEntitlement.objects.using(alias()).granting(conf.livemode()).filter(feature__in=features.values("pk"))
    return dict(held.values_list("lookup_key").annotate(number=Count("customer", distinct=True)))


def count_if_due(*, deadline: float) -> CountReport | None:
    """Count anew, once an hour, and go on in a minute if the time was too short; `None` if it is not due.

    An error of the database stands in the run and the report: nothing but a page is worse for want of a count.
    """
    run = runs.start_if_due(Kind.COUNT, every=EVERY)
    if run is None:
        return None
    try:
        features = _count_features()
        days, finished = _count_days(deadline)
    except Exception as error:  # of whatever kind: the run has ended
        problem = f"{type(error).__name__}: {error}"
        runs.finish(run, error=problem)
        if not isinstance(error, DatabaseError):
            raise
        return CountReport(problem=problem)
    runs.count(run, done=features + days)
    runs.finish(run, error="" if finished else "The time was over before all was counted; it goes on.")
    return CountReport(features, days, finished)


def _count_features() -> int:
    """A deleted customer holds nothing: each active entitlement is a customer."""
    now = timezone.now()
    with transaction.atomic(using=alias()):  # what the database refuses ends no transaction of a caller's
        held = dict(primary(ActiveEntitlement).values_list("feature_id").annotate(number=Count("*")))
        there = primary(Customer).filter(deleted_at=None).values_list("account", "livemode").annotate(number=Count("*"))
        of_mode = {(account, livemode): number for account, livemode, number in there}
    rows = [
        FeatureCount(
            feature=feature,
            customers=held.get(feature.pk, 0),
            of_customers=of_mode.get((feature.account, feature.livemode), 0),
            counted_at=now,
        )
        for feature in primary(Feature).only("account", "livemode").order_by("stripe_id", "pk")
    ]
    _save(FeatureCount, rows, unique=["feature"], fields=["customers", "of_customers", "counted_at"])
    return len(rows)


def _count_days(deadline: float) -> tuple[int, bool]:
    """The newest day first. Returns how many were counted, and whether all were that had to be."""
    rows: list[ChangeCount] = []
    days, done = list(_days_to_count()), 0
    began = primary(EntitlementChange).order_by("pk").values_list("created_at", flat=True).first()
    while done < len(days) and (done == 0 or time.monotonic() < deadline):
        rows += _count_day(days[done], began)
        done += 1
    _save(ChangeCount, rows, unique=["livemode", "day"], fields=[*_NUMBERS, "counted_at"])
    transactions.write(primary(ChangeCount).filter(day__lt=today() - KEPT).delete)
    return done, done == len(days)


def _days_to_count() -> Iterator[date]:
    """Those that were not counted since the day after them was over: until then changes may be committed."""
    days = _last_days()
    rows = primary(ChangeCount).filter(day__gte=days[0])
    counted = dict(rows.values_list("day").annotate(at=Min("counted_at")))
    for day in reversed(days):
        at = counted.get(day)
        if at is None or at < start_of(day + 2 * DAY):
            yield day


def _count_day(day: date, began: datetime | None) -> list[ChangeCount]:
    """Of each mode one. Nothing is asked of a day before the log `began`."""
    now, start, end = timezone.now(), start_of(day), start_of(day + DAY)
    numbers: dict[bool, dict[str, Any]] = {mode: {"livemode": mode, **dict.fromkeys(_NUMBERS, 0)} for mode in _MODES}
    if began is not None and began < end + DISORDER:
        numbers |= {row["livemode"]: row for row in _changes_of(start, end)}
    return [ChangeCount(day=day, counted_at=now, **of_mode) for of_mode in numbers.values()]


def _changes_of(start: datetime, end: datetime) -> list[dict[str, Any]]:
    log = primary(EntitlementChange)
    first, last = (last_before(log, "created_at", moment) for moment in (start - DISORDER, end + DISORDER))
    of_day = log.filter(pk__gt=first, pk__lte=last, created_at__gte=start, created_at__lt=end)
    kinds = EntitlementChange.Kind
    found = of_day.values("livemode").annotate(
        granted=Count("pk", filter=Q(effective=True, kind=kinds.GRANTED)),
        revoked=Count("pk", filter=Q(effective=True, kind=kinds.REVOKED)),
        first_change=Min("pk"),
        last_change=Max("pk"),
    )
    return [dict(row) for row in found]


def _last_days() -> list[date]:
    return [today() - number * DAY for number in reversed(range(DAYS))]


def today() -> date:
    """In the site's time zone."""
    now = timezone.now()
    return (timezone.localtime(now, timezone.get_default_timezone()) if settings.USE_TZ else now).date()


def start_of(day: date) -> datetime:
    """When a day begins in the site's time zone, as a datetime of this site's kind."""
    midnight = datetime.combine(day, datetime.min.time())
    return timezone.make_aware(midnight, timezone.get_default_timezone()) if settings.USE_TZ else midnight


def _save(model: Any, rows: list[Any], *, unique: list[str], fields: list[str]) -> None:
    """Insert, or replace what was counted before."""
    targets = unique if connections[alias()].features.supports_update_conflicts_with_target else None

    def work() -> None:
        primary(model).bulk_create(rows, update_conflicts=True, unique_fields=targets, update_fields=fields)

    transactions.write(work)
