"""Products, with their features. They are made in Stripe; what is attached to them is changed here as well."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from entitlements_app.admin.links import Links
from entitlements_app.models import Feature, Product

from .attaching import ATTACH, DETACH, AttachingAdmin
from .pages import listed


@admin.register(Product)
class ProductAdmin(AttachingAdmin):
    other = Feature
    edits = (ATTACH, DETACH)
    search_fields = ("name", "stripe_id", "product_features__feature__lookup_key")
    search_help_text = gettext_lazy("A part of a name, of an ID, or of the lookup key of one of its features")
    ordering = ("name", "pk")
    fields = ("name", "state", "mode", "stripe_id", "account", "features_read_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        return super().get_queryset(request).prefetch_related("product_features__feature")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        features = _features(Links(self.admin_site, request))
        return ["name", "state", features, "features_read_at", "mode", "stripe_id"]


def _features(links: Links) -> Any:
    @admin.display(description=gettext_lazy("features"))
    def features(product: Product) -> str:
        return listed((attached.feature for attached in product.product_features.all()), links)

    return features
