"""The catalogue as Stripe has it: features, products, and what is attached to which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from entitlements_app.models import Feature, Product, ProductFeature

from .read_only import ReadOnlyAdmin

if TYPE_CHECKING:
    _TabularInline = admin.TabularInline[Any, Any]
else:
    _TabularInline = admin.TabularInline  # generic for the type checker only


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


@admin.register(Feature)
class FeatureAdmin(ReadOnlyAdmin):
    list_display = ("lookup_key", "name", "active", "livemode", "stripe_id")
    list_filter = ("livemode", "active")
    search_fields = ("lookup_key", "name", "stripe_id")
    ordering = ("lookup_key", "pk")

    inlines = (ProductFeatureInline,)


@admin.register(Product)
class ProductAdmin(ReadOnlyAdmin):
    list_display = ("name", "active", "features_read_at", "livemode", "stripe_id")
    list_filter = ("livemode", "active")
    search_fields = ("name", "stripe_id", "product_features__feature__lookup_key")
    ordering = ("name", "pk")
    inlines = (ProductFeatureInline,)


@admin.register(ProductFeature)
class ProductFeatureAdmin(ReadOnlyAdmin):
    list_display = ("stripe_id", "product", "feature", "livemode")
    list_filter = ("livemode",)
    list_select_related = ("product", "feature")
    search_fields = ("stripe_id", "product__name", "feature__lookup_key")
