"""The overview: how many are entitled to what, what changes, and whether all is well."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from entitlements_app.models import Overview
from entitlements_app.status import get_status

from .numbers import Numbers
from .overview_counts import get_days, get_features
from .overview_status import get_facts
from .read_only import ReadOnlyAdmin


@admin.register(Overview)
class OverviewAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern]:
        """No rows, so no pages of rows."""
        view = require_safe(self.admin_site.admin_view(self.changelist_view))
        return [path("", view, name=f"{self.opts.app_label}_{self.opts.model_name}_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": _("Entitlements overview"), "crumbs": ()}
        try:
            context |= _content(Numbers(self.admin_site, request))
        except ImproperlyConfigured as error:
            context["malformed"] = str(error)
        request.current_app = self.admin_site.name
        template = "admin/entitlements_app/overview/overview.html"
        return TemplateResponse(request, template, context | (extra_context or {}))


def _content(numbers: Numbers) -> dict[str, Any]:
    status = get_status()
    livemode = status.configuration.livemode
    return {
        **get_facts(status, numbers),
        "features": get_features(livemode, numbers),
        "days": get_days(livemode, numbers),
    }
