"""Addresses of other pages and lists, and links to them, for who may see them.

What another app knows of the same object in Stripe is linked by a function of its own: `register_elsewhere`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, urlencode

from django.contrib import admin
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.utils import quote as quote_key
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from entitlements_app.models import Customer

from .words import NOTHING


def seen_admin(site: AdminSite, request: HttpRequest, model: type[Model]) -> ModelAdmin[Any] | None:
    """The model's pages on this site, if there are any, and who asks may see them. No query but for permissions."""
    if not site.is_registered(model):
        return None
    model_admin = site.get_model_admin(model)
    return model_admin if model_admin.has_view_permission(request) else None


def address_of(site: AdminSite, model: type[Model], name: str, row: Model | None = None) -> str:
    """The address of the page of that name in the model's admin, about a row or all. Whoever may see it."""
    full_name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}"
    return reverse(full_name, args=[] if row is None else [quote_key(row.pk)], current_app=site.name)


def page_of(site: AdminSite, request: HttpRequest, row: Model | None) -> str:
    """The address of a row's page; empty if it has none, or who asks may not see it."""
    if row is None or seen_admin(site, request, type(row)) is None:
        return ""
    return address_of(site, type(row), "change", row)


def list_of(site: AdminSite, request: HttpRequest, model: type[Model], **query: Any) -> str:
    """The address of the list of these rows of a model; empty like that of a page."""
    if seen_admin(site, request, model) is None:
        return ""
    address = address_of(site, model, "changelist")
    return f"{address}?{urlencode(query)}" if query else address


def of_mode(livemode: bool) -> dict[str, str]:
    """The rows of that mode, in the query of a list."""
    return {"livemode__exact": "1" if livemode else "0"}


Elsewhere = Callable[[AdminSite, HttpRequest, Model], Iterable[tuple[str, str]]]

_elsewhere: list[Elsewhere] = []


def register_elsewhere(find: Elsewhere) -> None:
    """From now on each page of one row links to what `find(site, request, row)` returns, among its object tools.

    These are pairs of a label and an address, of pages that who asks may see; none for a row that it does not know. It
    is asked once for a page and never for a list, so it may make a query or two. What it raises, the page raises.
    """
    _elsewhere.append(find)


def elsewhere(site: AdminSite, request: HttpRequest, row: Model) -> list[tuple[str, str]]:
    """Labels and addresses of pages about the same object in Stripe, by whoever has registered."""
    return [pair for find in _elsewhere for pair in find(site, request, row)]


def stripe_dashboard(customer: Customer) -> str:
    """The customer's page at Stripe, in its own mode and account."""
    account = f"{quote(customer.account, safe='')}/" if customer.account else ""
    mode = "" if customer.livemode else "test/"
    return f"https://dashboard.stripe.com/{account}{mode}customers/{quote(customer.stripe_id, safe='')}"


def link(address: str, text: object) -> str:
    """The bare text, if there is no address."""
    return format_html('<a href="{}">{}</a>', address, text) if address else format_html("{}", text)


class Links:
    """Links to the pages of rows, for who may see them; else the bare words."""

    def __init__(self, site: AdminSite, request: HttpRequest) -> None:
        self._site = site
        self._request = request

    def to(self, row: Model | None, text: str = "") -> str:
        return NOTHING if row is None else link(page_of(self._site, self._request, row), text or row)

    def to_list(self, text: str, model: type[Model], **query: Any) -> str:
        """To the list of these rows."""
        return link(list_of(self._site, self._request, model, **query), text)

    def column(self, name: str, description: str) -> Callable[[Any], str]:
        """A column of a list: the row that stands in this attribute."""

        @admin.display(description=description)
        def column(row: Any) -> str:
            return self.to(getattr(row, name))

        column.__name__ = name
        return column
