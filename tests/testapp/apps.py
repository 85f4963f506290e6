from __future__ import annotations

import os

from django.apps import AppConfig


class TestAppConfig(AppConfig):
    name = "tests.testapp"

    def ready(self) -> None:
        from entitlements_app.signals import entitlement_granted, entitlement_revoked

        from . import receivers

        if "TEST_SERVER_BROKER" in os.environ:  # every process of such a site has the Celery app
            from tests import celery_app  # noqa: F401

        if receiver := os.environ.get("TEST_SERVER_RECEIVER"):  # of a process that a test starts
            for signal in (entitlement_granted, entitlement_revoked):
                signal.connect(getattr(receivers, receiver))
