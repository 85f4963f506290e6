"""By what customers are filtered, and the word that says how well one is known.

Each filter is by an index: if that has another order than the list, then up to MOST.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from entitlements_app import conf
from entitlements_app.models import Customer

from .bounded import at_most
from .words import tag

_Customers = QuerySet[Customer]


def state_tag(customer: Customer) -> str:
    """The one word that matters most."""
    return tag(*_state(customer))


def _state(customer: Customer) -> tuple[str, str]:
    if customer.deleted_at:
        return gettext("deleted"), ""
    if customer.missing_since:
        return gettext("unknown to Stripe"), "ent-bad"
    if customer.account or customer.livemode is not conf.livemode():
        return gettext("not asked about"), ""
    if customer.fetch_failures:
        return gettext("cannot be fetched"), "ent-bad"
    if customer.urgent:
        return gettext("urgent"), "ent-warn"
    if customer.hinted_at:
        return gettext("marked"), "ent-warn"
    if customer.window is None:
        return gettext("not confirmed yet"), "ent-warn"
    return gettext("confirmed"), "ent-good"


class StateFilter(admin.SimpleListFilter):
    """By what is not as it should be. Fetches are due of the site's own account in the configured mode only."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [(name, words) for name, (words, _rows) in _STATES.items()]

    def queryset(self, request: HttpRequest, queryset: _Customers) -> _Customers:
        state = _STATES.get(self.value() or "")
        return state[1](queryset) if state else queryset


class LinkFilter(admin.SimpleListFilter):
    title = _("subscriber")
    parameter_name = "linked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return (("yes", _("linked to one")), ("no", _("linked to nobody")))

    def queryset(self, request: HttpRequest, queryset: _Customers) -> _Customers:
        if self.value() == "no":
            return at_most(queryset.filter(subscriber=None), order=_NEWEST)
        return at_most(queryset.exclude(subscriber=None)) if self.value() == "yes" else queryset


_NEWEST: Final = ("-livemode", "-pk")  # as the partial indexes on (livemode, id) have it


def _fetched(rows: _Customers) -> _Customers:
    return rows.filter(account="", livemode=conf.livemode(), deleted_at=None)


def _urgent(rows: _Customers) -> _Customers:
    return at_most(_fetched(rows).filter(urgent=True), order=("next_fetch_at",))


def _marked(rows: _Customers) -> _Customers:
    return at_most(_fetched(rows).filter(hinted_at__isnull=False), order=("hinted_at",))


def _due(rows: _Customers) -> _Customers:
    return at_most(_fetched(rows).filter(next_fetch_at__lte=timezone.now()), order=("next_fetch_at",))


def _missing(rows: _Customers) -> _Customers:
    return at_most(rows.filter(missing_since__isnull=False), order=_NEWEST)


def _deleted(rows: _Customers) -> _Customers:
    return at_most(rows.filter(deleted_at__isnull=False), order=_NEWEST)


_STATES: Final[dict[str, tuple[Any, Callable[[_Customers], _Customers]]]] = {
    "urgent": (_("urgent: to be fetched at once"), _urgent),
    "marked": (_("marked: news not confirmed yet"), _marked),
    "due": (_("due: to be fetched now"), _due),
    "missing": (_("unknown to Stripe"), _missing),
    "deleted": (_("deleted"), _deleted),
}
