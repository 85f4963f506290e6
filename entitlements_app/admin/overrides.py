"""Overrides: what was granted and denied by hand."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from entitlements_app.models import EntitlementOverride

from .read_only import ReadOnlyAdmin


@admin.register(EntitlementOverride)
class EntitlementOverrideAdmin(ReadOnlyAdmin):
    list_display = ("lookup_key", "effect", "subscriber", "starts_at", "expires_at", "author", "reason")
    list_filter = ("effect",)
    list_select_related = ("subscriber", "author")
    search_fields = ("lookup_key",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Not by itself, but together with the subscriber, whose own page asks here."""
        page = request.resolver_match.url_name if request.resolver_match else None
        if page is None or page.startswith(f"{self.opts.app_label}_{self.opts.model_name}_"):
            return False
        return bool(super(ReadOnlyAdmin, self).has_delete_permission(request, obj))
