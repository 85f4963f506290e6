"""Find old rows of a table that grows at its end, by primary key: no index on a date is needed, and no scan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

BATCH = 1000


def last_before(rows: QuerySet[Any], made_at: str, moment: datetime) -> int:
    """The primary key up to which rows are from before that moment, 0 if none is.

    Rows are numbered about in the order in which they are made; where they are not, a few are found a little later.
    """
    newest = rows.order_by("-pk").values_list("pk", made_at)
    low, high = 0, next((pk for pk, _ in newest[:1]), 0)
    while low < high:
        middle = (low + high + 1) // 2
        row = newest.filter(pk__lte=middle).first()
        if row is None or row[1] < moment:
            low = middle
        else:
            high = row[0] - 1
    return low


def batches(rows: QuerySet[Any], *, after: int, until: int, deadline: float) -> Iterator[QuerySet[Any]]:
    """These rows by BATCH, with primary keys above `after` and up to `until`; none once `deadline` is past."""
    pks = rows.order_by("pk").values_list("pk", flat=True)
    while time.monotonic() < deadline and (batch := list(pks.filter(pk__gt=after, pk__lte=until)[:BATCH])):
        yield rows.filter(pk__gt=after, pk__lte=batch[-1])
        after = batch[-1]
