"""Threads that meet inside the database: held at a table's door until all of them wait there."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

Work = Callable[[], Any]


class Crowd:
    """Threads with connections of their own. `join` raises what one of them raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, *work: Work) -> Crowd:
        for item in work:
            thread = threading.Thread(target=self._run, args=(item,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def _run(self, work: Work) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (it is raised by `join`)
            self._errors.append(error)
        finally:
            connection.close()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a thread hangs"
        if self._errors:
            raise self._errors[0]


def together(*work: Work) -> None:
    """Run all at once."""
    Crowd().start(*work).join()


def meeting_at(table: str, *work: Work) -> None:
    """Run all; on PostgreSQL each stops where it wants to write that table, until all of them do.

    SQLite has one door for the whole file, and whoever writes at all waits there.
    """
    with closed(table) as wait_for:
        crowd = Crowd().start(*work)
        wait_for(len(work))
    crowd.join()


@contextmanager
def closed(table: str) -> Iterator[Callable[[int], None]]:
    """Close a table to writers. Yields a function that returns when so many of them wait."""
    if connection.vendor == "sqlite":
        with _closed_file() as wait_for:
            yield wait_for
        return
    blocker = connection.copy()
    try:
        blocker.set_autocommit(False)
        with blocker.cursor() as cursor:
            cursor.execute(f"LOCK TABLE entitlements_app_{table} IN EXCLUSIVE MODE")
        yield wait_for_backends
        blocker.commit()
    finally:
        blocker.close()


@contextmanager
def _closed_file() -> Iterator[Callable[[int], None]]:
    blocker = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        yield lambda _: time.sleep(0.2)
        blocker.execute("COMMIT")
    finally:
        blocker.close()


def wait_for_backends(number: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # inside a transaction it would stay as it was
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0] >= number:
                return
        time.sleep(0.01)
    raise AssertionError(f"{number} threads never waited for the lock at once")
