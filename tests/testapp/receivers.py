"""Receivers of a process that a test starts: what they are told stands in a file, since they do not outlive it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from entitlements_app.models import EntitlementChange


def note(change: EntitlementChange, **_: Any) -> None:
    with Path(os.environ["TEST_SERVER_TOLD"]).open("a") as file:
        file.write(f"{os.getpid()} {change.subscriber_id} {change.pk}\n")


def note_slowly(change: EntitlementChange, **_: Any) -> None:
    time.sleep(0.02)
    note(change)


def note_and_die(change: EntitlementChange, **_: Any) -> None:
    note(change)
    os._exit(9)
