"""Sync runs: what ran, how far it is, and what came of it."""

from __future__ import annotations

from django.contrib import admin

from entitlements_app.models import SyncRun

from .read_only import ReadOnlyAdmin


@admin.register(SyncRun)
class SyncRunAdmin(ReadOnlyAdmin):
    list_display = ("kind", "started_at", "finished_at", "done", "changed", "failed", "calls", "error", "livemode")
    list_filter = ("kind", "livemode")
    search_fields = ("error",)
