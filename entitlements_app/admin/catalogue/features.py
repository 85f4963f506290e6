"""Features: listed with their products, and with how many customers are entitled to them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from entitlements_app.admin.links import Links
from entitlements_app.models import Feature, Product

from .archiving import ARCHIVE
from .attaching import ATTACH, DETACH
from .editing import EditingAdmin, entitled_column
from .pages import listed


@admin.register(Feature)
class FeatureAdmin(EditingAdmin):
    other = Product
    edits = ("add_feature", "change_feature", ARCHIVE, ATTACH, DETACH)
    search_fields = ("lookup_key", "name", "stripe_id")
    search_help_text = gettext_lazy("A part of a lookup key, a name or an ID")
    ordering = ("lookup_key", "pk")
    actions = ("archive_chosen",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feature]:
        return super().get_queryset(request).prefetch_related("product_features__product", "counts")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        links = Links(self.admin_site, request)
        return ["lookup_key", "name", "state", _products(links), entitled_column(links), "mode", "stripe_id"]


def _products(links: Links) -> Any:
    @admin.display(description=gettext_lazy("products"))
    def products(feature: Feature) -> str:
        return listed((attached.product for attached in feature.product_features.all()), links)

    return products
