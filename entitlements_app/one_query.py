"""How many rows wait in each of several tables, and since when, in one query."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import DateTimeField, IntegerField, QuerySet, Subquery
from django.db.models.sql import Query

from .transactions import alias


class Waiting(NamedTuple):
    number: int
    since: datetime | None


class _Number(Subquery):
    template = "(SELECT COUNT(moment) FROM (%(subquery)s) waiting)"
    output_field = IntegerField()


class _Since(Subquery):
    template = "(SELECT MIN(moment) FROM (%(subquery)s) waiting)"
    output_field = DateTimeField()


def how_many_wait(**rows: QuerySet[Any, Any]) -> dict[str, Waiting]:
    """Of each of these, whose only value is called `moment`: how many have one, and the first of them.

    The rows may be limited, which Django's `aggregate` can do for one table at a time.
    """
    query = Query(None)
    for name, of in rows.items():
        query.add_annotation(_Number(of), f"{name}_number")
        query.add_annotation(_Since(of), f"{name}_since")
    (found,) = query.get_compiler(using=alias()).results_iter(tuple_expected=True)
    told = iter(found)
    return {name: Waiting(next(told), next(told)) for name in rows}
