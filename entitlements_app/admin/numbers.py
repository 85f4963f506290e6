"""Numbers that lead to their rows, and lengths of time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import escape, format_html, html_safe
from django.utils.timesince import timesince
from django.utils.translation import ngettext

from entitlements_app.status import COUNTED

from .links import list_of, page_of


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
        return Number(value, self.text(value), self.list(model, **query) if value else "")

    def text(self, value: int) -> str:
        return number_format(value, force_grouping=True)

    def list(self, model: type[Model], **query: Any) -> str:
        """The address of the list of these rows; empty if the visitor may not see it."""
        address = list_of(self._site, self._request, model)
        return f"{address}?{urlencode(query)}" if address and query else address

    def page(self, row: Model) -> str:
        """The address of that row's page; empty if the visitor may not see it."""
        return page_of(self._site, self._request, row)


def of_mode(livemode: bool) -> dict[str, str]:
    """The rows of that mode, in a query string of Django admin's."""
    return {"livemode__exact": "1" if livemode else "0"}


def span(length: timedelta) -> str:
    """About so long."""
    if length < timedelta(minutes=1):
        seconds = max(int(length.total_seconds()), 0)
        return ngettext("%d second", "%d seconds", seconds) % seconds
    now = timezone.now()
    return timesince(now - length, now, depth=1)
