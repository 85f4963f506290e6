"""Two admin sites on the same rows: this app's pages, and what one would write without a thought for size."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from entitlements_app.models import ActiveEntitlement, Customer


class StockCustomerAdmin(admin.ModelAdmin):
    change_list_template = "admin/change_list.html"  # Django's own
    list_display = ("stripe_id", "name", "email", "subscriber", "livemode", "fetched_at")
    list_filter = ("livemode", "urgent")
    list_select_related = ("subscriber",)
    list_per_page = 50
    search_fields = ("stripe_id", "name", "email", "subscriber__username", "subscriber__email")


class StockActiveEntitlementAdmin(admin.ModelAdmin):
    change_list_template = "admin/change_list.html"
    list_display = ("lookup_key", "customer", "created_at", "confirmed_at")
    list_filter = ("feature",)
    list_select_related = ("customer", "feature")
    list_per_page = 50
    search_fields = ("lookup_key", "customer__stripe_id", "customer__name", "customer__email")


stock = admin.AdminSite(name="stock")
stock.register(Customer, StockCustomerAdmin)
stock.register(ActiveEntitlement, StockActiveEntitlementAdmin)

urlpatterns = [path("ours/", admin.site.urls), path("stock/", stock.urls)]
