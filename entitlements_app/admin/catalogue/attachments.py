"""What is attached to which, as one list. It is changed on the pages of features and products."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from entitlements_app.admin.listing import ListAdmin, ModeFilter, Reach
from entitlements_app.models import ProductFeature


@admin.register(ProductFeature)
class ProductFeatureAdmin(ListAdmin):
    list_display = ("stripe_id", "product", "feature", "mode")
    list_filter = (ModeFilter,)
    list_select_related = ("product", "feature")
    search_fields = ("stripe_id", "product__name", "feature__lookup_key")

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        return Reach.ALL
