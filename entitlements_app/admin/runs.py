"""Sync runs: what ran, how far it is, and what came of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app.models import EntitlementChange, SyncRun
from entitlements_app.runs import KILLED
from entitlements_app.windows import LEASE

from .listing import Choice, ListAdmin, ModeFilter, Reach
from .words import NOTHING, Links, block, get_mode, tag

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
        return (("open", _("not ended")), ("done", _("done")), ("failed", _("failed or killed")))

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
        if run.error:
            return tag(_("killed") if run.error == KILLED else _("failed"), "ent-bad")
        if run.finished_at is not None:
            return tag(_("done"), "ent-good")
        if timezone.now() - run.seen_at < LEASE:
            return tag(_("at work"), "ent-warn")
        # Fetches of an hour share a run, which ends with the first one of a later hour.
        return tag(_("nothing more to do yet")) if run.kind == Kind.CONFIRM else tag(_("killed"), "ent-bad")

    @admin.display(description=gettext_lazy("error"))
    def why(self, run: SyncRun) -> str:
        return block(run.error)

    @admin.display(description=gettext_lazy("took"))
    def took(self, run: SyncRun) -> str:
        end = run.finished_at or run.seen_at
        seconds = max(int((end - run.started_at).total_seconds()), 0)
        if seconds < 60:
            return ngettext("%d second", "%d seconds", seconds) % seconds
        return str(timesince(run.started_at, end))

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, run: SyncRun) -> str:
        done = number_format(run.done, force_grouping=True)
        if not run.total:
            return done
        words = _("%(done)s of %(total)s") % {"done": done, "total": number_format(run.total, force_grouping=True)}
        bar = '<progress class="ent-progress" max="{}" value="{}" aria-label="{}"></progress> {}'
        return format_html(bar, run.total, min(run.done, run.total), words, words)

    @admin.display(description=gettext_lazy("mode"))
    def mode(self, run: SyncRun) -> str:
        return get_mode(run.livemode)

    def _drift(self, links: Links) -> Any:
        @admin.display(description=gettext_lazy("drift"))
        def drift(run: SyncRun) -> str:
            """How often a fetch found our copy wrong, by the likely cause."""
            counts = ((cause, getattr(run, f"drift_{cause}")) for cause in EntitlementChange.Drift)
            told = [
                [links.to_list(EntitlementChange, _changes(cause, run), f"{cause.label}: {count}")]
                for cause, count in counts
                if count
            ]
            return format_html_join(", ", "{}", told) or NOTHING

        return drift


def _changes(cause: EntitlementChange.Drift, run: SyncRun) -> str:
    return f"?drift__exact={cause.value}&livemode__exact={int(run.livemode)}"
