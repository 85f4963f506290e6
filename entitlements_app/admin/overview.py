"""The overview: how many are entitled to what, what changes, and whether all is well."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import Overview

from .read_only import ReadOnlyAdmin


@admin.register(Overview)
class OverviewAdmin(ReadOnlyAdmin):
    pass
