"""A big site, filled where it lies: each customer is a user's and holds five of forty features."""

from __future__ import annotations

from typing import Final

from django.db import connection

HELD: Final = 5
FEATURES: Final = 40

# Syllables make words: 900 of them are first names, all of them are family names, a third of customers are companies.
_WORDS: Final = """
CREATE TEMP TABLE words AS
SELECT n, initcap(string_agg((ARRAY['ba','de','fi','go','hu','ka','le','mi','no','pu','ra','se','ti','vo','zu','lan',
    'mer','nis','tor','wen','al','eck','ing','or','um','sch','tra','pli','kro','bry','gla'])
    [1 + ('x' || substr(md5(n || '-' || nth), 1, 6))::bit(24)::int % 31], '' ORDER BY nth)) AS word
FROM generate_series(0, 29999) n CROSS JOIN generate_series(1, 3) nth GROUP BY n
"""
_FILL: Final = (
    """
INSERT INTO auth_user (username, first_name, last_name, email, password, is_superuser, is_staff, is_active, date_joined)
SELECT 'user-' || n, '', '', 'user-' || n || '@example.com', '!', false, false, true, now()
FROM generate_series(1, %(customers)s) n
""",
    """
INSERT INTO entitlements_app_feature (stripe_id, account, livemode, lookup_key, name, active, metadata, version)
SELECT 'feat_' || n, '', false, 'feature_' || n, 'Feature ' || n, true, '{}', 0 FROM generate_series(1, %(features)s) n
""",
    """
INSERT INTO entitlements_app_customer (
    stripe_id, account, livemode, subscriber_id, email, name, metadata, version, window_from, window_to, urgent,
    next_fetch_at, fetched_at, claim, fetch_failures, created_at
) SELECT 'cus_' || substr(md5(numbers.n::text), 1, 14), '', false, people.id,
    'customer-' || numbers.n || '@shop.example',
    CASE WHEN numbers.n %% 3 = 0
        THEN concat_ws(' ', last.word, first.word, (ARRAY['Inc', 'Ltd', 'GmbH'])[1 + numbers.n / 3 %% 3])
        ELSE first.word || ' ' || last.word END,
    '{}', 1, 1, 1, false, now() + numbers.n * interval '600 ms', now() - numbers.n * interval '600 ms', '', 0, now()
FROM generate_series(1, %(customers)s) numbers(n)
JOIN auth_user people ON people.username = 'user-' || numbers.n
JOIN words first ON first.n = numbers.n %% 900
JOIN words last ON last.n = numbers.n * 7919::bigint %% 30000
ORDER BY numbers.n
""",
    """
INSERT INTO entitlements_app_activeentitlement (
    customer_id, feature_id, created_at, confirmed_at, stripe_id, lookup_key
) SELECT customer.id, feature.id, now(), now(), 'ent_' || substr(md5(customer.id || '-' || nth), 1, 30),
    feature.lookup_key
FROM entitlements_app_customer customer
CROSS JOIN generate_series(0, %(held)s - 1) nth
JOIN (SELECT id, lookup_key, row_number() OVER (ORDER BY id) AS number FROM entitlements_app_feature) feature
    ON feature.number = 1 + (customer.id + nth * 7) %% %(features)s
""",
)


def fill(customers: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # foreign keys are right, and not looked up
        cursor.execute(_WORDS)
        for statement in _FILL:
            cursor.execute(statement, {"customers": customers, "features": FEATURES, "held": HELD})
        cursor.execute("SET session_replication_role = DEFAULT")
        cursor.execute("VACUUM (ANALYZE)")
