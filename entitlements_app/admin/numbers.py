"""Numbers that lead to their rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import html_safe

from entitlements_app.status import COUNTED

from .links import link, list_of, page_of
from .words import get_number


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
        return link(self.url, self.text)


class Numbers:
    """Numbers on an admin site, and addresses of lists, for one visitor."""

    def __init__(self, site: AdminSite, request: HttpRequest) -> None:
        self._site = site
        self._request = request

    def counted(self, value: int, model: type[Model], **query: Any) -> Number:
        """So many of these rows. A count ends at COUNTED: then there may be more."""
        number = self.exactly(value, model, **query)
        return replace(number, text=f"{number.text}+") if value >= COUNTED else number

    def exactly(self, value: int, model: type[Model], **query: Any) -> Number:
        """The same of a number that was counted to its end."""
        return Number(value, get_number(value), self.list(model, **query) if value else "")

    def list(self, model: type[Model], **query: Any) -> str:
        """The address of the list of these rows; empty if the visitor may not see it."""
        return list_of(self._site, self._request, model, **query)

    def page(self, row: Model) -> str:
        """The address of that row's page; empty if the visitor may not see it."""
        return page_of(self._site, self._request, row)
