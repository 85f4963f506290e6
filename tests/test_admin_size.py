"""Pages of the admin on tables of a size at which reading one from end to end would hurt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from entitlements_app.models import Customer, Feature

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

MANY = 130_000
READ = 110_000  # rows that one step of a query may read: a part of the log's newest, or of what is looked through

PAGES = {
    "customer": [
        "",
        "p=50",
        "o=1",
        "state=urgent",
        "state=marked",
        "state=due",
        "state=due&p=50",
        "state=missing",
        "state=deleted",
        "linked=yes",
        "linked=no",
        "livemode__exact=0",
        "livemode__exact=0&p=50",
        "livemode__exact=1",
        "livemode__exact=1&linked=no",
        "livemode__exact=1&state=deleted",
        "q=cus_150",
        "q=cus_nobody",
        "q=person-150@example.com",
        "q=nobody@example.com",
        "q=inc",
        "q=inc+15",
        "q=in+rare",
        "q=nobody",
        "q=nobody+inc",
        "q=inc&state=due",
        "q=nobody&state=due",
        "q=inc&p=2&livemode__exact=0",
    ],
    "activeentitlement": [
        "",
        "p=50",
        "feature__id__exact=1000001",
        "feature__id__exact=1000001&p=50",
        "feature__id__exact=1000002",
        "feature__livemode__exact=0&p=3",
        "feature__livemode__exact=1",
        "q=sso&p=3",
        "q=rare",
        "q=o",
        "q=cus_150",
        "q=cus_150&feature__id__exact=1000001",
        "q=cus_nobody",
    ],
    "entitlementchange": [
        "",
        "p=50",
        "q=sso&p=50",
        "q=rare",
        "q=nothing",
        "q=cus_150",
        "q=cus_150&kind__exact=revoked",
        "q=rare&kind__exact=revoked",
        "q=sso&cause__exact=expiry",
        "cause__exact=expiry",
        "effective__exact=0",
        "livemode__exact=1",
        "delivery=waiting",
        "delivery=parked",
        "delivery=delivered",
        "delivery=nobody",
        "drift__exact=any",
        "drift__exact=event_lost&livemode__exact=0",
        "day=2020-01-01",
        "day=2020-01-02",
        "day=2020-01-02&kind__exact=revoked",
    ],
    "webhookevent": [
        "",
        "p=50",
        "q=evt_150",
        "q=evt_nothing",
        "q=cus_150",
        "q=cus_nobody&status__exact=ignored",
        "status__exact=failed",
        "status__exact=pending",
        "status__exact=ignored",
        "status__exact=processed&p=3",
        "type=customer.deleted",
        "type=customer.subscription.",
        "type=other",
        "livemode__exact=1",
    ],
    "entitlementoverride": ["", "state=over", "state=to_come&effect__exact=deny", "q=sso", "q=nothing"],
}


# The oldest entitlements are of another feature, the oldest changes are in every way unlike the others.
_RARE = """
    INSERT INTO entitlements_app_feature (id, stripe_id, account, livemode, lookup_key, name, active, metadata, version)
    VALUES (1000002, 'feat_rare', '', false, 'rare', '', true, '{}', 0);
    UPDATE entitlements_app_activeentitlement SET feature_id = 1000002, lookup_key = 'rare'
    WHERE id < (SELECT min(id) + 9 FROM entitlements_app_activeentitlement);
    UPDATE entitlements_app_entitlementchange SET lookup_key = 'rare', kind = 'revoked', cause = 'expiry',
        drift = 'event_lost', delivered_at = NULL, parked_at = now(), created_at = '2020-01-02 12:00+00'
    WHERE id < (SELECT min(id) + 9 FROM entitlements_app_entitlementchange);
    INSERT INTO entitlements_app_changecount (livemode, day, granted, revoked, first_change, last_change, counted_at)
    SELECT false, '2020-01-02', 0, 9, min(id), min(id) + 8, now() FROM entitlements_app_entitlementchange;
    UPDATE entitlements_app_webhookevent SET status = 'failed', type = 'customer.deleted'
    WHERE id < (SELECT min(id) + 9 FROM entitlements_app_webhookevent)"""


def test_no_page_reads_a_big_table_from_end_to_end(big_tables: None, admin_client: Client) -> None:
    """A superuser saves the two queries that permissions take."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")
    pages = [f"{model}/?{query}" for model, queries in PAGES.items() for query in queries]
    pages += [f"customer/{Customer.objects.get(stripe_id='cus_150').pk}/change/", "overview/"]
    said = []
    for page in pages:
        address = f"/admin/entitlements_app/{page}"
        with CaptureQueriesContext(connection) as asked:
            assert admin_client.get(address).status_code == 200
        assert len(asked) <= 12 - 2, address
        for sql in (each["sql"] for each in asked.captured_queries if each["sql"].startswith(("SELECT", "("))):
            said += [f"{address}: {rows:,} rows in {step}:\n  {sql}" for step, rows in too_much(sql)]
    assert not said, "\n".join(said)


def too_much(sql: str) -> Iterator[tuple[str, int]]:
    """Steps of a query that read more rows than they may."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")
        [(told,)] = cursor.fetchall()
    steps = [(json.loads(told) if isinstance(told, str) else told)[0]["Plan"]]
    for step in steps:
        steps += step.get("Plans", [])
        if re.search(r"\bid > \d{4}", step.get("Filter", "")):
            continue  # the newest are most of these rows; of more of them the primary key finds them
        rows = (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]
        if rows > READ and step["Node Type"] != "Bitmap Index Scan":  # of a word: places of rows, and none is read
            yield f"{step['Node Type']} {step.get('Index Name', step.get('Relation Name', ''))}", int(rows)


@pytest.fixture
def big_tables(db: None) -> None:
    Feature.objects.create(pk=1_000_001, stripe_id="feat_sso", livemode=False, lookup_key="sso", name="SSO")
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # foreign keys are right, and not looked up
        for sql in (_CUSTOMERS, _ENTITLEMENTS, _EVENTS, _CHANGES):
            cursor.execute(sql, [MANY])
        cursor.execute(_RARE)
        cursor.execute("SET session_replication_role = DEFAULT")
        cursor.execute("ANALYZE")


# Half of the customers are due, all are called Inc, and the few live ones are the oldest.
_CUSTOMERS = """
    INSERT INTO entitlements_app_customer (stripe_id, account, livemode, email, name, metadata, version, urgent, claim,
        fetch_failures, created_at, next_fetch_at, hinted_at)
    SELECT 'cus_' || n, '', n < 20, 'person-' || n || '@example.com', 'Person' || n || ' Inc', '{}', 0, n %% 3 = 0, '',
        0, now(), now() + (n - 65000) * interval '3 seconds', CASE WHEN n %% 2 = 0 THEN now() END
    FROM generate_series(1, %s) n"""
_ENTITLEMENTS = """
    INSERT INTO entitlements_app_activeentitlement (customer_id, feature_id, created_at, stripe_id, lookup_key)
    SELECT customer.id, feature.id, now(), 'ent_' || customer.id, feature.lookup_key
    FROM entitlements_app_customer customer CROSS JOIN entitlements_app_feature feature LIMIT %s"""
_EVENTS = """
    INSERT INTO entitlements_app_webhookevent (stripe_id, account, livemode, type, customer_stripe_id, status, error,
        attempts, received_at, payload)
    SELECT 'evt_' || n, '', false, 'x', 'cus_' || n, 'processed', '', 1, now(), '{}'
    FROM generate_series(1, %s) n"""
_CHANGES = """
    INSERT INTO entitlements_app_entitlementchange (customer_id, lookup_key, kind, cause, effective, drift, livemode,
        created_at, delivered_at, attempts, receivers_done, error)
    SELECT customer.id, 'sso', 'granted', 'event', true, '', false, now(), now(), 1, '[]', ''
    FROM entitlements_app_customer customer LIMIT %s"""
