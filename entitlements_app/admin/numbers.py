"""Numbers that lead to their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import number_format
from django.utils.html import escape, format_html, html_safe

from entitlements_app.status import COUNTED


@html_safe
@dataclass(frozen=True)
class Number:
    """In a template: a link, or a text where there is nothing to see, or the visitor may not see it."""

    value: int
    text: str
    url: str = ""

    def __bool__(self) -> bool:
        return self.value > 0

    def __str__(self) -> str:
        return format_html('<a href="{}">{}</a>', self.url, self.text) if self.url else escape(self.text)


class Links:
    """Lists and pages of an admin site, for one visitor."""

    def __init__(self, request: HttpRequest, site: AdminSite) -> None:
        self._request = request
        self._site = site
        self._seen: dict[type[Model], bool] = {}

    def number(self, value: int, model: type[Model], **query: Any) -> Number:
        """So many of these rows. A count ends at COUNTED: then there may be more."""
        text = number_format(value, force_grouping=True)
        return Number(value, f"{text}+" if value >= COUNTED else text, self.to(model, **query) if value else "")

    def exactly(self, value: int, model: type[Model], **query: Any) -> Number:
        """The same of a number that was counted to its end."""
        return Number(value, number_format(value, force_grouping=True), self.to(model, **query) if value else "")

    def to(self, model: type[Model], **query: Any) -> str:
        """The list of these rows; empty if the visitor may not see it."""
        if not self._may_see(model):
            return ""
        address = self._reverse(model, "changelist")
        return f"{address}?{urlencode(query)}" if query else address

    def page(self, model: type[Model], pk: Any) -> str:
        """The page of that row; empty if the visitor may not see it."""
        return self._reverse(model, "change", pk) if self._may_see(model) else ""

    def _may_see(self, model: type[Model]) -> bool:
        if model not in self._seen:
            known = self._site.is_registered(model)
            self._seen[model] = known and self._site.get_model_admin(model).has_view_permission(self._request)
        return self._seen[model]

    def _reverse(self, model: type[Model], page: str, *args: Any) -> str:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
        return reverse(name, args=args, current_app=self._site.name)
