"""A running site: this project on a port, in a process of its own, on the database of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from django.db import connection

from entitlements_app.testing import StripeSimulator
from example_project.free_ports import free_port

ROOT = Path(__file__).parent.parent


def environment(**variables: str) -> dict[str, str]:
    """For a process that joins the database of the test."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TEST_SERVER_DATABASE": str(connection.settings_dict["NAME"]),
        "TEST_SERVER_POSTGRES": json.dumps(
            {name: connection.settings_dict[name] for name in ("HOST", "PORT", "USER", "PASSWORD")}
        ),
        **variables,
    }


class Server:
    """Start it, kill it, start it again: it keeps its address."""

    def __init__(self, stripe: StripeSimulator, **variables: str) -> None:
        self.port = free_port()
        of_stripe = {"TEST_SERVER_API_KEY": stripe.api_key, "TEST_SERVER_API_BASE": stripe.url}
        self._env = environment(**(of_stripe | variables))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stripe/webhook/"

    def start(self) -> Server:
        command = [sys.executable, "-m", "django", "runserver", "--noreload", f"127.0.0.1:{self.port}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=self._env, cwd=ROOT, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            urlopen(f"http://127.0.0.1:{self.port}/plain/", timeout=5).close()
        except HTTPError:
            return True
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """As the kernel does it: no handler runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def popen(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a management command in a process of its own."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            [sys.executable, "-m", "django", *args], env=self._env, cwd=ROOT, stdout=quiet, stderr=quiet
        )

    def command(self, *args: str) -> str:
        """Run a management command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *args], env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
