"""Status, purge and counts on tables of a size at which reading one from end to end would hurt."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from entitlements_app import counts, status
from entitlements_app.purge import purge_history

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

MANY = 200_000


@pytest.fixture
def big_tables(stripe: Any) -> None:
    with connection.cursor() as cursor:
        for sql in (_CUSTOMERS, _EVENTS, _CHANGES):
            cursor.execute(sql, [MANY])
        cursor.execute("ANALYZE")


def test_no_big_table_is_read_from_end_to_end(big_tables: None) -> None:
    with CaptureQueriesContext(connection) as asked:
        told = status.get_status()
        counted = counts.count_if_due(deadline=time.monotonic() + 60)
        purged = purge_history(payloads=timedelta(days=33), deadline=time.monotonic() + 60)
    assert (told.customers.estimated, told.customers.total) == (True, pytest.approx(MANY, rel=0.05))
    assert (purged.payloads, purged.events, purged.changes) == pytest.approx((35_000, 25_000, 100_000), abs=50)
    assert counted == counts.CountReport(0, 30, finished=True)
    assert [day.granted for day in counts.by_day(livemode=False)[0][:-1]] == pytest.approx([250] * 29, abs=11)
    statements = [query["sql"] for query in asked.captured_queries]
    for sql in [sql for sql in statements if sql.startswith(("SELECT", "UPDATE", "DELETE"))]:
        if '"deleted_at" IS NULL GROUP BY' in sql:  # how many customers there are, which takes a look at each
            continue
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
        for table in ("customer", "webhookevent", "entitlementchange"):
            assert f"Seq Scan on entitlements_app_{table}" not in plan, f"{sql}\n{plan}"


# Oldest first. Events go back 40 days, changes 800.
_CUSTOMERS = """
    INSERT INTO entitlements_app_customer (stripe_id, account, livemode, email, name, metadata, version, urgent, claim,
        fetch_failures, created_at, next_fetch_at)
    SELECT 'cus_' || n, '', false, '', '', '{}', 0, false, '', 0, now(), now() + (n - 1000) * interval '3 seconds'
    FROM generate_series(1, %s) n"""
_EVENTS = """
    INSERT INTO entitlements_app_webhookevent (stripe_id, account, livemode, type, customer_stripe_id, status, error,
        attempts, received_at, payload)
    SELECT 'evt_' || n, '', false, 'x', 'cus_' || n, 'processed', '', 1, now() - 40 * interval '1 day'
        + n * interval '17.28 seconds', '{}'
    FROM generate_series(1, %s) n"""
_CHANGES = """
    INSERT INTO entitlements_app_entitlementchange (customer_id, lookup_key, kind, cause, effective, drift, livemode,
        created_at, delivered_at, attempts, receivers_done, error)
    SELECT customer.id, 'sso', 'granted', 'event', true, '', false, now() - 800 * interval '1 day'
        + n * interval '345.6 seconds', now(), 1, '[]', ''
    FROM generate_series(1, %s) n
    JOIN entitlements_app_customer customer ON customer.stripe_id = 'cus_' || (1 + n %% 80000)
    ORDER BY n"""
