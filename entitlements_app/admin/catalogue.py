"""The catalogue as Stripe has it: features, products, what is attached to which, and how many are entitled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app.models import ActiveEntitlement, Feature, FeatureCount, Product, ProductFeature

from .links import Links
from .listing import Choice, ListAdmin, ModeFilter, Reach
from .words import NOTHING, active_tag, get_number, get_span

if TYPE_CHECKING:
    _TabularInline = admin.TabularInline[Any, Any]
else:
    _TabularInline = admin.TabularInline  # generic for the type checker only

_LISTED = 8


class ActiveFilter(Choice):
    title = gettext_lazy("state")
    parameter_name = "active__exact"
    column = "active"
    words = (("1", gettext_lazy("active")), ("0", gettext_lazy("archived")))


class ProductFeatureInline(_TabularInline):
    """Of a product its features, of a feature its products."""

    model = ProductFeature
    fields = ("product", "feature", "stripe_id")
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProductFeature]:
        return super().get_queryset(request).select_related("product", "feature")


class CatalogueAdmin(ListAdmin):
    """Small tables, read with what belongs to each row in a query of its own."""

    list_filter = (ModeFilter, ActiveFilter)
    inlines = (ProductFeatureInline,)

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        return Reach.ALL

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: Feature | Product) -> str:
        return active_tag(row.active)


@admin.register(Feature)
class FeatureAdmin(CatalogueAdmin):
    search_fields = ("lookup_key", "name", "stripe_id")
    search_help_text = gettext_lazy("A part of a lookup key, a name or an ID")
    ordering = ("lookup_key", "pk")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feature]:
        return super().get_queryset(request).prefetch_related("product_features__product", "counts")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        links = Links(self.admin_site, request)
        return ["lookup_key", "name", "state", _products(links), self._entitled(links), "mode", "stripe_id"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[Any, ...]:
        return (self._entitled(Links(self.admin_site, request)),)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        own = ["lookup_key", "name", "state", "mode", "stripe_id", "account", "metadata", "attached_at", "detached_at"]
        return [*own, *self.get_readonly_fields(request, obj)]

    def _entitled(self, links: Links) -> Any:
        @admin.display(description=gettext_lazy("customers entitled"))
        def entitled(feature: Feature) -> str:
            """The number and its age, and who they are."""
            number = next((_counted(count) for count in feature.counts.all()), _("not counted yet"))
            return links.to_list(number, ActiveEntitlement, feature__id__exact=feature.pk)

        return entitled


def _counted(count: FeatureCount) -> str:
    return _("%(number)s (%(age)s ago)") % {
        "number": get_number(count.customers),
        "age": get_span(timezone.now() - count.counted_at),
    }


def _products(links: Links) -> Any:
    @admin.display(description=gettext_lazy("products"))
    def products(feature: Feature) -> str:
        rows = [attached.product for attached in feature.product_features.all()]
        return _listed([links.to(row, row.name or row.stripe_id) for row in sorted(rows, key=lambda row: row.name)])

    return products


def _features(links: Links) -> Any:
    @admin.display(description=gettext_lazy("features"))
    def features(product: Product) -> str:
        rows = [attached.feature for attached in product.product_features.all()]
        return _listed([links.to(row, row.lookup_key) for row in sorted(rows, key=lambda row: row.lookup_key)])

    return features


def _listed(rows: Sequence[str]) -> str:
    if not rows:
        return NOTHING
    listed = format_html_join(", ", "{}", [[row] for row in rows[:_LISTED]])
    left = len(rows) - _LISTED
    return listed if left <= 0 else format_html("{} {}", listed, ngettext("and %d more", "and %d more", left) % left)


@admin.register(Product)
class ProductAdmin(CatalogueAdmin):
    search_fields = ("name", "stripe_id", "product_features__feature__lookup_key")
    search_help_text = gettext_lazy("A part of a name, of an ID, or of the lookup key of one of its features")
    ordering = ("name", "pk")
    fields = ("name", "state", "mode", "stripe_id", "account", "features_read_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        return super().get_queryset(request).prefetch_related("product_features__feature")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        features = _features(Links(self.admin_site, request))
        return ["name", "state", features, "features_read_at", "mode", "stripe_id"]


@admin.register(ProductFeature)
class ProductFeatureAdmin(ListAdmin):
    list_display = ("stripe_id", "product", "feature", "mode")
    list_filter = (ModeFilter,)
    list_select_related = ("product", "feature")
    search_fields = ("stripe_id", "product__name", "feature__lookup_key")

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        return Reach.ALL
