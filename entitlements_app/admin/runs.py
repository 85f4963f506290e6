"""Sync runs: what ran, how far it is, and what came of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import EntitlementChange, SyncRun

from .links import Links, of_mode
from .listing import Choice, ListAdmin, ModeFilter, Reach
from .words import NOTHING, block, get_number, get_span, run_tag

Kind = SyncRun.Kind


class KindFilter(Choice):
    title = gettext_lazy("kind")
    parameter_name = "kind__exact"
    column = "kind"
    words = Kind.choices


class OutcomeFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return (("open", _("not ended")), ("done", _("done")), ("failed", _("failed or broke off")))

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == "open":
            return queryset.filter(finished_at=None)
        if self.value() == "done":
            return queryset.filter(finished_at__isnull=False, error="")
        return queryset.exclude(error="") if self.value() == "failed" else queryset


@admin.register(SyncRun)
class SyncRunAdmin(ListAdmin):
    """A small table: it is purged."""

    list_filter = (KindFilter, OutcomeFilter, ModeFilter)
    search_fields = ("error",)
    search_help_text = gettext_lazy("A part of an error")

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        return Reach.NEWEST if term or request.GET.get("state") else Reach.ALL

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        drift = self._drift(Links(self.admin_site, request))
        return ["kind", "started_at", "state", "took", "progress", "changed", "failed", "calls", drift, "mode"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        first = ["kind", "state", "why", "progress", "started_at", "took", "seen_at", "finished_at"]
        return [*first, "changed", "failed", "calls", self._drift(Links(self.admin_site, request)), "mode", "account"]

    @admin.display(description=gettext_lazy("state"))
    def state(self, run: SyncRun) -> str:
        return run_tag(run.kind, run, timezone.now())

    @admin.display(description=gettext_lazy("error"))
    def why(self, run: SyncRun) -> str:
        return block(run.error)

    @admin.display(description=gettext_lazy("took"))
    def took(self, run: SyncRun) -> str:
        end = run.finished_at or run.seen_at
        return get_span(end - run.started_at, units=2)

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, run: SyncRun) -> str:
        done = get_number(run.done)
        if not run.total:
            return done
        words = _("%(done)s of %(total)s") % {"done": done, "total": get_number(run.total)}
        bar = '<progress max="{}" value="{}" aria-label="{}"></progress> {}'
        return format_html(bar, run.total, min(run.done, run.total), words, words)

    def _drift(self, links: Links) -> Any:
        @admin.display(description=gettext_lazy("drift"))
        def drift(run: SyncRun) -> str:
            """How often a fetch found our copy wrong, by the likely cause."""
            of_run = of_mode(run.livemode)
            told = [
                [links.to_list(f"{cause.label}: {number}", EntitlementChange, drift__exact=cause.value, **of_run)]
                for cause in EntitlementChange.Drift
                if (number := getattr(run, f"drift_{cause}"))
            ]
            return format_html_join(", ", "{}", told) or NOTHING

        return drift
