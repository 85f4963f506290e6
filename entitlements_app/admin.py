"""Read-only pages, so that rows can be seen: all of it is Stripe's word or our record of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import inbox
from .models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    Product,
    ProductFeature,
    SyncRun,
    WebhookEvent,
)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
else:
    _TabularInline = admin.TabularInline
    _ModelAdmin = admin.ModelAdmin  # generic for the type checker only


class ReadOnlyAdmin(_ModelAdmin):
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


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


@admin.register(Customer)
class CustomerAdmin(ReadOnlyAdmin):
    list_display = ("stripe_id", "subscriber", "fetched_at", "hinted_at", "next_fetch_at", "deleted_at", "livemode")
    list_filter = ("livemode", "urgent")
    list_select_related = ("subscriber",)
    search_fields = ("stripe_id",)
    ordering = ("-pk",)
    exclude = ("claim",)


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
    ordering = ("-pk",)


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    list_display = ("kind", "started_at", "finished_at", "done", "changed", "failed", "calls", "error", "livemode")
    list_filter = ("kind", "livemode")
    search_fields = ("error",)
    ordering = ("-pk",)


@admin.register(ActiveEntitlement)
class ActiveEntitlementAdmin(ReadOnlyAdmin):
    list_display = ("lookup_key", "customer", "created_at", "confirmed_at")
    list_select_related = ("customer",)
    search_fields = ("lookup_key", "customer__stripe_id")
    ordering = ("-pk",)


@admin.register(EntitlementOverride)
class EntitlementOverrideAdmin(ReadOnlyAdmin):
    list_display = ("lookup_key", "effect", "subscriber", "starts_at", "expires_at", "author", "reason")
    list_filter = ("effect",)
    list_select_related = ("subscriber", "author")
    search_fields = ("lookup_key",)
    ordering = ("-pk",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Not by itself, but together with the subscriber, whose own page asks here."""
        page = request.resolver_match.url_name if request.resolver_match else None
        if page is None or page.startswith(f"{self.opts.app_label}_{self.opts.model_name}_"):
            return False
        return bool(super(ReadOnlyAdmin, self).has_delete_permission(request, obj))


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
    ordering = ("-pk",)


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "status", "type", "customer_stripe_id", "created_by_stripe", "stripe_id")
    list_filter = ("status", "livemode")
    search_fields = ("stripe_id", "customer_stripe_id")
    ordering = ("-pk",)
    actions = ("replay",)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """That of changing events, which is good for nothing else."""
        return request.user.has_perm("entitlements_app.change_webhookevent")

    @admin.action(description=_("Try failed events again"), permissions=["replay"])
    def replay(self, request: HttpRequest, events: QuerySet[WebhookEvent]) -> None:
        tried = refused = 0
        for event in events.order_by("pk"):
            try:
                inbox.replay(event)
                tried += 1
            except ValueError:
                refused += 1
        if tried:
            text = ngettext("%d event is tried again.", "%d events are tried again.", tried)
            self.message_user(request, text % tried, messages.SUCCESS)
        if refused:
            text = ngettext(
                "%d event has not failed, or names no customer.",
                "%d events have not failed, or name no customer.",
                refused,
            )
            self.message_user(request, text % refused, messages.WARNING)

    @admin.display(description=_("created by Stripe (UTC)"), ordering="created")
    def created_by_stripe(self, event: WebhookEvent) -> str:
        try:
            return "" if event.created is None else f"{datetime.fromtimestamp(event.created, UTC):%Y-%m-%d %H:%M:%S}"
        except (ValueError, OverflowError, OSError):  # beyond any date
            return str(event.created)
