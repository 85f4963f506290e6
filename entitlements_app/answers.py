"""Reading answers from the database: active entitlements of a subscriber's customers, and its overrides.

A gate asks about one subscriber, on every request. Most of what such a query costs in Django is building it, so its SQL
is made by the ORM once, with marks where the parameters go, and then only executed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connections
from django.db.models import CharField, DateTimeField, Exists, Expression, Field, OuterRef, Q, Value
from django.utils import timezone

from .in_force import Period, combine
from .models import ActiveEntitlement, Customer, EntitlementOverride, Feature

_MANY = 1000  # subscribers a query: SQLite has no more than 32,766 parameters


class Reading(NamedTuple):
    """An answer as the database gave it. Times are Unix seconds of our clock."""

    subscriber_id: Any
    livemode: bool
    keys: frozenset[str]
    as_of: float
    until: float  # when an override next starts or ends, and the answer is another; infinite if none does


FOR_EVER = float("inf")


def moment(seconds: float) -> datetime:
    """Unix seconds as a datetime of this site's kind."""
    return datetime.fromtimestamp(seconds, UTC if settings.USE_TZ else None)


def read_one(subscriber_id: Any, *, livemode: bool, using: str) -> Reading:
    """What the database says now, in one query."""
    now = timezone.now()
    question, connection = _question(using), connections[using]
    rows = question.ask(connection, subscriber=subscriber_id, livemode=livemode, now=now)
    held = [key for key, effect, _, _ in rows if effect is None]
    periods = [
        Period(key, effect, question.as_time(connection, starts), question.as_time(connection, expires))
        for key, effect, starts, expires in rows
        if effect is not None
    ]
    return _reading(subscriber_id, livemode, held, periods, now)


def read_many(subscriber_ids: Collection[Any], *, livemode: bool, using: str) -> dict[Any, Reading]:
    """The same for many subscribers, in two queries for each thousand."""
    readings: dict[Any, Reading] = {}
    ids = list(subscriber_ids)
    for start in range(0, len(ids), _MANY):
        readings |= _read_some(ids[start : start + _MANY], livemode=livemode, using=using)
    return readings


def _read_some(subscriber_ids: Sequence[Any], *, livemode: bool, using: str) -> dict[Any, Reading]:
    now = timezone.now()
    parts = read_parts(subscriber_ids, since=now, livemode=livemode, using=using)
    return {pk: _reading(pk, livemode, held, periods, now) for pk, (held, periods) in parts.items()}


def read_parts(
    subscriber_ids: Sequence[Any], *, since: datetime, livemode: bool, using: str
) -> dict[Any, tuple[list[str], list[Period]]]:
    """What answers are made of: keys held, and overrides that were not over before that moment. In two queries."""
    held: defaultdict[Any, list[str]] = defaultdict(list)
    granting = ActiveEntitlement.objects.using(using).granting(livemode)
    rows = granting.filter(customer__subscriber_id__in=subscriber_ids)
    for subscriber_id, key in rows.values_list("customer__subscriber_id", "lookup_key"):
        held[subscriber_id].append(key)
    periods: defaultdict[Any, list[Period]] = defaultdict(list)
    overrides = EntitlementOverride.objects.using(using).in_mode(livemode).filter(subscriber_id__in=subscriber_ids)
    overrides = overrides.filter(Q(expires_at=None) | Q(expires_at__gte=since))
    for override in overrides.only("subscriber_id", *Period._fields):
        periods[override.subscriber_id].append(override.period)
    return {pk: (held[pk], periods[pk]) for pk in subscriber_ids}


def _reading(
    subscriber_id: Any, livemode: bool, held: Collection[str], periods: Sequence[Period], now: datetime
) -> Reading:
    if not periods:
        return Reading(subscriber_id, livemode, frozenset(held), now.timestamp(), FOR_EVER)
    keys, boundary = combine(held, periods, now=now)
    return Reading(subscriber_id, livemode, keys, now.timestamp(), boundary.timestamp() if boundary else FOR_EVER)


def read_metadata(reading: Reading, *, using: str) -> dict[str, dict[str, str]]:
    """The metadata of the features behind an answer's keys, by lookup key."""
    granting = ActiveEntitlement.objects.using(using).granting(reading.livemode)
    held = granting.filter(feature=OuterRef("pk"), customer__subscriber_id=reading.subscriber_id)
    features = Feature.objects.using(using).filter(account="", livemode=reading.livemode, lookup_key__in=reading.keys)
    rows = features.annotate(is_held=Exists(held)).order_by("is_held", "active", "pk")
    return dict(rows.values_list("lookup_key", "metadata"))  # the last of a key counts


class _Mark(Expression):
    """Stands for a parameter of SQL that is executed often: the compiled parameters hold the mark itself."""

    def __init__(self, name: str, field: Field[Any, Any]) -> None:
        super().__init__(output_field=field)
        self.name, self.of = name, field

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", [self]


class _Question(NamedTuple):
    """The compiled query, with marks among its parameters, and what makes a datetime of a column."""

    sql: str
    parameters: tuple[Any, ...]
    converters: tuple[Callable[..., Any], ...]

    def ask(self, connection: Any, **values: Any) -> Any:
        """The rows, with these values in place of the marks."""
        parameters = [
            parameter.of.get_db_prep_value(values[parameter.name], connection, prepared=False)
            if isinstance(parameter, _Mark)
            else parameter
            for parameter in self.parameters
        ]
        with connection.cursor() as cursor:
            cursor.execute(self.sql, parameters)
            return cursor.fetchall()

    def as_time(self, connection: Any, value: Any) -> Any:
        """A datetime column as Django's own queries give it."""
        for convert in self.converters:
            value = convert(value, None, connection)
        return value


@lru_cache(maxsize=16)
def _question(using: str) -> _Question:
    connection = connections[using]
    livemode: Any = _Mark("livemode", Customer._meta.get_field("livemode"))
    subscriber: Any = _Mark("subscriber", Customer._meta.get_field("subscriber"))
    now: Any = _Mark("now", EntitlementOverride._meta.get_field("starts_at"))
    nothing = Value(None, CharField()), Value(None, DateTimeField()), Value(None, DateTimeField())
    granting = ActiveEntitlement.objects.using(using).granting(livemode).filter(customer__subscriber_id=subscriber)
    overrides = EntitlementOverride.objects.using(using).not_over(now).in_mode(livemode)
    rows = (
        overrides.filter(subscriber_id=subscriber)
        .values_list("lookup_key", "effect", "starts_at", "expires_at")
        .union(granting.values_list("lookup_key", *nothing), all=True)
    )
    sql, parameters = rows.query.get_compiler(using).as_sql()
    starts_at = EntitlementOverride._meta.get_field("starts_at")
    column = starts_at.get_col("")
    converters = (*connection.ops.get_db_converters(column), *starts_at.get_db_converters(connection))
    return _Question(sql, tuple(parameters), converters)
