"""Customers: who they are, and what they hold."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import Customer

from .read_only import ReadOnlyAdmin


@admin.register(Customer)
class CustomerAdmin(ReadOnlyAdmin):
    list_display = ("stripe_id", "subscriber", "fetched_at", "hinted_at", "next_fetch_at", "deleted_at", "livemode")
    list_filter = ("livemode", "urgent")
    list_select_related = ("subscriber",)
    search_fields = ("stripe_id",)
    exclude = ("claim",)
