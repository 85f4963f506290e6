"""`make bench-intake`: what a webhook costs its endpoint, beside dj-stripe's and a bare view. See bench/README.md."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import count
from time import perf_counter_ns
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from bench import rounds, servers, simulated
from bench.news_settings import settings_of_news
from bench.rounds import Aim, Contender
from bench.simulated import Simulated
from example_project.free_ports import free_port

STORE, INLINE = "celery", "inline"
OURS, ALONE, WITH_ALL = (
    "ours, stored, a worker is on its way",
    "ours, stored, a worker is woken",
    "ours, inline, all of it",
)
DJSTRIPE, FLOOR, EMPTY = "dj-stripe", "floor: verify, json.loads, one insert", "a view that does nothing"
UUID = "0d6e1c5e-3c11-4f0c-9b5e-1f2f4b1c9a10"
AIMS = (
    Aim("a stored event takes 1.2 of the floor, wake-up included", OURS, FLOOR, at_most=1.2),
    Aim("the same if each wakes a worker", ALONE, FLOOR, at_most=1.2),
    Aim("dj-stripe takes 15 times a stored event", DJSTRIPE, OURS, at_least=15),
    Aim("dj-stripe takes 4 times an event that is processed inline", DJSTRIPE, WITH_ALL, at_least=4),
)
_PACKAGES = ("django", "stripe", "gunicorn", "celery", "redis", "dj-stripe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=20, help="of each contender in a round")
    parser.add_argument("--worker", choices=("sync", "gthread"), default="sync", help="gthread keeps connections open")
    options = parser.parse_args()
    with (
        servers.database("postgresql") as database,
        servers.redis_url() as redis_url,
        simulated.stripe(600) as stripe,
    ):
        site = {"redis_url": redis_url, "stripe_url": stripe.url, "djstripe_url": stripe.djstripe_url}
        settings.configure(**settings_of_news(database=database, processing=STORE, **site))
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        _make_tables(stripe)
        with _Server(STORE, database, site, options) as store, _Server(INLINE, database, site, options) as inline:
            contenders = list(_contenders(stripe, store, inline, options.requests))
            measured = rounds.run(contenders, rounds=options.rounds)
            _prove((options.rounds + 1) * options.requests)
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}.")
    print(f"gunicorn with one {options.worker} worker; medians of {options.rounds} rounds of {options.requests}.\n")
    for line in rounds.lines("A webhook event, from request to answer", measured, base=FLOOR, aims=AIMS):
        print(line)


def _make_tables(stripe: Simulated) -> None:
    from django.db import connection
    from djstripe import models as djstripe  # once Django is set up

    from bench import people

    people.make(stripe.customers, stripe.features)
    account = djstripe.Account.objects.create(id="acct_bench", livemode=False)
    djstripe.APIKey.objects.create(
        id="sk_bench", type="secret", secret=simulated.API_KEY, livemode=False, djstripe_owner_account=account
    )
    djstripe.WebhookEndpoint.objects.create(
        id="we_bench", livemode=False, djstripe_owner_account=account, secret=people.SECRET, djstripe_uuid=UUID,
        url="https://bench.example/", enabled_events=["*"], status="enabled",
    )  # fmt: skip
    djstripe.Customer.objects.bulk_create(
        djstripe.Customer(id=stripe_id, livemode=False, djstripe_owner_account=account, stripe_data={"id": stripe_id})
        for stripe_id in stripe.customers
    )
    table = "CREATE TABLE bench_floor (LIKE entitlements_app_webhookevent INCLUDING IDENTITY INCLUDING DEFAULTS)"
    with connection.cursor() as cursor:
        cursor.execute(table)
        cursor.execute("ALTER TABLE bench_floor ADD PRIMARY KEY (id), ADD UNIQUE (stripe_id, account, livemode)")
        cursor.execute("ANALYZE")


class _Server:
    """gunicorn with one worker, which does this kind of processing."""

    def __init__(
        self, processing: str, database: dict[str, Any], site: dict[str, str], options: argparse.Namespace
    ) -> None:
        self.port = free_port()
        self._name = f"bench_{processing}"
        named = database | {"OPTIONS": {"application_name": self._name}}
        described = json.dumps(site | {"processing": processing, "database": named})
        command = [sys.executable, "-m", "gunicorn", "bench.intake_wsgi", "--bind", f"127.0.0.1:{self.port}"]
        command += ["--worker-class", options.worker, "--workers", "1", "--threads", "1", "--keep-alive", "60"]
        command += ["--log-level", "error"]
        self._process = subprocess.Popen(command, env=os.environ | {"BENCH_SITE": described})  # noqa: S603

    def __enter__(self) -> _Server:
        deadline = time.monotonic() + 60
        while True:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port)
            try:
                self.worker = int(self.post("/empty/", b"", {}))
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                self.backend = _backend(self._name)
                return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> str:
        self._connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise AssertionError(f"{path} answered {answer.status}: {text[:300]}")
        return text


def _backend(name: str) -> int:
    """The process of PostgreSQL that serves this site, which has asked it something."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [name])
        [(pid,)] = cursor.fetchall()
    return int(pid)


def _contenders(stripe: Simulated, store: _Server, inline: _Server, requests: int) -> Iterator[Contender]:
    from django.db import connection

    from bench import people
    from entitlements_app import dispatch

    def bodies() -> Callable[[], list[tuple[bytes, str]]]:
        """New events, each about the customer whose last one is longest ago, and each a change of what it holds."""
        numbers = count()

        def prepare() -> list[tuple[bytes, str]]:
            _nothing_is_due(connection)
            made = []
            for number in (next(numbers) for _ in range(requests)):
                turn, customer = divmod(number, len(stripe.customers))
                keys = people.PLANS[(turn + 1) % 2]
                made.append(people.summary(stripe.customers[customer], keys, stripe.features))
            return made

        return prepare

    def post(server: _Server, path: str, before_each: Callable[[], None] = lambda: None) -> Callable[[Any], int]:
        def do(prepared: list[tuple[bytes, str]]) -> int:
            took = 0
            for body, header in prepared:
                before_each()
                began = perf_counter_ns()
                server.post(path, body, {"Stripe-Signature": header})
                took += perf_counter_ns() - began
            return took

        return do

    def contender(name: str, server: _Server, path: str, *, kind: str = "peer", **options: Any) -> Contender:
        do = post(server, path, **options)
        return Contender(name, bodies(), do, requests, [server.worker], [server.backend], kind)

    yield contender(OURS, store, "/ours/webhook/", kind="ours")
    yield contender(ALONE, store, "/ours/webhook/", kind="ours", before_each=lambda: dispatch.heard("process_events"))
    yield contender(WITH_ALL, inline, "/ours/webhook/", kind="ours")
    yield contender(DJSTRIPE, store, f"/djstripe/webhook/{UUID}/")
    yield contender(FLOOR, store, "/floor/", kind="floor")
    yield contender(EMPTY, store, "/empty/", kind="floor")


def _nothing_is_due(connection: Any) -> None:
    """Neither a fetch nor, to the site that processes inline, an event that the other one has stored."""
    with connection.cursor() as cursor:
        for table, column in (("customer", "next_fetch_at"), ("webhookevent", "next_attempt_at")):
            cursor.execute(
                f"UPDATE entitlements_app_{table} SET {column} = now() + interval '7 days' "  # noqa: S608
                f"WHERE {column} < now() + interval '2 minutes'"
            )


def _prove(events: int) -> None:
    """That each did its work."""
    from django.db import connection
    from djstripe.models import Event, WebhookEventTrigger

    from entitlements_app.models import EntitlementChange, WebhookEvent

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bench_floor")
        [(floor,)] = cursor.fetchall()
    done = {
        "stored": WebhookEvent.objects.filter(status="pending").count() / 2,
        "processed": WebhookEvent.objects.filter(status="processed").count(),
        "changes, delivered": EntitlementChange.objects.filter(effective=True, delivered_at__isnull=False).count() / 2,
        "dj-stripe's events": Event.objects.count(),
        "processed by dj-stripe": WebhookEventTrigger.objects.filter(processed=True, exception="").count(),
        "floor": floor,
    }
    if set(done.values()) != {events}:
        raise AssertionError(f"Each was sent {events} events, but: {done}")


if __name__ == "__main__":
    main()
