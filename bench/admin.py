"""`make bench-admin`: this app's pages in Django admin beside stock ones of the same rows. See bench/README.md."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command

from bench import rounds, servers
from bench.admin_settings import settings_of_admin
from bench.rounds import Contender, Measured

LISTS, SEARCHES = 5, 100  # how many times faster than stock they are meant to be


@dataclass(frozen=True)
class Page:
    """What is asked of both, and what both answers have to show."""

    title: str
    query: str
    shows: str
    aim: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=5_000_000, help="active entitlements, five for each customer; 100,000 at least"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with servers.database("postgresql") as database:
        settings.configure(**settings_of_admin(database))
        django.setup()
        from bench import admin_rows

        call_command("migrate", verbosity=0)
        customers = options.rows // admin_rows.HELD
        admin_rows.fill(customers)
        print(f"Python {platform.python_version()}, Django {version('django')}; {customers:,} customers and users, ")
        print(f"{customers * admin_rows.HELD:,} active entitlements; medians of {options.rounds} rounds.\n")
        for line in measured(options.rounds):
            print(line, flush=True)


def measured(rounds_: int) -> Iterator[str]:
    """Each page of both, as Markdown."""
    from entitlements_app.models import ActiveEntitlement, Customer

    ask = _Asking()
    some = Customer.objects.order_by("pk")[Customer.objects.count() // 2]
    for model, pages in ((Customer, _of_customers(some)), (ActiveEntitlement, _of_entitlements(some))):
        yield f"### {str(model._meta.verbose_name_plural).capitalize()}"
        yield ""
        yield "| | ours: CPU, ms | stock: CPU, ms | × CPU | × time | aim |"
        yield "|---|--:|--:|--:|--:|---|"
        for page in pages:
            contenders = [ask.contender(site, model, page) for site in ("ours", "stock")]
            yield _line(page, *rounds.run(contenders, rounds=rounds_).values())
        yield ""


def _of_customers(some: Any) -> Iterator[Page]:
    yield Page("list", "", "cus_", LISTS)
    yield Page("page 50", "p=50", "cus_", LISTS)
    yield Page("filter by mode", "livemode__exact=0", "cus_", LISTS)
    yield from _searches(some, some.stripe_id)
    words = some.name.split()
    yield Page("search by a whole name", f"q={'+'.join(words)}", some.stripe_id, SEARCHES)
    yield Page("search by a beginning", f"q={words[1][:6]}", words[1], SEARCHES)
    yield Page("search by a word of each ninth customer", "q=gmbh", "GmbH", SEARCHES)
    yield Page("search without a hit: name", "q=nobody+anywhere", "0 ", SEARCHES)


def _of_entitlements(some: Any) -> Iterator[Page]:
    held = some.active_entitlements.order_by("pk")[0]
    yield Page("list", "", "feature_", LISTS)
    yield Page("page 50", "p=50", "feature_", LISTS)
    yield Page("filter by feature", f"feature__id__exact={held.feature_id}", held.lookup_key, LISTS)
    yield Page("filter by feature, page 20", f"feature__id__exact={held.feature_id}&p=20", held.lookup_key, LISTS)
    yield from _searches(some, held.lookup_key)


def _searches(some: Any, shows: str) -> Iterator[Page]:
    yield Page("search by customer id", f"q={some.stripe_id}", shows, SEARCHES)
    yield Page("search by e-mail", f"q={some.email}", shows, SEARCHES)
    yield Page("search without a hit: customer id", "q=cus_00000000000000", "0 ", SEARCHES)
    yield Page("search without a hit: e-mail", "q=nobody@nowhere.example", "0 ", SEARCHES)


class _Asking:
    """A superuser in front of both sites, and the process of PostgreSQL that serves it."""

    def __init__(self) -> None:
        from django.contrib.auth.models import User
        from django.db import connection
        from django.test import Client

        self.client = Client()
        self.client.force_login(User.objects.create_superuser("root"))
        with connection.cursor() as cursor:
            cursor.execute("SET max_parallel_workers_per_gather = 0")  # so that its work is that of one process
        self.backend = [connection.connection.info.backend_pid]

    def contender(self, site: str, model: Any, page: Page) -> Contender:
        address = f"/{site}/entitlements_app/{model._meta.model_name}/?{page.query}"

        def get(_: Any) -> None:
            response = self.client.get(address)
            if response.status_code != 200 or page.shows not in response.content.decode():
                raise AssertionError(f"{address} does not show what was asked for")

        return Contender(site, lambda: None, get, 1, [os.getpid()], self.backend, site)


def _line(page: Page, ours: Measured, stock: Measured) -> str:
    times = stock.times(ours, "cpu")
    aim = f"{page.aim}: {'reached' if times >= page.aim else '**missed**'}"
    milliseconds = " | ".join(f"{each.of('cpu') / 1000:,.1f}" for each in (ours, stock))
    return f"| {page.title} | {milliseconds} | {times:,.1f} | {stock.times(ours, 'wall'):,.1f} | {aim} |"


if __name__ == "__main__":
    main()
