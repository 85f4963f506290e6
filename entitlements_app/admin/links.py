"""Addresses of other pages, for who may see them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.utils import quote as quote_key
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from entitlements_app.models import Customer


def seen_admin(site: AdminSite, request: HttpRequest, model: type[Model]) -> ModelAdmin[Any] | None:
    """The model's pages on this site, if there are any, and who asks may see them. No query but for permissions."""
    if not site.is_registered(model):
        return None
    model_admin = site.get_model_admin(model)
    return model_admin if model_admin.has_view_permission(request) else None


def page_of(site: AdminSite, request: HttpRequest, row: Model | None) -> str:
    """The address of a row's page; empty if it has none, or who asks may not see it."""
    if row is None or seen_admin(site, request, type(row)) is None:
        return ""
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_change"
    return reverse(name, args=[quote_key(row.pk)], current_app=site.name)


def list_of(site: AdminSite, request: HttpRequest, model: type[Model]) -> str:
    """The address of a model's list; empty like that of a page."""
    if seen_admin(site, request, model) is None:
        return ""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return reverse(name, current_app=site.name)


def stripe_dashboard(customer: Customer) -> str:
    """The customer's page at Stripe, in its own mode and account."""
    account = f"{quote(customer.account, safe='')}/" if customer.account else ""
    mode = "" if customer.livemode else "test/"
    return f"https://dashboard.stripe.com/{account}{mode}customers/{quote(customer.stripe_id, safe='')}"
