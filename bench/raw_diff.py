"""What a batch of events does, as set-based SQL: the least that a database has to be asked for the same rows."""

from __future__ import annotations

from typing import Any, Final

_TAKE: Final = """
SELECT id FROM entitlements_app_webhookevent
WHERE status = 'pending' AND (attempts = 0 OR next_attempt_at <= now())
ORDER BY next_attempt_at, id LIMIT 500 FOR UPDATE SKIP LOCKED
"""

_LOCK: Final = """
SELECT id FROM entitlements_app_customer
WHERE account = '' AND NOT livemode AND stripe_id IN (
    SELECT customer_stripe_id FROM entitlements_app_webhookevent WHERE id = ANY(%(events)s)
) ORDER BY id FOR UPDATE
"""

_APPLY: Final = """
WITH newest AS (
    SELECT DISTINCT ON (customer_stripe_id) customer_stripe_id, created, payload
    FROM entitlements_app_webhookevent WHERE id = ANY(%(events)s) ORDER BY customer_stripe_id, created DESC
), welcome AS (
    SELECT customer.id, customer.subscriber_id, newest.created, newest.payload
    FROM newest JOIN entitlements_app_customer customer
    ON customer.stripe_id = newest.customer_stripe_id AND customer.account = '' AND NOT customer.livemode
    WHERE customer.id = ANY(%(customers)s) AND customer.deleted_at IS NULL
    AND (customer.window_to IS NULL OR newest.created > customer.window_to)
), wanted AS (
    SELECT welcome.id AS customer_id, welcome.subscriber_id, feature.id AS feature_id, told.id AS stripe_id,
        told.lookup_key
    FROM welcome
    CROSS JOIN jsonb_to_recordset(payload -> 'entitlements' -> 'data') AS told(id text, feature text, lookup_key text)
    JOIN entitlements_app_feature feature
    ON feature.stripe_id = told.feature AND feature.account = '' AND NOT feature.livemode
), answers AS (
    SELECT subscriber_id, jsonb_agg(lookup_key ORDER BY lookup_key) AS keys FROM wanted GROUP BY subscriber_id
), gone AS (
    DELETE FROM entitlements_app_activeentitlement held USING welcome
    WHERE held.customer_id = welcome.id AND NOT EXISTS (
        SELECT FROM wanted WHERE wanted.customer_id = held.customer_id AND wanted.feature_id = held.feature_id
    ) RETURNING held.customer_id, welcome.subscriber_id, held.lookup_key
), come AS (
    INSERT INTO entitlements_app_activeentitlement (customer_id, feature_id, created_at, stripe_id, lookup_key)
    SELECT customer_id, feature_id, now(), stripe_id, lookup_key FROM wanted WHERE NOT EXISTS (
        SELECT FROM entitlements_app_activeentitlement held
        WHERE held.customer_id = wanted.customer_id AND held.feature_id = wanted.feature_id
        AND held.stripe_id = wanted.stripe_id AND held.lookup_key = wanted.lookup_key
    )
    ON CONFLICT (customer_id, feature_id)
    DO UPDATE SET stripe_id = EXCLUDED.stripe_id, lookup_key = EXCLUDED.lookup_key
    RETURNING customer_id, lookup_key, xmax = 0 AS is_new
), moved AS (
    SELECT customer_id, subscriber_id, lookup_key, 'revoked' AS kind FROM gone
    UNION ALL
    SELECT come.customer_id, welcome.subscriber_id, come.lookup_key, 'granted'
    FROM come JOIN welcome ON welcome.id = come.customer_id WHERE is_new
), planned AS (
    UPDATE entitlements_app_customer customer
    SET version = version + 1, window_from = welcome.created, window_to = welcome.created, hinted_at = now(),
        next_fetch_at = least(next_fetch_at, now() + interval '60 s')
    FROM welcome WHERE customer.id = welcome.id
), announced AS (
    UPDATE entitlements_app_subscriberstate state SET announced = answers.keys
    FROM answers WHERE answers.subscriber_id = state.subscriber_id AND NOT state.livemode
    AND state.subscriber_id IN (SELECT subscriber_id FROM moved)
), logged AS (
    INSERT INTO entitlements_app_entitlementchange (
        subscriber_id, customer_id, lookup_key, kind, cause, effective, drift, livemode, created_at, attempts,
        receivers_done, error
    ) SELECT subscriber_id, customer_id, lookup_key, kind, 'event', true, '', false, now(), 0, '[]', ''
    FROM moved ORDER BY customer_id, kind, lookup_key
)
UPDATE entitlements_app_webhookevent SET status = 'processed', processed_at = now(), next_attempt_at = NULL, error = ''
WHERE id = ANY(%(events)s)
"""


def process_due(cursor: Any) -> None:
    """Inside a transaction: lock the events and their customers, then diff and write it all in one statement."""
    cursor.execute(_TAKE)
    events = [pk for (pk,) in cursor.fetchall()]
    cursor.execute(_LOCK, {"events": events})
    cursor.execute(_APPLY, {"events": events, "customers": [pk for (pk,) in cursor.fetchall()]})
