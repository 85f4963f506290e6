"""What was counted for the overview: customers of each feature, and the plot of changes. Each leads to its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.utils import timezone

from entitlements_app import counts
from entitlements_app.models import ActiveEntitlement, EntitlementChange, Feature

from . import plot
from .links import of_mode
from .numbers import Number, Numbers
from .words import active_tag, get_number, get_span

FEATURES: Final = 50


def get_features(livemode: bool, numbers: Numbers) -> dict[str, Any]:
    """The most common ones. `age` is empty if none was counted yet."""
    found = list(counts.by_feature(livemode)[: FEATURES + 1])
    counted = [row for row in found if row["counted_at"]]
    return {
        "rows": [_feature(row, numbers) for row in found[:FEATURES]],
        "are_more": len(found) > FEATURES,
        "all": numbers.list(Feature, **of_mode(livemode)),
        "age": get_span(timezone.now() - min(row["counted_at"] for row in counted)) if counted else "",
        "of_customers": get_number(max((row["of_customers"] for row in counted), default=0)),
    }


def _feature(row: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    shown = row | {
        "archived": "" if row["active"] else active_tag(False),
        "url": numbers.page(Feature(pk=row["pk"])),
    }
    if row["customers"] is None:
        return shown
    percent = plot.share(row["customers"], row["of_customers"])
    customers = numbers.exactly(row["customers"], ActiveEntitlement, feature__id__exact=row["pk"])
    return shown | {"customers": customers, "percent": percent, "bar": plot.width(percent)}


def get_days(livemode: bool, numbers: Numbers) -> dict[str, Any]:
    """The plot, and its numbers. `age` is empty if no day was counted yet."""
    days, counted_at = counts.by_day(livemode)
    drawn = plot.draw([(day.granted or 0, day.revoked or 0) for day in days])
    rows = [
        {
            "day": day.day,
            "column": column,
            "is_today": day == days[-1],
            "is_labelled": (len(days) - 1 - place) % 7 == 0,
            "kinds": list(_kinds(day, livemode, numbers)),
        }
        for place, (day, column) in enumerate(zip(days, drawn.columns, strict=True))
    ]
    return {
        "rows": rows,
        "plot": drawn,
        "lines": [(line, get_number(line.number)) for line in drawn.lines],
        "granted": get_number(sum(day.granted or 0 for day in days)),
        "revoked": get_number(sum(day.revoked or 0 for day in days)),
        "age": get_span(timezone.now() - counted_at) if counted_at else "",
    }


def _kinds(day: counts.Day, livemode: bool, numbers: Numbers) -> Iterator[Number | None]:
    """How much was granted, and how much revoked."""
    rows = {"day": day.day.isoformat(), "effective__exact": "1", **of_mode(livemode)}
    for kind, number in (("granted", day.granted), ("revoked", day.revoked)):
        yield None if number is None else numbers.exactly(number, EntitlementChange, kind__exact=kind, **rows)
