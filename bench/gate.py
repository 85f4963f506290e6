"""`make bench`: what a gate costs, beside other ways to ask the same. See bench/README.md."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import django
import redis
from django.conf import settings
from django.core.management import call_command

from bench import servers
from bench.settings import settings_of

_PACKAGES = ("django", "redis", "django-waffle", "django-flags", "django-guardian", "dj-stripe", "djangorestframework")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 rounds instead of 150")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--row", default="", help="only rows with this in their title")
    options = parser.parse_args()
    with servers.database(options.database) as database, servers.redis_url() as url:
        settings.configure(**settings_of(database, url))
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        _measure(options, url)


def _measure(options: argparse.Namespace, redis_url: str) -> None:
    # Once Django is set up, as they import models.
    from django.db import connection

    from bench import data, first_checks, measure, middleware, permissions, repeated, rest_framework, table, templates

    users, stranger = data.make()
    modules: tuple[Any, ...] = (first_checks, repeated, middleware, permissions, templates, rest_framework)
    rows = [row for module in modules for row in module.rows() if options.row.lower() in row.title.lower()]
    rounds = 20 if options.quick else 150
    loop = measure.Loop(users, stranger, _commands_so_far(redis_url))
    measured = loop.run(rows, rounds=rounds)
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    print(f"Python {platform.python_version()}, {connection.vendor}, Valkey on loopback, {versions}.")
    print(f"Medians of {rounds} rounds in turn.\n")
    for line in table.lines(rows, measured):
        print(line)
    connection.close()


def _commands_so_far(url: str) -> Callable[[], int]:
    client = redis.Redis.from_url(url)
    not_asked_for = ("cmdstat_info", "cmdstat_hello", "cmdstat_client|setinfo")

    def commands_so_far() -> int:
        statistics = client.info("commandstats")
        return sum(each["calls"] for name, each in statistics.items() if name not in not_asked_for)

    return commands_so_far


if __name__ == "__main__":
    main()
