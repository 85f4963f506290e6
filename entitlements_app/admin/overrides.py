"""Overrides: what was granted and denied by hand. Made and ended here, and never changed."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet, TextChoices
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app import overrides
from entitlements_app.explain import read_catalogue
from entitlements_app.models import Customer, EntitlementOverride
from entitlements_app.subscriber_search import find_subscribers
from entitlements_app.wording import describe_bridge, format_moment

from .decisions import KNOWN_KEYS, Effect, answer_about, in_the_log, what_was_decided
from .links import Links
from .listing import AT_ONCE, Button, Choice, ListAdmin, Reach, is_filtered
from .override_forms import OverrideForm
from .words import NOTHING, below, tag


class State(TextChoices):
    IN_FORCE = "in_force", gettext_lazy("in force")
    TO_COME = "to_come", gettext_lazy("to come")
    OVER = "over", gettext_lazy("over")


_TONES = {State.IN_FORCE: "ent-good", State.TO_COME: "ent-warn", State.OVER: ""}


def get_state(override: EntitlementOverride) -> State:
    return State(override.period.term(timezone.now()))


class StateFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return State.choices

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = timezone.now()
        if self.value() == State.IN_FORCE:
            return queryset.in_force(now)
        if self.value() == State.TO_COME:
            return queryset.filter(starts_at__gt=now)
        return queryset.filter(expires_at__lte=now) if self.value() == State.OVER else queryset


class EffectFilter(Choice):
    title = gettext_lazy("effect")
    parameter_name = "effect__exact"
    column = "effect"
    words = Effect.choices


class BridgeFilter(Choice):
    title = gettext_lazy("kind")
    parameter_name = "bridge"
    words = (("1", gettext_lazy("bridges")), ("0", gettext_lazy("by hand")))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        is_chosen = self.value() in dict(self.words)
        return queryset.filter(bridge_livemode__isnull=self.value() == "0") if is_chosen else queryset


@admin.register(EntitlementOverride)
class EntitlementOverrideAdmin(ListAdmin):
    list_filter = (StateFilter, EffectFilter, BridgeFilter)
    list_select_related = ("subscriber", "author")
    search_fields = ("lookup_key",)  # see get_search_results
    search_help_text = gettext_lazy(
        "A lookup key, or the subscriber: its customer (cus_…), its whole name, e-mail address or primary key"
    )
    actions = ("end",)
    linked = ("subscriber", "author")
    fields = (
        "lookup_key",
        "effect",
        "state",
        "subscriber",
        "starts_at",
        "expires_at",
        "reason",
        "author",
        "created_at",
    )
    add_form_template = "admin/entitlements_app/entitlementoverride/add_form.html"

    def get_urls(self) -> list[URLPattern]:
        end = self.action_path("end", self.end_one, permission="end_entitlementoverride")
        return [end, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.add_{self.opts.model_name}")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Not by itself, but together with the subscriber, whose own page asks here."""
        page = request.resolver_match.url_name if request.resolver_match else None
        if page is None or page.startswith(f"{self.opts.app_label}_{self.opts.model_name}_"):
            return False
        return request.user.has_perm(f"{self.opts.app_label}.delete_{self.opts.model_name}")

    # What is found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EntitlementOverride], search_term: str
    ) -> tuple[QuerySet[EntitlementOverride], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if EntitlementOverride.objects.filter(lookup_key=term).exists():
            return queryset.filter(lookup_key=term), False
        return queryset.filter(subscriber__in=_subscribers(term)), False

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        if term:
            return Reach.FOUND
        return Reach.NEWEST if is_filtered(request) else Reach.ALL

    # How it is shown

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        fields = super().get_fields(request, obj)
        if isinstance(obj, EntitlementOverride) and obj.is_bridge:
            fields.insert(fields.index("expires_at") + 1, "bridge")
        return fields

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        subscriber = Links(self.admin_site, request).column("subscriber", _("subscriber"))
        return ["lookup_key", "effect_word", "state", subscriber, "period", "reason_and_author"]

    @admin.display(description=gettext_lazy("effect"))
    def effect_word(self, override: EntitlementOverride) -> str:
        effect = tag(override.get_effect_display(), "ent-good" if override.effect == Effect.GRANT else "ent-bad")
        if not override.is_bridge:
            return effect
        return below(effect, _("bridge, live mode") if override.bridge_livemode else _("bridge, test mode"))

    @admin.display(description=gettext_lazy("bridge"))
    def bridge(self, override: EntitlementOverride) -> str:
        if override.bridge_livemode:
            return _("It ends by itself when Stripe grants the key to the subscriber in live mode.")
        return _("It ends by itself when Stripe grants the key to the subscriber in test mode.")

    @admin.display(description=gettext_lazy("state"))
    def state(self, override: EntitlementOverride) -> str:
        state = get_state(override)
        return tag(state.label, _TONES[state])

    @admin.display(description=gettext_lazy("from, until"))
    def period(self, override: EntitlementOverride) -> str:
        end = override.expires_at
        until = _("for good") if end is None else _("until %(end)s") % {"end": format_moment(end)}
        if end is not None and override.is_bridge and get_state(override) is not State.OVER:
            until = describe_bridge(end)
        return below(format_moment(override.starts_at), until)

    @admin.display(description=gettext_lazy("reason, author"))
    def reason_and_author(self, override: EntitlementOverride) -> str:
        return below(Truncator(override.reason).chars(80) or NOTHING, override.author or NOTHING)

    # Grant and deny

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Through `overrides`, and not by saving a row."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            form = OverrideForm(request.POST, site=self.admin_site, request=request)
            if form.is_valid() and (
                made := form.decide(request, form.cleaned_data["subscriber"], starts=form.cleaned_data["starts"])
            ):
                self.log_addition(request, made, in_the_log(made))
                self.message_user(request, what_was_decided(made), messages.SUCCESS)
                return self._after_adding(request, made)
        else:
            form = OverrideForm(site=self.admin_site, request=request, initial=_prefilled(request))
        return self._show_form(request, form, form_url, extra_context or {})

    def _show_form(
        self, request: HttpRequest, form: OverrideForm, form_url: str, extra: dict[str, Any]
    ) -> HttpResponse:
        admin_form = AdminForm(cast(Any, form), form.get_fieldsets(), {}, model_admin=self)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Grant or deny a key"),
            "adminform": admin_form,
            "errors": form.errors,
            "inline_admin_formsets": [],
            "media": self.media + admin_form.media,
            "known_keys": list(read_catalogue()),
            "known_keys_id": KNOWN_KEYS,
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            **extra,
        }
        return self.render_change_form(request, context, add=True, form_url=form_url)

    def _after_adding(self, request: HttpRequest, made: EntitlementOverride) -> HttpResponseRedirect:
        if self.has_view_permission(request):
            return self.back(request, made)
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))

    # End

    def has_end_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "end_entitlementoverride")

    def get_buttons(self, request: HttpRequest, row: EntitlementOverride) -> list[Button]:
        state = get_state(row)
        if not self.has_end_permission(request) or state is State.OVER:
            return []
        if state is State.TO_COME:
            return [self.button("end", row, _("Call it off"), _("It is deleted, and never counts."))]
        return [self.button("end", row, _("End it now"), _("It stays on record."))]

    def end_one(self, request: HttpRequest, override: EntitlementOverride) -> HttpResponse:
        if not self._end(request, override):
            self.message_user(request, _("It is over already."), messages.ERROR)
            return self.back(request, override)
        text = _("The override has ended. Is %(subscriber)s entitled to “%(key)s” now? %(reason)s")
        self.message_user(request, text % answer_about(override), messages.SUCCESS)
        is_left = EntitlementOverride.objects.filter(pk=override.pk).exists()
        return self.back(request, override if is_left else None)

    @admin.action(description=gettext_lazy("End overrides, call off those to come"), permissions=["end"])
    def end(self, request: HttpRequest, rows: QuerySet[EntitlementOverride]) -> None:
        chosen = list(rows.order_by("pk")[: AT_ONCE + 1])
        ended = [self._end(request, override) for override in chosen[:AT_ONCE]]
        if done := sum(ended):
            text = ngettext("%d override has ended.", "%d overrides have ended.", done) % done
            self.message_user(request, text, messages.SUCCESS)
        if over := len(ended) - done:
            text = ngettext("%d override was over already.", "%d overrides were over already.", over) % over
            self.message_user(request, text, messages.WARNING)
        self.say_if_cut(request, chosen)

    def _end(self, request: HttpRequest, override: EntitlementOverride) -> bool:
        try:
            overrides.end(override)
        except ValueError:  # over, or gone
            return False
        self.log_change(request, override, _("Ended: %(override)s") % {"override": in_the_log(override)})
        return True


def _subscribers(term: str) -> list[Any]:
    """The primary keys of those whom the term names, also by a customer of theirs."""
    if term.startswith("cus_"):
        customers = Customer.objects.filter(stripe_id=term, subscriber__isnull=False)
        return list(customers.values_list("subscriber", flat=True))
    return find_subscribers(term, most=AT_ONCE, look_through=True)


def _prefilled(request: HttpRequest) -> dict[str, str]:
    """What a link to the form has filled in."""
    return {name: request.GET[name] for name in ("effect", "subscriber", "lookup_key", "reason") if name in request.GET}
