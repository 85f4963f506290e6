"""Words and links that many pages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .links import list_of, page_of

NOTHING = "–"

MODES = (("1", gettext_lazy("live mode")), ("0", gettext_lazy("test mode")))


def get_mode(livemode: bool) -> str:
    """For where it says that a mode is meant."""
    return _("live") if livemode else _("test")


def tag(word: str, tone: str = "") -> str:
    """A word that says how something is. `tone` is a class of the style sheet: `ent-good`, `ent-warn`, `ent-bad`."""
    return format_html('<span class="ent-tag {}">{}</span>', tone, word)


def below(first: object, second: object) -> str:
    """Two things in one column, the second in small letters."""
    return format_html('{}<span class="ent-below">{}</span>', first, second)


def block(text: str) -> str:
    """A text of several lines, as it is."""
    return format_html('<pre class="ent-block">{}</pre>', text) if text else NOTHING


def link(address: str, text: object) -> str:
    return format_html('<a href="{}">{}</a>', address, text)


class Links:
    """Links to the pages of rows, for who may see them; else the bare words."""

    def __init__(self, site: admin.AdminSite, request: HttpRequest) -> None:
        self._site = site
        self._request = request

    def to(self, row: Model | None, text: str = "") -> str:
        if row is None:
            return NOTHING
        address = page_of(self._site, self._request, row)
        return link(address, text or row) if address else text or str(row)

    def to_list(self, model: type[Model], query: str, text: str) -> str:
        """Of the rows that this query string finds; it begins with a question mark."""
        address = list_of(self._site, self._request, model)
        return link(address + query, text) if address else text

    def column(self, name: str, description: str) -> Callable[[Any], str]:
        """A column of a list: the row that stands in this attribute."""

        @admin.display(description=description)
        def column(row: Any) -> str:
            return self.to(getattr(row, name))

        column.__name__ = name
        return column
