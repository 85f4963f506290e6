"""Each test process has a database of its own. The first of a run migrates; the others copy what that made."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

# The processes of pytest-xdist; one that tests alone has nobody to share with.
SHARED = "PYTEST_XDIST_WORKER" in os.environ


class Original:
    """The database as migrations left it, which nobody uses, in a folder that all processes of the run share.

    Locked from its making until `shared()`, so that one process migrates while the others wait.
    """

    def __init__(self, folder: Path) -> None:
        self._made = folder / "database-made"
        self._file = folder / "database.sqlite3"
        self._lock = (folder / "database-lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.exists = self._made.exists()

    def copy(self, test: dict[str, Any]) -> None:
        """For Django, which is about to make a database as `test` says."""
        if settings.DATABASE == "sqlite":
            shutil.copyfile(self._file, test["NAME"])
        else:
            test["TEMPLATE"] = name_of(os.getppid())

    def shared(self) -> None:
        """Django has made ours: if that is the first, it is the original."""
        if not self.exists:
            connection.close()
            ours = connection.settings_dict["NAME"]
            if settings.DATABASE == "sqlite":
                shutil.copyfile(ours, self._file)
            else:
                with connection._nodb_cursor() as cursor:
                    cursor.execute(f"CREATE DATABASE {name_of(os.getppid())} TEMPLATE {ours}")
            self._made.touch()
        self._lock.close()


def name_of(run: int) -> str:
    """The original's in PostgreSQL. `run` is the process that started those that test."""
    return f"test_original_{run}"
