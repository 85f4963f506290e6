"""The inbox: each webhook event, and how it ended."""

from __future__ import annotations

from datetime import UTC, datetime

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from entitlements_app import inbox
from entitlements_app.models import WebhookEvent

from .read_only import ReadOnlyAdmin


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "status", "type", "customer_stripe_id", "created_by_stripe", "stripe_id")
    list_filter = ("status", "livemode")
    search_fields = ("stripe_id", "customer_stripe_id")
    actions = ("replay",)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("entitlements_app.replay_webhookevent")

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
