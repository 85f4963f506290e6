"""`make bench-batches`: what a worker takes to process waiting events, beside the same effects in raw SQL."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import count
from typing import Any

import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command

from bench import rounds, servers
from bench.news_settings import settings_of_news
from bench.rounds import Aim, Contender
from bench.simulated import KEYS

OURS, FLOOR = "ours: inbox.process_due", "floor: a set-based diff in SQL"
SIZES = (1, 50, 500)
AIM = Aim("an event takes 3 of the floor", OURS, FLOOR, at_most=3)
FEATURES = {key: f"feat_{key}" for key in KEYS}
CUSTOMERS = {size: [f"cus_{size:04}{number:010}" for number in range(size)] for size in SIZES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with servers.database("postgresql") as database, servers.redis_url() as redis_url:
        # No worker serves this broker: one that is woken, to tell receivers of changes, is another process anyway.
        Celery("bench", broker=redis_url).set_default()
        settings.configure(
            **settings_of_news(database=database, redis_url=redis_url, stripe_url="", processing="celery")
        )
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        from bench import people

        people.make([stripe_id for group in CUSTOMERS.values() for stripe_id in group], FEATURES)
        print(f"Python {platform.python_version()}, Django {version('django')}; medians of {options.rounds} rounds.\n")
        for size in SIZES:
            for changed in (True, False):
                _measure(size, changed=changed, rounds_=options.rounds)


def _measure(size: int, *, changed: bool, rounds_: int) -> None:
    told = _Told(size, changed=changed)
    contenders = list(_contenders(told, size))
    title = f"{size} event{'s' if size > 1 else ''}, {'each changes' if changed else 'none changes'} what is held"
    measured = rounds.run(contenders, rounds=rounds_)
    queries = _queries(contenders[0])
    for line in rounds.lines(title, measured, base=FLOOR, aims=[AIM]):
        print(line)
    aim = f", aim 0.1: {'reached' if queries / size <= 0.1 else 'NOT reached'}" if size == max(SIZES) else ""
    print(f"Queries: {queries}, {queries / size:.2f} for each event{aim}.\n")


class _Told:
    """Events that wait, each of another customer and newer than its last one. Proves that they were applied."""

    seconds = count(int(time.time()) - 10**6)
    plans = dict.fromkeys(SIZES, 0)

    def __init__(self, size: int, *, changed: bool) -> None:
        self.size, self.changed, self.customers = size, changed, CUSTOMERS[size]

    def prepare(self) -> None:
        from django.db import connection

        from bench import people
        from entitlements_app import stripe_objects
        from entitlements_app.models import EntitlementChange, WebhookEvent

        WebhookEvent.objects.all().delete()
        EntitlementChange.objects.all().delete()
        if self.changed:
            self.plans[self.size] = 1 - self.plans[self.size]
        created = next(self.seconds)
        self.keys = people.PLANS[self.plans[self.size]]
        WebhookEvent.objects.bulk_create(
            WebhookEvent(
                stripe_id=f"evt_{created}_{customer}",
                livemode=False,
                type=stripe_objects.SUMMARY_UPDATED,
                created=created,
                sent_at=created,
                customer_stripe_id=customer,
                payload={
                    "entitlements": {
                        "data": [
                            {name: row[name] for name in ("id", "feature", "lookup_key")}
                            for row in people.entitlements(customer, self.keys, FEATURES)
                        ],
                        "has_more": False,
                    }
                },
                status="pending",
            )
            for customer in self.customers
        )
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")

    def prove(self) -> None:
        from entitlements_app.models import ActiveEntitlement, EntitlementChange, SubscriberState, WebhookEvent

        held = ActiveEntitlement.objects.filter(customer__stripe_id__in=self.customers)
        states = SubscriberState.objects.filter(subscriber__entitlements_customers__stripe_id__in=self.customers)
        proven = {
            "events": WebhookEvent.objects.filter(status="processed").count() == self.size,
            "held": set(held.values_list("lookup_key", flat=True)) == set(self.keys),
            "how many": held.count() == self.size * len(self.keys),
            "answers": all(announced == self.keys for announced in states.values_list("announced", flat=True)),
            "log": EntitlementChange.objects.filter(effective=True).count() == 2 * self.size * self.changed,
        }
        if not all(proven.values()):
            raise AssertionError(f"Not everything was done: {proven}")


def _contenders(told: _Told, size: int) -> Iterator[Contender]:
    import os

    from django.db import connection, transaction

    from bench import raw_diff
    from entitlements_app import inbox

    def floor(_: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            raw_diff.process_due(cursor)

    def ours(_: Any) -> None:
        inbox.process_due(deadline=time.monotonic() + 60)

    backend = [connection.connection.info.backend_pid]
    ways: list[tuple[str, Callable[[Any], None], str]] = [(OURS, ours, "ours"), (FLOOR, floor, "floor")]
    for name, way, kind in ways:
        yield Contender(name, told.prepare, way, size, [os.getpid()], backend, kind, told.prove)


def _queries(contender: Contender) -> int:
    """How many statements one batch takes, with the look that finds no more events."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    prepared = contender.prepare()
    with CaptureQueriesContext(connection) as queries:
        contender.do(prepared)
    return len(queries)


if __name__ == "__main__":
    main()
