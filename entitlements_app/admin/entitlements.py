"""Active entitlements: who has a feature, and what a customer holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.counts import today
from entitlements_app.customer_search import find_customers
from entitlements_app.models import ActiveEntitlement, Customer, Feature
from entitlements_app.subscriber_search import can_be_found

from .csv_export import as_csv, streamed
from .links import Links
from .listing import Choice, ListAdmin
from .words import MODES, below, get_mode

MOST_FEATURES = 2000  # in the filter: who has more of them searches

COLUMNS = (
    "lookup_key",
    "feature",
    "feature_name",
    "customer",
    "email",
    "name",
    "subscriber_id",
    "subscriber",
    "mode",
    "since",
    "confirmed",
)


class FeatureFilter(admin.SimpleListFilter):
    """A list to choose from: a site may have hundreds of features."""

    title = gettext_lazy("feature")
    parameter_name = "feature__id__exact"
    template = "admin/entitlements_app/one_of_many.html"
    other_parameters: list[tuple[str, str]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        features = Feature.objects.order_by("lookup_key", "livemode", "pk")[:MOST_FEATURES]
        return [(str(feature.pk), _named(feature)) for feature in features]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        others = [(name, value) for name, value in changelist.params.items() if name != self.parameter_name]
        self.other_parameters = others
        yield {"value": "", "display": _("All"), "selected": not self.value()}
        for value, display in self.lookup_choices:
            yield {"value": value, "display": display, "selected": value == self.value()}

    def queryset(self, request: HttpRequest, queryset: QuerySet[ActiveEntitlement]) -> QuerySet[ActiveEntitlement]:
        value = self.value()
        if not value:
            return queryset
        if not value.isascii() or not value.isdigit() or len(value) > 18:
            raise IncorrectLookupParameters
        return queryset.filter(feature_id=int(value))


def _named(feature: Feature) -> str:
    name = f"{feature.lookup_key}: {feature.name}" if feature.name else feature.lookup_key
    return _("%(name)s (%(mode)s mode)") % {"name": name, "mode": get_mode(feature.livemode)}


class FeatureModeFilter(Choice):
    """By the few features of a mode, whose numbers the database can plan with."""

    title = gettext_lazy("mode")
    parameter_name = "feature__livemode__exact"
    words = MODES

    def queryset(self, request: HttpRequest, queryset: QuerySet[ActiveEntitlement]) -> QuerySet[ActiveEntitlement]:
        if self.value() not in dict(MODES):
            return queryset
        return queryset.filter(feature_id__in=_pks(Feature.objects.filter(livemode=self.value() == "1")))


@admin.register(ActiveEntitlement)
class ActiveEntitlementAdmin(ListAdmin):
    list_filter = (FeatureFilter, FeatureModeFilter)
    list_select_related = ("customer__subscriber", "feature")
    search_fields = ("lookup_key",)  # see get_search_results
    search_help_text = gettext_lazy("A lookup key, or a customer: cus_… or an e-mail address")
    linked = ("feature", "customer")
    fields = ("lookup_key", "feature", "customer", "mode", "created_at", "confirmed_at", "stripe_id")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        links = Links(self.admin_site, request)
        return [
            "lookup_key",
            _whose(links),
            "mode",
            "created_at",
            "confirmed_at",
        ]

    @admin.display(description=gettext_lazy("mode"))
    def mode(self, row: ActiveEntitlement) -> str:
        return get_mode(row.feature.livemode, row.feature.account)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ActiveEntitlement], search_term: str
    ) -> tuple[QuerySet[ActiveEntitlement], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if not can_be_found(term):
            return queryset.none(), False
        if "@" in term:
            return queryset.filter(customer_id__in=find_customers(term).customers), False
        customers = _pks(Customer.objects.filter(stripe_id=term)) if term.startswith("cus_") else []
        if customers:
            return queryset.filter(customer_id__in=customers), False
        features = Feature.objects.filter(lookup_key=term)
        like = Q(lookup_key__icontains=term) | Q(name__icontains=term)
        return queryset.filter(feature_id__in=_pks(features) or _pks(Feature.objects.filter(like))), False

    # Export

    def get_urls(self) -> list[URLPattern]:
        export = self.list_action_path("export", self.export, permission="export_activeentitlement")
        return [export, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = dict(extra_context or {})
        if self.may(request, "export_activeentitlement"):
            context["export_address"] = f"{self.page('export')}?{request.GET.urlencode()}"
        return super().changelist_view(request, context)

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """All rows that the list is about, however many."""
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(self.page("changelist") + "?e=1")
        said = _("Exported as CSV: %(rows)s") % {"rows": request.GET.urlencode() or _("all rows")}
        self.log_list_action(request, _("active entitlements"), said)
        return streamed(request, as_csv(rows, COLUMNS, _cells), name=f"active-entitlements-{today():%Y-%m-%d}.csv")


def _whose(links: Links) -> Any:
    @admin.display(description=gettext_lazy("customer, subscriber"))
    def whose(entitlement: ActiveEntitlement) -> str:
        customer = entitlement.customer
        return below(links.to(customer), links.to(customer.subscriber))

    return whose


def _cells(entitlement: ActiveEntitlement) -> tuple[Any, ...]:
    """In the order of COLUMNS. These words are for programs, so they are not translated."""
    customer, feature = entitlement.customer, entitlement.feature
    return (
        entitlement.lookup_key,
        feature.stripe_id,
        feature.name,
        customer.stripe_id,
        customer.email,
        customer.name,
        customer.subscriber_id,
        customer.subscriber,
        "live" if customer.livemode else "test",
        entitlement.created_at.isoformat(),
        entitlement.confirmed_at.isoformat() if entitlement.confirmed_at else None,
    )


def _pks(rows: QuerySet[Any]) -> list[int]:
    return list(rows.values_list("pk", flat=True)[:MOST_FEATURES])
