"""Ports for servers that are about to be started, when others on this machine look for some, too."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to outgoing connections: one of these stays free until its server starts.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as door:
            try:
                door.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("None of a hundred ports is free.")
