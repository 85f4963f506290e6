"""The Celery app of a site: what docs/operations.md tells to write. `TEST_SERVER_BEAT` makes beat quicker."""

from __future__ import annotations

import os

from celery import Celery

from entitlements_app.schedule import BEAT_SCHEDULE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

app = Celery("tests")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.beat_schedule = BEAT_SCHEDULE
app.autodiscover_tasks()

if "TEST_SERVER_BEAT" in os.environ:
    seconds = float(os.environ["TEST_SERVER_BEAT"])
    app.conf.beat_schedule = {name: entry | {"schedule": seconds} for name, entry in BEAT_SCHEDULE.items()}
