"""`make bench-bytes`: what an active entitlement takes on disk with its indexes, beside a stock Django model."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any, Final

import django
from django.conf import settings
from django.core.management import call_command

from bench import servers
from bench.settings import settings_of

AIM: Final = 185
HELD: Final = 5
KEYS: Final = 40

# Ids as in live mode, `ent_` and 30 characters; keys of 8 to 16.
_FILL: Final = (
    """
INSERT INTO entitlements_app_feature (stripe_id, account, livemode, lookup_key, name, active, metadata, version)
SELECT 'feat_' || substr(md5(number::text), 1, 24), '', true, rpad('feature_' || number, 8 + number %% 9, '_'), '',
    true, '{}', 0
FROM generate_series(1, %(keys)s) number
""",
    """
INSERT INTO entitlements_app_customer (
    stripe_id, account, livemode, email, name, metadata, version, urgent, next_fetch_at, claim, fetch_failures,
    created_at
) SELECT 'cus_' || substr(md5(number::text), 1, 14), '', true, '', '', '{}', 1, false, now(), '', 0, now()
FROM generate_series(1, %(customers)s) number
""",
    """
CREATE TEMP TABLE held AS
SELECT customer.id AS customer_id, feature.id AS feature_id, feature.lookup_key,
    'ent_' || substr(md5(customer.id::text) || md5(feature.id::text), 1 + nth, 30) AS stripe_id,
    now() + customer.id * interval '1 ms' AS moment
FROM entitlements_app_customer customer
CROSS JOIN generate_series(0, %(held)s - 1) nth
JOIN entitlements_app_feature feature ON feature.id = 1 + (customer.id + nth * 7) %% %(keys)s
ORDER BY md5('order' || customer.id), nth
""",
)
_COPY: Final = """
INSERT INTO {} (customer_id, feature_id, created_at, confirmed_at, stripe_id, lookup_key)
SELECT customer_id, feature_id, moment, moment, stripe_id, lookup_key FROM held
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with servers.database("postgresql") as database:
        site = settings_of(database, "")
        settings.configure(**site | {"INSTALLED_APPS": [*site["INSTALLED_APPS"], "bench"]})
        django.setup()
        from django.db import connection

        from bench.models import StockEntitlement
        from entitlements_app.models import ActiveEntitlement

        call_command("migrate", run_syncdb=True, verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # foreign keys are right, and not looked up
            for statement in _FILL:
                cursor.execute(statement, {"keys": KEYS, "customers": options.rows // HELD, "held": HELD})
            ours, stock = (_bytes(cursor, model) for model in (ActiveEntitlement, StockEntitlement))
    rows = options.rows // HELD * HELD
    print(f"Django {version('django')}; {rows:,} rows of {rows // HELD:,} customers in random order.\n")
    print("| bytes for each entitlement | rows | indexes | all |\n|---|--:|--:|--:|")
    for name, (heap, everything) in (("**ours**", ours), ("stock Django", stock)):
        print(f"| {name} | {heap:.0f} | {everything - heap:.0f} | {everything:.0f} |")
    print(f"\n- {'reached' if ours[1] <= AIM else 'NOT reached'}: at most {AIM} bytes: {ours[1]:.1f}")


def _bytes(cursor: Any, model: Any) -> tuple[float, float]:
    """Of the rows alone, and with indexes and all else, for each row."""
    table = model._meta.db_table
    cursor.execute(_COPY.format(table))
    cursor.execute(f"VACUUM (ANALYZE) {table}")
    cursor.execute("SELECT pg_table_size(%s), pg_total_relation_size(%s)", [table, table])
    heap, everything = cursor.fetchone()
    cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
    [(rows,)] = cursor.fetchall()
    return heap / rows, everything / rows


if __name__ == "__main__":
    main()
