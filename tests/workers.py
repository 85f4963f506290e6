"""Celery workers in processes of their own, on the database of the test; and brokers that are not there."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.server import ROOT, environment


class Worker:
    """`celery worker`, by default with one slot in the process itself, so that a kill takes it all."""

    def __init__(self, broker: str, *options: str, **variables: str) -> None:
        self._env = environment(TEST_SERVER_BROKER=broker, **variables)
        self._options = options or ("--pool=solo",)
        self._folder = Path(tempfile.mkdtemp(prefix="entitlements-worker-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        quick = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO")
        # Beat's own keeps a file, which Python 3.13 and newer find locked for ten seconds and more.
        beat = ("--scheduler=celery.beat.Scheduler",) if "-B" in self._options else ()
        command = [sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker", *quick, *self._options, *beat]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, env=self._env, cwd=ROOT, stdout=log, stderr=log)
        wait_until(lambda: " ready." in self.log)
        return self

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def kill(self) -> None:
        """As the kernel does it: no handler runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # Who has children has to end them.
            self._end(signal.SIGKILL if self._options == ("--pool=solo",) else signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class SilentBroker:
    """Accepts connections and never answers; with `hangs_up`, ends each at once. Counts them."""

    def __init__(self, *, hangs_up: bool = False) -> None:
        self.connections = 0
        self._hangs_up = hangs_up
        self._held: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                held, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.connections += 1
            if self._hangs_up:
                held.close()
            else:
                self._held.append(held)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for held in self._held:
            held.close()


class BreakingProxy:
    """Stands before a broker. Once told to, it ends the connection as soon as the client says something more."""

    def __init__(self, unix_socket: str) -> None:
        self.breaks = False
        self._target = unix_socket
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:  # closed
                return
            broker = socket.socket(socket.AF_UNIX)
            broker.connect(self._target)
            for pair in ((client, broker), (broker, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with source, target, suppress(OSError):
            while data := source.recv(65536):
                if self.breaks and source.family == socket.AF_INET:
                    self.breaks = False
                    return
                target.sendall(data)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
