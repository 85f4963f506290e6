"""Writes that meet: what is tried again, and what is the caller's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from entitlements_app import budget, runs, transactions
from entitlements_app.budget import Allowance
from entitlements_app.linking import link
from entitlements_app.models import Customer, SyncRun
from tests.rows import make_subscriber
from tests.threads import Crowd, together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.postgresql
def test_a_deadlock_is_tried_again() -> None:
    one, two = (link(make_subscriber(), f"cus_{name}").pk for name in "ab")
    tries: list[int] = []
    each_holds_one = threading.Barrier(2)

    def crosswise(first: int, second: int) -> Callable[[], None]:
        def work() -> None:
            tries.append(first)
            Customer.objects.filter(pk=first).update(version=1)
            if tries.count(first) == 1:
                each_holds_one.wait(timeout=60)
            Customer.objects.filter(pk=second).update(version=1)

        return lambda: transactions.write(work)

    Crowd().start(crosswise(one, two), crosswise(two, one)).join()
    # A fourth when the loser is back before the winner has gone on, and they meet again.
    assert len(tries) >= 3


def test_a_lock_that_stays_is_given_up_after_three_tries_and_at_once_in_a_caller_s_transaction() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise OperationalError("database is locked")

    with pytest.raises(OperationalError):
        transactions.write(work)
    assert len(tries) == 3
    with pytest.raises(OperationalError), transaction.atomic():
        transactions.write(work)
    assert len(tries) == 4


def test_another_error_is_not_tried_again() -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise OperationalError("disk full")

    with pytest.raises(OperationalError):
        transactions.write(work)
    assert len(tries) == 1


@pytest.mark.postgresql
def test_rows_that_all_workers_write_above_read_committed(settings: Any) -> None:
    """There the database refuses all but the first of those that meet, in single statements, too."""
    settings.ENTITLEMENTS_STRIPE_RATE = 1000
    calls = 50
    runs.count_fetches(done=1, changed=0, failed=0, calls=0, drift={})

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for _ in range(calls):
            Allowance(seconds=60).take()
            runs.count_fetches(done=1, changed=0, failed=0, calls=1, drift={})

    together(*[work] * 3)
    assert budget.get_use().this_month == 3 * calls
    assert SyncRun.objects.get().calls == 3 * calls
