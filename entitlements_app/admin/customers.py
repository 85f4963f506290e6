"""Customers: who they are, and what they hold."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import Customer

from .customer_actions import CustomerActions
from .explain_page import ExplainPage


@admin.register(Customer)
class CustomerAdmin(CustomerActions, ExplainPage):
    change_list_template = "admin/entitlements_app/customer/change_list.html"
    list_display = ("stripe_id", "subscriber", "fetched_at", "hinted_at", "next_fetch_at", "deleted_at", "livemode")
    list_filter = ("livemode", "urgent")
    list_select_related = ("subscriber",)
    search_fields = ("stripe_id",)
