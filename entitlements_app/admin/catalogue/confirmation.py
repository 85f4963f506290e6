"""A page between a button and what it does: it says what will happen, to how many, and when. A POST leads to a POST."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from .attempts import KEY, Trouble
from .pages import CatalogueAdmin

CONFIRMED = "confirmed"  # the name of a hidden input


def is_confirmed(request: HttpRequest) -> bool:
    return CONFIRMED in request.POST


class ConfirmingAdmin(CatalogueAdmin):
    def ask(
        self,
        request: HttpRequest,
        row: Model | None,
        *,
        template: str,
        title: str,
        button: str,
        hidden: dict[str, Any],
        trouble: Trouble | None = None,
        **context: Any,
    ) -> HttpResponse:
        """Show the page about a row, or several. Its form is sent to where the page is, with `hidden`.

        `trouble`: what came of the last try. With it the form brings its key.
        """
        if trouble is not None and KEY in hidden:
            hidden = {**hidden, KEY: trouble.key}
        request.current_app = self.admin_site.name  # for {% url %}
        values = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "crumbs": self._crumbs(row),
            "row": row,
            "button": button,
            "hidden": [(CONFIRMED, "1"), *hidden.items()],
            "trouble": trouble,
            "way_back": self.page("changelist") if row is None else self.page("change", row),
            **context,
        }
        return TemplateResponse(request, f"admin/entitlements_app/catalogue/{template}.html", values)

    def _crumbs(self, row: Model | None) -> list[tuple[str, str]]:
        app = reverse("admin:app_list", args=[self.opts.app_label], current_app=self.admin_site.name)
        crumbs = [
            (app, str(self.opts.app_config.verbose_name)),
            (self.page("changelist"), str(capfirst(self.opts.verbose_name_plural))),
        ]
        return crumbs if row is None else [*crumbs, (self.page("change", row), str(row))]


def when_it_counts() -> str:
    """Said of each change: subscriptions are slow to follow."""
    return _(
        "Nobody gains or loses anything here and now. New subscriptions follow at once; those that exist follow when "
        "their next billing period begins, and Stripe may take longer."
    )
