"""What the pages of features and of products have in common: their lists, and when nothing can be changed there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminToField
from django.contrib.admin.options import IS_POPUP_VAR, TO_FIELD_VAR
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app import conf
from entitlements_app.admin.bounded import MOST
from entitlements_app.admin.links import Links
from entitlements_app.admin.listing import Choice, ListAdmin, ModeFilter, Reach
from entitlements_app.admin.words import NOTHING, active_tag, get_number, get_span
from entitlements_app.models import ActiveEntitlement, Feature, FeatureCount, Product
from entitlements_app.wording import describe_mode

_M = TypeVar("_M", bound=Feature | Product)

_LISTED = 8


class ActiveFilter(Choice):
    title = gettext_lazy("state")
    parameter_name = "active__exact"
    column = "active"
    words = (("1", gettext_lazy("active")), ("0", gettext_lazy("archived")))


class CatalogueAdmin(ListAdmin):
    """Small tables, read with what belongs to each row in a query of its own."""

    list_filter = (ModeFilter, ActiveFilter)
    change_list_template = "admin/entitlements_app/catalogue/change_list.html"
    change_form_template = "admin/entitlements_app/catalogue/record.html"
    edits: tuple[str, ...] = ()  # permissions for what can be changed from here

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        return Reach.ALL

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: Feature | Product) -> str:
        return active_tag(row.active)

    def edits_any(self, request: HttpRequest) -> bool:
        """Whether who asks may change anything, if it can be changed."""
        return any(self.is_permitted(request, codename) for codename in self.edits)

    def is_permitted(self, request: HttpRequest, codename: str) -> bool:
        """As `may`, also for who may not see the rows: Django asks so for making and editing."""
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"why_not": why_not() if self.edits_any(request) else "", **(extra_context or {})}
        return super().changelist_view(request, context)

    def get_panels(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What a row's page shows besides its fields."""
        return {"why_not": why_not(row) if self.edits_any(request) else ""}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context |= {"is_popup": is_popup(request), "to_field": self.get_to_field(request)}
        if row := context.get("original"):
            context.update(self.get_panels(request, row))
        return super().render_change_form(request, context, *args, **kwargs)

    def get_to_field(self, request: HttpRequest) -> str | None:
        """The column that the form of the site's own refers to. Raises `DisallowedModelAdminToField` for another."""
        name: str | None = request.POST.get(TO_FIELD_VAR, request.GET.get(TO_FIELD_VAR))
        if name and not self.to_field_allowed(request, name):
            raise DisallowedModelAdminToField(f"{name!r} cannot be referred to.")
        return name

    def say(self, request: HttpRequest, row: Model | None, text: str, level: int) -> HttpResponseRedirect:
        """Back to the row's page, which says this first."""
        self.message_user(request, text, level)
        return self.back(request, row)


def is_popup(request: HttpRequest) -> bool:
    """Whether a form of the site's own has opened the page, to choose what is made there."""
    return IS_POPUP_VAR in request.POST or IS_POPUP_VAR in request.GET


def why_not(row: Feature | Product | None = None) -> str:
    """Why nothing, or nothing of this row, can be changed from here. Empty if something can."""
    try:
        key, livemode = conf.stripe_api_key(), conf.livemode()
    except ImproperlyConfigured as error:
        return _("Nothing can be changed from here. %(error)s") % {"error": error}
    if key is None:
        return _("Nothing can be changed from here: ENTITLEMENTS_STRIPE_API_KEY is not set.")
    if row is not None and row.account:
        return _("It is of the account %(account)s, and cannot be changed from here.") % {"account": row.account}
    if row is not None and row.livemode is not livemode:
        text = _("It is of %(its)s, and ENTITLEMENTS_STRIPE_API_KEY of %(ours)s: it cannot be changed from here.")
        return text % {"its": describe_mode(row.livemode), "ours": describe_mode(livemode)}
    return ""


def named_by(rows: QuerySet[_M], key: str | None) -> _M | None:
    """The one of these rows that has this primary key, which the browser sent."""
    try:
        return rows.filter(pk=rows.model._meta.pk.to_python(key)).first() if key else None
    except (ValidationError, OverflowError):
        return None


def entitled(feature: Feature, links: Links, *, looks: bool = False) -> str:
    """How many customers are entitled to it, how old that number is, and who they are.

    What was not counted since the feature is known is counted now if it `looks`, up to MOST.
    """
    number = next((_counted(count) for count in feature.counts.all()), "")
    if not number:
        number = _count(feature) if looks else _("not counted yet")
    return links.to_list(number, ActiveEntitlement, feature__id__exact=feature.pk)


def _count(feature: Feature) -> str:
    rows = ActiveEntitlement.objects.filter(feature=feature).granting(feature.livemode)
    found = rows.order_by()[: MOST + 1].count()
    return get_number(found) if found <= MOST else _("more than %(number)s") % {"number": get_number(MOST)}


def _counted(count: FeatureCount) -> str:
    return _("%(number)s (%(age)s ago)") % {
        "number": get_number(count.customers),
        "age": get_span(timezone.now() - count.counted_at),
    }


def name_of(row: Feature | Product) -> str:
    """As lists of the others name it."""
    return row.lookup_key if isinstance(row, Feature) else row.name or row.stripe_id


def listed(rows: Iterable[Feature | Product], links: Links) -> str:
    """The first few of them by name, in a line."""
    named = sorted(rows, key=name_of)
    if not named:
        return NOTHING
    first = format_html_join(", ", "{}", [[links.to(row, name_of(row))] for row in named[:_LISTED]])
    left = len(named) - _LISTED
    return first if left <= 0 else format_html("{} {}", first, ngettext("and %d more", "and %d more", left) % left)
