"""Lists whose cost does not grow with the table.

No count goes past MOST, fifty pages, and no filter or search reads more than that many rows: who looks for one among a
million rows searches, and does not turn to page 20,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from django.core.paginator import Page, Paginator
from django.db import connections
from django.db.models import BooleanField, F, Func, QuerySet, Value
from django.utils.functional import cached_property

MOST: Final = 2_500
NEWEST: Final = 100_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic for the type checker only
    """Counts up to MOST. `is_cut`: there are more rows than that, and they are on no page.

    A page's keys are read first, so that nothing is joined but what it shows.
    """

    def page(self, number: Any) -> Page[Any]:
        number = self.validate_number(number)
        rows = cast("QuerySet[Any]", self.object_list)  # a change list has nothing else
        first = (number - 1) * self.per_page
        keys = list(rows.values_list("pk", flat=True)[first : min(first + self.per_page, self.count)])
        return Page(rows.filter(pk__in=keys), number, self)

    @cached_property
    def count(self) -> int:
        return min(self._counted, MOST)

    @property
    def is_cut(self) -> bool:
        return self._counted > MOST

    @cached_property
    def _counted(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[: MOST + 1].count()


def at_most(rows: QuerySet[Any], *, order: Sequence[str] = ()) -> QuerySet[Any]:
    """All rows that are among the first MOST of these as an index finds them: never a sort of all that match.

    `order`: that of the index, where the planner could take it for cheaper to read the table. On PostgreSQL it is asked
    at once for their primary keys: of a subquery it would not know how few it finds, and join all of them or walk the
    whole table in the list's order.
    """
    connection = connections[rows.db]
    if not connection.features.allow_sliced_subqueries_with_in:
        return rows
    all_rows: QuerySet[Any] = rows.model._default_manager.using(rows.db)
    first = rows.order_by(*order).values_list("pk", flat=True)[: MOST + 1]
    if connection.vendor != "postgresql":
        return all_rows.filter(pk__in=first)
    keys = list(first)
    return all_rows.filter(_IsAmong(keys)) if keys else all_rows.none()


class _IsAmong(Func):
    """`pk__in` of thousands, sent as one value."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()

    def __init__(self, keys: list[Any]) -> None:
        super().__init__(F("pk"), Value(keys))


def among_newest(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those of these rows that are among the NEWEST of their table: for what no index finds in a log that grows."""
    newest = rows.model._default_manager.using(rows.db).order_by("-pk").values_list("pk", flat=True).first()
    return rows if newest is None else rows.filter(pk__gt=newest - NEWEST)
