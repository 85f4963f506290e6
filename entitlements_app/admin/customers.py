"""Customers: found by whatever a person knows of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from entitlements_app.customer_search import Found, find_customers
from entitlements_app.models import Customer
from entitlements_app.subscribers import get_subscriber_model

from .customer_actions import CustomerActions
from .customer_filters import LinkFilter, StateFilter, state_tag
from .explain_page import ExplainPage
from .listing import BoundedChangeList, ListAdmin, ModeFilter, Reach
from .words import below

_NAMED = 5  # subscribers without a customer that a list names


class CustomerList(BoundedChangeList):
    """What is searched for is found before filters, so that these have little to look at."""

    found = Found()

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Customer]:
        term, self.query = self.query, ""
        if term:
            self.found = find_customers(term)
            self.root_queryset = self.root_queryset.filter(pk__in=self.found.customers)
        rows: QuerySet[Customer] = super().get_queryset(request, *args, **kwargs)
        self.query = term
        return rows

    @property
    def subscriber_kind(self) -> Any:
        return get_subscriber_model()._meta.verbose_name

    def without_customer(self) -> list[tuple[Model, str]]:
        """Subscribers whom the term names and who have no customer, each with the address of why not."""
        few = sorted(self.found.without_customer)[:_NAMED]
        rows = get_subscriber_model()._base_manager.filter(pk__in=few) if few else ()
        page = self.model_admin.page("explain")
        return [(row, f"{page}?subscriber={row.pk}") for row in rows]


@admin.register(Customer)
class CustomerAdmin(CustomerActions, ExplainPage, ListAdmin):
    change_list_template = "admin/entitlements_app/customer/change_list.html"
    list_display = ("stripe_id", "who", "state", "subscriber", "mode", "last_confirmed")
    list_filter = (StateFilter, LinkFilter, ModeFilter)
    list_select_related = ("subscriber",)
    moments = ("next_fetch_at__lte",)
    search_fields = ("stripe_id",)  # there is a search box; `customer_search` knows what for
    search_help_text = _(
        "A Stripe ID (cus_…), a whole e-mail address, the beginnings of words of a name, or the subscriber: its whole "
        "name, e-mail address or primary key."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CustomerList

    def get_reach(self, request: HttpRequest, term: str) -> Reach:
        """Its search and filters find by an index, each up to a number of its own."""
        return Reach.ALL

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Customer], search_term: str
    ) -> tuple[QuerySet[Customer], bool]:
        """For look-ups from other pages: the list has found what it searches for already."""
        return (queryset.filter(pk__in=find_customers(search_term).customers) if search_term else queryset), False

    @admin.display(description=_("name and e-mail"))
    def who(self, customer: Customer) -> str:
        if customer.name and customer.email:
            return below(customer.name, customer.email)
        return customer.name or customer.email

    @admin.display(description=_("state"))
    def state(self, customer: Customer) -> str:
        return state_tag(customer)

    @admin.display(description=_("last confirmed"))
    def last_confirmed(self, customer: Customer) -> datetime | None:
        return customer.fetched_at
