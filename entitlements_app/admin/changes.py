"""The change log: what was gained and lost, why, and whether receivers were told."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import CharField, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app import conf, provisioning
from entitlements_app.models import Customer, EntitlementChange, Feature
from entitlements_app.subscribers import get_key_field, read_key
from entitlements_app.wording import format_moment

from .change_filters import (
    CauseFilter,
    DayFilter,
    Delivery,
    DeliveryFilter,
    DriftFilter,
    EffectiveFilter,
    KindFilter,
    get_delivery,
)
from .links import Links
from .listing import AT_ONCE, Button, ListAdmin, ModeFilter, Reach, is_filtered
from .words import NOTHING, below, block, get_mode, kind_tag, tag

_TONES = {Delivery.DELIVERED: "ent-good", Delivery.PARKED: "ent-bad", Delivery.WAITING: "ent-warn"}


@admin.register(EntitlementChange)
class EntitlementChangeAdmin(ListAdmin):
    list_filter = (KindFilter, CauseFilter, EffectiveFilter, DeliveryFilter, DriftFilter, DayFilter, ModeFilter)
    list_select_related = ("subscriber", "customer")
    moments = ("created_at__gte",)
    search_fields = ("lookup_key",)  # see get_search_results
    search_help_text = gettext_lazy("A lookup key, a customer (cus_…) or the primary key of a subscriber")
    actions = ("resend",)
    linked = ("subscriber", "customer")
    fields = (
        "created_at",
        "lookup_key",
        "change",
        "cause",
        "effective",
        "drift",
        "subscriber",
        "customer",
        "mode",
        "delivery",
        "attempts",
        "next_attempt_at",
        "delivered_at",
        "parked_at",
        "receivers_told",
        "last_error",
    )

    def get_urls(self) -> list[URLPattern]:
        resend = self.action_path("resend", self.resend_one, permission="resend_entitlementchange")
        return [resend, *super().get_urls()]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        links = Links(self.admin_site, request)
        return [
            "created_at",
            "lookup_key",
            "change_and_cause",
            _whose(links),
            "delivery",
            "drift",
            "mode",
        ]

    # What is found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EntitlementChange], search_term: str
    ) -> tuple[QuerySet[EntitlementChange], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        customers = list(Customer.objects.filter(stripe_id=term).values_list("pk", flat=True)) if _is_id(term) else []
        if customers:
            return queryset.filter(customer_id__in=customers), False
        if _is_key(term) and not Feature.objects.filter(lookup_key=term).exists():
            return queryset.filter(subscriber_id=read_key(term)), False
        return queryset.filter(lookup_key=term), False

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        if _is_id(term) or _is_key(term):
            return Reach.FOUND
        if request.GET.get("delivery") in (Delivery.WAITING, Delivery.PARKED) or request.GET.get("drift__exact"):
            return Reach.FOUND
        if request.GET.get("day") or not is_filtered(request):
            return Reach.ALL  # it knows about which keys the day's rows have; the index of keys has their order
        return Reach.NEWEST

    # How it is shown

    @admin.display(description=gettext_lazy("change"))
    def change(self, change: EntitlementChange) -> str:
        return kind_tag(change)

    @admin.display(description=gettext_lazy("change, cause"))
    def change_and_cause(self, change: EntitlementChange) -> str:
        return below(kind_tag(change), change.get_cause_display())

    @admin.display(description=gettext_lazy("mode"))
    def mode(self, row: EntitlementChange) -> str:
        return get_mode(row.livemode)

    @admin.display(description=gettext_lazy("delivery"))
    def delivery(self, change: EntitlementChange) -> str:
        delivery = get_delivery(change)
        word = str(delivery.label)
        if delivery is Delivery.WAITING and change.attempts:
            tries = ngettext("failed %d time", "failed %d times", change.attempts) % change.attempts
            word = _("%(waiting)s, %(tries)s") % {"waiting": word, "tries": tries}
        return tag(word, _TONES.get(delivery, ""))

    @admin.display(description=gettext_lazy("receivers that are done"))
    def receivers_told(self, change: EntitlementChange) -> str:
        return block("\n".join(map(str, change.receivers_done))) if change.receivers_done else NOTHING

    @admin.display(description=gettext_lazy("error"))
    def last_error(self, change: EntitlementChange) -> str:
        return block(change.error)

    # What may be done

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "resend_entitlementchange")

    def get_buttons(self, request: HttpRequest, row: EntitlementChange) -> list[Button]:
        if get_delivery(row) is not Delivery.PARKED or not self.has_resend_permission(request):
            return []
        title = _("Calls the receivers again that have not succeeded.")
        return [self.button("resend", row, _("Send again"), title)]

    def resend_one(self, request: HttpRequest, change: EntitlementChange) -> HttpResponse:
        refusal = self._resend(request, change)
        if refusal:
            self.message_user(request, refusal, messages.ERROR)
            return self.back(request, change)
        change.refresh_from_db()
        said, level = _what_came_of_it(change)
        self.message_user(request, said, level)
        return self.back(request, change)

    @admin.action(description=gettext_lazy("Send parked changes again"), permissions=["resend"])
    def resend(self, request: HttpRequest, changes: QuerySet[EntitlementChange]) -> None:
        chosen = list(changes.order_by("pk")[: AT_ONCE + 1])
        refusals = [self._resend(request, change) for change in chosen[:AT_ONCE]]
        sent = sum(not refusal for refusal in refusals)
        if sent:
            text = ngettext("%d change is sent again.", "%d changes are sent again.", sent) % sent
            self.message_user(request, text, messages.SUCCESS)
        for refusal in sorted({refusal for refusal in refusals if refusal}):
            self.message_user(request, refusal, messages.WARNING)
        self.say_if_cut(request, chosen)

    def _resend(self, request: HttpRequest, change: EntitlementChange) -> str:
        """What speaks against it; empty if it is sent."""
        try:
            is_sent = get_delivery(change) is Delivery.PARKED and provisioning.resend(change, only_parked=True)
        except ValueError:
            return _("The subscriber was deleted: there is nobody left whose change it could be.")
        if not is_sent:
            return _("Only parked changes are sent again: others are delivered, wait for their turn or concern nobody.")
        self.log_change(request, change, _("Sent again."))
        return ""


def _whose(links: Links) -> Any:
    @admin.display(description=gettext_lazy("subscriber, customer"))
    def whose(change: EntitlementChange) -> str:
        """Whose answer it is about, and below at which customer."""
        subscriber = links.to(change.subscriber)
        if change.customer is None:
            return subscriber
        return below(subscriber, links.to(change.customer))

    return whose


def _is_id(term: str) -> bool:
    return term.startswith("cus_")


def _is_key(term: str) -> bool:
    """Whether the term looks like a primary key of subscribers, and like nothing else: where these are texts, never."""
    return bool(term) and not isinstance(get_key_field(), CharField) and read_key(term) is not None


def _what_came_of_it(change: EntitlementChange) -> tuple[str, int]:
    if change.delivered_at is not None:
        return _("It was sent again, and every receiver succeeded."), messages.SUCCESS
    if change.attempts and change.next_attempt_at is not None:
        at = format_moment(change.next_attempt_at)
        return _("It was sent again, and failed again. The next attempt is on %(at)s.") % {"at": at}, messages.WARNING
    if change.livemode is not conf.livemode():
        return _("It waits until this site runs in the mode of the change."), messages.WARNING
    return _("It is sent again: it waits for its turn."), messages.SUCCESS
