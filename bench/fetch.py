"""`make bench-fetch`: what asking Stripe about a customer costs this process, beside stripe-python's bare request."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import django
import stripe
from django.conf import settings
from django.core.management import call_command

from bench import rounds, servers, simulated
from bench.news_settings import settings_of_news
from bench.rounds import Aim, Contender
from bench.simulated import API_KEY, Simulated

THREADS = 32  # as many as fetch_pool has at this rate
SAME, CHANGED = "ours: fetch_pool.run, nothing changed", "ours: fetch_pool.run, a key changed of each"
FLOOR = "floor: stripe-python's request and json.loads"
AIMS = (
    Aim("own cost within 1.5 of the bare request, nothing changed", SAME, FLOOR, at_most=1.5, by="python"),
    Aim("the same, a key changed of each", CHANGED, FLOOR, at_most=1.5, by="python"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--customers", type=int, default=200)
    options = parser.parse_args()
    with (
        servers.database("postgresql") as database,
        servers.redis_url() as redis_url,
        simulated.stripe(options.customers) as stripe_,
    ):
        site = settings_of_news(database=database, redis_url=redis_url, stripe_url=stripe_.url, processing="inline")
        settings.configure(**site | {"ENTITLEMENTS_STRIPE_RATE": 10_000})  # not what bounds it
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        from bench import people

        people.make(stripe_.customers, stripe_.features)
        measured = rounds.run(list(_contenders(stripe_)), rounds=options.rounds)
    print(f"Python {platform.python_version()}, Django {version('django')}, stripe {version('stripe')}.")
    print(f"{THREADS} threads; medians of {options.rounds} rounds of {options.customers} customers.\n")
    for line in rounds.lines("A customer, fetched and applied", measured, base=FLOOR, aims=AIMS):
        print(line)


def _contenders(stripe_: Simulated) -> Iterator[Contender]:
    from django.db import connection

    from entitlements_app import fetch_pool, fetches

    def ours(_: Any) -> None:
        report = fetch_pool.FetchReport()
        fetch_pool.run(fetches.claim_wave, report, seconds=60)
        if report.fetched != len(stripe_.customers) or report.failed:
            raise AssertionError(f"Not everybody was fetched: {report}")

    backend = [connection.connection.info.backend_pid]
    ways: Sequence[tuple[str, Callable[[], None], Callable[[Any], None], str]] = (
        (SAME, _all_are_due, ours, "ours"),
        (CHANGED, _all_are_wrong, ours, "ours"),
        (FLOOR, lambda: None, _Bare(stripe_).ask_all, "floor"),
    )
    for name, prepare, do, kind in ways:
        yield Contender(name, prepare, do, len(stripe_.customers), [os.getpid()], backend, kind, _vacuum)


class _Bare:
    """stripe-python asks the same, on as many threads, and nothing is done with the answers."""

    def __init__(self, stripe_: Simulated) -> None:
        self._customers = stripe_.customers
        self._client = stripe.StripeClient(API_KEY, base_addresses={"api": stripe_.url}, max_network_retries=0)

    def ask_all(self, _: Any) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            held = sum(threads.map(self._ask, self._customers))
        if held != simulated.HELD * len(self._customers):
            raise AssertionError("Stripe said something else.")

    def _ask(self, customer: str) -> int:
        params = {"customer": customer, "expand": ["data.feature"], "limit": 100}
        answer: Any = self._client.raw_request("get", "/v1/entitlements/active_entitlements", **params)
        return len(json.loads(answer.body)["data"])


def _all_are_due() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE entitlements_app_customer SET next_fetch_at = now() - interval '1 s', hinted_at = NULL")


def _all_are_wrong() -> None:
    """Each holds a key that Stripe does not know of, and lacks another."""
    from django.db import connection

    from bench.people import PLANS

    _all_are_due()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE entitlements_app_activeentitlement SET lookup_key = feature.lookup_key, feature_id = feature.id "
            "FROM entitlements_app_feature feature WHERE feature.lookup_key = %s AND "
            "entitlements_app_activeentitlement.lookup_key = %s",
            [PLANS[1][-1], PLANS[0][0]],
        )


def _vacuum() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


if __name__ == "__main__":
    main()
