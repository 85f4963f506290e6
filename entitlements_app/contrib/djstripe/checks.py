"""System checks of a site that runs beside dj-stripe. Ids: see entitlements_app.checks."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage


def check_plugged_in(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    return []
