"""By what the change log is filtered, and in which words it says whether a change was delivered."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet, TextChoices
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _

from entitlements_app import counts
from entitlements_app.models import EntitlementChange
from entitlements_app.provisioning import NOT_SENT

from .bounded import among_newest
from .listing import Choice

_Rows = QuerySet[EntitlementChange]

DAYS = 7  # in the sidebar; links from the overview name older ones
DISORDER = 10_000  # changes that may be numbered before those of an earlier moment


class Delivery(TextChoices):
    """Whether receivers were told."""

    DELIVERED = "delivered", _("delivered")
    WAITING = "waiting", _("waiting")
    PARKED = "parked", _("parked")
    NOBODY = "nobody", _("about nobody")


_CONDITIONS = {
    Delivery.DELIVERED: Q(effective=True, delivered_at__isnull=False) & ~Q(error=NOT_SENT),
    Delivery.WAITING: Q(delivered_at=None, parked_at=None, subscriber__isnull=False),
    Delivery.PARKED: Q(delivered_at=None, parked_at__isnull=False),
    Delivery.NOBODY: Q(effective=False) | Q(error=NOT_SENT) | Q(delivered_at=None, parked_at=None, subscriber=None),
}


def get_delivery(change: EntitlementChange) -> Delivery:
    if not change.effective or change.error == NOT_SENT:
        return Delivery.NOBODY
    if change.delivered_at is not None:
        return Delivery.DELIVERED
    if change.parked_at is not None:
        return Delivery.PARKED
    return Delivery.NOBODY if change.subscriber_id is None else Delivery.WAITING


class KindFilter(Choice):
    title = _("change")
    parameter_name = "kind__exact"
    column = "kind"
    words = EntitlementChange.Kind.choices


class CauseFilter(Choice):
    title = _("cause")
    parameter_name = "cause__exact"
    column = "cause"
    words = EntitlementChange.Cause.choices


class EffectiveFilter(Choice):
    title = _("the subscriber's answer")
    parameter_name = "effective__exact"
    column = "effective"
    words = (("1", _("changed")), ("0", _("stayed as it was")))


class DeliveryFilter(admin.SimpleListFilter):
    title = _("delivery")
    parameter_name = "delivery"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return Delivery.choices

    def queryset(self, request: HttpRequest, queryset: _Rows) -> _Rows:
        value = self.value()
        return queryset.filter(_CONDITIONS[Delivery(value)]) if value in Delivery.values else queryset


class DriftFilter(admin.SimpleListFilter):
    """Names the condition of the index beside the cause."""

    title = _("drift")
    parameter_name = "drift__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [("any", _("any")), *EntitlementChange.Drift.choices]

    def queryset(self, request: HttpRequest, queryset: _Rows) -> _Rows:
        value = self.value()
        if value not in ("any", *EntitlementChange.Drift.values):
            return queryset
        drifted = queryset.exclude(drift="")
        return drifted if value == "any" else drifted.filter(drift=value)


class DayFilter(admin.SimpleListFilter):
    """A day in the site's time zone. The log has no index on dates; days that were counted know where theirs begin."""

    title = _("day")
    parameter_name = "day"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        days = [counts.today() - timedelta(days=number) for number in range(DAYS)]
        chosen = self._day()
        if chosen and chosen not in days:
            days.append(chosen)
        return [(day.isoformat(), date_format(day, "DATE_FORMAT")) for day in days]

    def queryset(self, request: HttpRequest, queryset: _Rows) -> _Rows:
        day = self._day()
        if day is None:
            return queryset
        rows = queryset.filter(
            created_at__gte=counts.start_of(day), created_at__lt=counts.start_of(day + timedelta(days=1))
        )
        keys = counts.keys_of(day)
        if keys is None:
            return among_newest(rows)
        first, last = keys
        rows = rows.filter(pk__gte=first - DISORDER)
        # Since it was counted, late ones may have come; and today goes on.
        return rows if day >= counts.today() else rows.filter(pk__lte=last + DISORDER)

    def _day(self) -> date | None:
        value = self.value()
        if not value:
            return None
        try:
            day = date.fromisoformat(value)
            return day if day.year > 1 and day.year < 9999 else None
        except ValueError as error:
            raise IncorrectLookupParameters from error
