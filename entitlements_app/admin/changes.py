"""The change log, and whether it was delivered."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import EntitlementChange

from .read_only import ReadOnlyAdmin


@admin.register(EntitlementChange)
class EntitlementChangeAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "lookup_key",
        "kind",
        "cause",
        "effective",
        "subscriber",
        "customer",
        "delivered_at",
        "parked_at",
        "livemode",
    )
    list_filter = (
        "kind",
        "cause",
        "effective",
        ("delivered_at", admin.EmptyFieldListFilter),
        ("parked_at", admin.EmptyFieldListFilter),
        "livemode",
    )
    list_select_related = ("subscriber", "customer")
    search_fields = ("lookup_key", "customer__stripe_id")
