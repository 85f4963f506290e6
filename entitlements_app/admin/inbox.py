"""The inbox: each webhook event, what it carried, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app import inbox
from entitlements_app.models import Customer, WebhookEvent
from entitlements_app.stripe_objects import CUSTOMER_DELETED, SUBSCRIPTION_PREFIX, SUMMARY_UPDATED

from .event_words import as_utc, get_meaning, get_source
from .links import Links
from .listing import AT_ONCE, Button, Choice, ListAdmin, ModeFilter, Reach, is_filtered
from .words import NOTHING, below, block, status_tag

Status = WebhookEvent.Status


class StatusFilter(Choice):
    title = gettext_lazy("status")
    parameter_name = "status__exact"
    column = "status"
    words = Status.choices


class TypeFilter(admin.SimpleListFilter):
    title = gettext_lazy("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return (
            (SUMMARY_UPDATED, _("entitlements of a customer")),
            (CUSTOMER_DELETED, _("customer deleted")),
            (SUBSCRIPTION_PREFIX, _("subscriptions")),
            ("other", _("others")),
        )

    def queryset(self, request: HttpRequest, queryset: QuerySet[WebhookEvent]) -> QuerySet[WebhookEvent]:
        value = self.value()
        if value == SUBSCRIPTION_PREFIX:
            return queryset.filter(type__startswith=SUBSCRIPTION_PREFIX)
        if value == "other":
            named = queryset.exclude(type__in=[SUMMARY_UPDATED, CUSTOMER_DELETED])
            return named.exclude(type__startswith=SUBSCRIPTION_PREFIX)
        return queryset.filter(type=value) if value in (SUMMARY_UPDATED, CUSTOMER_DELETED) else queryset


@admin.register(WebhookEvent)
class WebhookEventAdmin(ListAdmin):
    list_display = ("received_at", "state", "type_and_customer", "problem", "created_by_stripe", "mode")
    list_filter = (StatusFilter, TypeFilter, ModeFilter)
    moments = ("next_attempt_at__lte",)
    search_fields = ("stripe_id",)  # see get_search_results
    search_help_text = gettext_lazy("The whole ID of an event (evt_…) or of a customer (cus_…)")
    actions = ("replay", "dismiss")

    def get_urls(self) -> list[URLPattern]:
        replay = self.action_path("replay", self.replay_one, permission="replay_webhookevent")
        dismiss = self.action_path("dismiss", self.dismiss_one, permission="replay_webhookevent")
        return [replay, dismiss, *super().get_urls()]

    # What is found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WebhookEvent], search_term: str
    ) -> tuple[QuerySet[WebhookEvent], bool]:
        term = search_term.strip()
        if term.startswith("cus_"):
            return queryset.filter(customer_stripe_id=term), False
        return queryset.filter(stripe_id=term) if term else queryset, False

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        if term or request.GET.get("status__exact") in (Status.PENDING, Status.FAILED):
            return Reach.FOUND
        return Reach.NEWEST if is_filtered(request) else Reach.ALL

    # How it is shown

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [
            "stripe_id",
            "type",
            "state",
            "meaning",
            "problem",
            _customer_column(Links(self.admin_site, request)),
            "mode",
            "account",
            "source",
            "created_by_stripe",
            "received_at",
            "processed_at",
            "attempts",
            "carried",
        ]

    @admin.display(description=gettext_lazy("status"))
    def state(self, event: WebhookEvent) -> str:
        return status_tag(event)

    @admin.display(description=gettext_lazy("type, customer"))
    def type_and_customer(self, event: WebhookEvent) -> str:
        return below(event.type, event.customer_stripe_id or NOTHING)

    @admin.display(description=gettext_lazy("what that means"))
    def meaning(self, event: WebhookEvent) -> str:
        return get_meaning(event)

    @admin.display(description=gettext_lazy("error"))
    def problem(self, event: WebhookEvent) -> str:
        return block(event.error) if event.error else ""

    @admin.display(description=gettext_lazy("how it came"))
    def source(self, event: WebhookEvent) -> str:
        return get_source(event)

    @admin.display(description=gettext_lazy("created by Stripe (UTC)"))
    def created_by_stripe(self, event: WebhookEvent) -> str:
        return NOTHING if event.created is None else as_utc(event.created)

    @admin.display(description=gettext_lazy("payload"))
    def carried(self, event: WebhookEvent) -> str:
        if event.payload is None:
            return _("None, or forgotten: only entitlements are kept, and these for some days.")
        return block(json.dumps(event.payload, indent=2, ensure_ascii=False))

    # What may be done

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "replay_webhookevent")

    def get_buttons(self, request: HttpRequest, row: WebhookEvent) -> list[Button]:
        if row.status != Status.FAILED or not self.has_replay_permission(request):
            return []
        dismiss = self.button("dismiss", row, _("Dismiss"), _("It will count as ignored; the error stays on record."))
        if not row.customer_stripe_id:
            return [dismiss]
        title = _("What it carries is too old to count, so Stripe will be asked about the customer.")
        return [self.button("replay", row, _("Try again"), title), dismiss]

    def replay_one(self, request: HttpRequest, event: WebhookEvent) -> HttpResponse:
        if not self._each(request, event, inbox.replay, _("Tried again.")):
            text = _("It cannot be tried again: it has not failed, or names no customer. Failed ones can be dismissed.")
            self.message_user(request, text, messages.ERROR)
            return self.back(request, event)
        event.refresh_from_db()
        if event.status == Status.PROCESSED:
            self.message_user(request, _("It was tried again, and is processed."), messages.SUCCESS)
        elif event.error:
            text = _("It was tried again, and failed again: %(error)s") % {"error": event.error}
            self.message_user(request, text, messages.WARNING)
        else:
            self.message_user(request, _("It is tried again: it waits for its turn."), messages.SUCCESS)
        return self.back(request, event)

    def dismiss_one(self, request: HttpRequest, event: WebhookEvent) -> HttpResponse:
        if self._each(request, event, inbox.dismiss, _("Dismissed.")):
            self.message_user(request, _("It is dismissed, and counts as ignored."), messages.SUCCESS)
        else:
            self.message_user(request, _("Only events that have failed can be dismissed."), messages.ERROR)
        return self.back(request, event)

    @admin.action(description=gettext_lazy("Try failed events again"), permissions=["replay"])
    def replay(self, request: HttpRequest, events: QuerySet[WebhookEvent]) -> None:
        tried, refused = self._all(request, events, inbox.replay, _("Tried again."))
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

    @admin.action(description=gettext_lazy("Dismiss failed events"), permissions=["replay"])
    def dismiss(self, request: HttpRequest, events: QuerySet[WebhookEvent]) -> None:
        dismissed, refused = self._all(request, events, inbox.dismiss, _("Dismissed."))
        if dismissed:
            text = ngettext("%d event is dismissed.", "%d events are dismissed.", dismissed)
            self.message_user(request, text % dismissed, messages.SUCCESS)
        if refused:
            text = ngettext("%d event has not failed.", "%d events have not failed.", refused)
            self.message_user(request, text % refused, messages.WARNING)

    def _all(
        self, request: HttpRequest, events: QuerySet[WebhookEvent], act: Callable[[WebhookEvent], None], said: str
    ) -> tuple[int, int]:
        """With how many it worked, and with how many it did not."""
        chosen = list(events.order_by("pk").defer("payload")[: AT_ONCE + 1])
        done = [self._each(request, event, act, said) for event in chosen[:AT_ONCE]]
        self.say_if_cut(request, chosen)
        return sum(done), len(done) - sum(done)

    def _each(self, request: HttpRequest, event: WebhookEvent, act: Callable[[WebhookEvent], None], said: str) -> bool:
        try:
            act(event)
        except (ValueError, WebhookEvent.DoesNotExist):  # not as it was when it was chosen
            return False
        self.log_change(request, event, said)
        return True


def _customer_column(links: Links) -> Any:
    @admin.display(description=gettext_lazy("customer"))
    def customer(event: WebhookEvent) -> str:
        """The customer's page, if it is known here."""
        of_event = {"stripe_id": event.customer_stripe_id, "account": event.account, "livemode": event.livemode}
        row = Customer.objects.filter(**of_event).first() if event.customer_stripe_id else None
        return links.to(row) if row else event.customer_stripe_id or NOTHING

    return customer
