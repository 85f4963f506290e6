"""A whole site, made of real processes, and its simulated Stripe in this one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from entitlements_app.testing import StripeSimulator
from tests.server import ROOT, environment
from tests.soak.programs import PATIENCE, Beat, Broker, Database, Program, Web, Worker

STRIPE_RATE = 80  # calls a second; more than the default, as the story is told faster than life


class Site:
    """`database` runs already, and this process's own connection leads to it."""

    def __init__(self, folder: Path, database: Database, stripe: StripeSimulator) -> None:
        self.told = folder / "told"
        self.broker = Broker(folder)
        self._env = environment(
            TEST_SERVER_API_KEY=stripe.api_key,
            TEST_SERVER_API_BASE=stripe.url,
            TEST_SERVER_RATE=str(STRIPE_RATE),
            TEST_SERVER_BROKER=self.broker.broker_url,
            TEST_SERVER_CACHE=self.broker.url,
            TEST_SERVER_BEAT="1",
            TEST_SERVER_RECEIVER="note",
            TEST_SERVER_TOLD=str(self.told),
        )
        self.web = Web(folder, self._env)
        everyone: list[Program | Broker] = [
            database,
            self.broker,
            self.web,
            Worker("worker-1", folder, self._env, pool="prefork"),
            Worker("worker-2", folder, self._env, pool="threads"),
            Beat(folder, self._env),
        ]
        self.programs = {program.name: program for program in everyone}

    def start(self) -> None:
        self.command("migrate", "--verbosity=0")
        self.broker.start()
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(lambda program: program.start(), list(self.programs.values())[2:]))

    def stop(self) -> None:
        for program in reversed(self.programs.values()):
            program.stop()

    def command(self, *args: str) -> str:
        """Run a management command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *args],
            env=self._env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{args} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def tell_logs(self) -> None:
        """For who reads why it failed."""
        for program in self.programs.values():
            print(f"=== {program.name}, the last lines\n{program.log[-4000:]}")  # noqa: T201 pytest shows it


@contextmanager
def open_site(stripe: StripeSimulator) -> Iterator[Site]:
    """While it is open this process's database is the site's."""
    with tempfile.TemporaryDirectory(prefix="entitlements-soak-", ignore_cleanup_errors=True) as name:
        database = Database(Path(name))
        connection.close()
        ours = dict(connection.settings_dict)
        connection.settings_dict.update(database.connection)
        site = None
        try:
            database.start()
            site = Site(Path(name), database, stripe)
            site.start()
            yield site
        finally:
            connection.close()
            connection.settings_dict.update(ours)
            if site is None:
                database.stop()
            else:
                site.stop()
                site.tell_logs()
