"""Active entitlements: who has a feature."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import ActiveEntitlement

from .read_only import ReadOnlyAdmin


@admin.register(ActiveEntitlement)
class ActiveEntitlementAdmin(ReadOnlyAdmin):
    list_display = ("lookup_key", "customer", "created_at", "confirmed_at")
    list_select_related = ("customer",)
    search_fields = ("lookup_key", "customer__stripe_id")
