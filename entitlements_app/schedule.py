"""What beat sends, and how often. Imports neither Celery nor models, so that settings can import it.

A message that no worker has taken within a minute expires: after an hour without workers the next ones have a few to
do, not hundreds.
"""

from __future__ import annotations

from typing import Any, Final


def _every(seconds: float, task: str) -> dict[str, Any]:
    return {"task": f"entitlements_app.tasks.{task}", "schedule": seconds, "options": {"expires": 60}}


BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "entitlements: process events": _every(10.0, "process_events"),
    "entitlements: deliver changes": _every(30.0, "deliver_changes"),
    "entitlements: expire overrides": _every(60.0, "expire_overrides"),
    "entitlements: confirm customers": _every(60.0, "confirm_customers"),
    # They look whether they are due, so that beat may be started anew at any time.
    "entitlements: backfill events": _every(60.0, "backfill_events"),
    "entitlements: sync the catalogue": _every(60.0, "sync_catalog"),
    "entitlements: purge history": _every(60.0, "purge_history"),
    "entitlements: count for the overview": _every(60.0, "count_for_overview"),
}
