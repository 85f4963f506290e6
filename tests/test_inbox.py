"""From delivered events to rows: order, duplicates, deletion, failure."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app.inbox import process_due, replay
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementChange, Feature, WebhookEvent
from tests.delivery import customer_deleted, deliver, payload, store_only, subscription_updated, summary
from tests.rows import broken_processing, customer, effective, held, log

pytestmark = pytest.mark.django_db

NOW = 1_790_000_000


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def hint_of(stripe_id: str = "cus_acme") -> tuple[bool, bool, float]:
    """Whether a customer is marked, whether urgently, and in how many seconds it is fetched."""
    row = customer(stripe_id)
    return row.hinted_at is not None, row.urgent, (row.next_fetch_at - timezone.now()).total_seconds()


def settled(stripe_id: str = "cus_acme", **fields: Any) -> None:
    """As after a fetch that confirmed what we hold."""
    Customer.objects.filter(stripe_id=stripe_id).update(
        hinted_at=None, urgent=False, next_fetch_at=timezone.now() + timedelta(days=7), **fields
    )


# --- a payload is applied


def test_a_payload_opens_the_gate_without_a_call(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "export", created=NOW))
    assert held() == {"sso", "export"}
    assert effective() == ["+export", "+sso"]
    assert WebhookEvent.objects.get().status == "processed"
    row = customer()
    assert (row.window_from, row.window_to, row.version) == (NOW, NOW, 1)


def test_a_later_payload_replaces_it(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "export", created=NOW - 2))
    deliver(summary("cus_acme", "sso", "reports", created=NOW - 1))
    deliver(summary("cus_acme", created=NOW))
    assert held() == set()
    assert effective() == ["+export", "+sso", "+reports", "-export", "-reports", "-sso"]


def test_an_applied_payload_is_checked_when_stripe_has_settled(acme: Any) -> None:
    settled()
    deliver(summary("cus_acme", "sso", created=NOW))
    assert hint_of() == (True, False, 60)


def test_a_payload_delivered_late_is_checked_at_once(acme: Any) -> None:
    settled()
    deliver(summary("cus_acme", "sso", created=NOW - 61))
    assert held() == {"sso"}
    assert hint_of() == (True, True, 0)


def test_a_late_payload_does_not_undo_a_newer_one(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW))
    settled()
    deliver(summary("cus_acme", created=NOW - 1))
    assert held() == {"sso"}
    assert hint_of() == (True, False, 60)
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {"processed"}


def test_two_payloads_of_one_second_end_in_a_question(acme: Any) -> None:
    first, second = payload("event_summary_same_second_a_older"), payload("event_summary_same_second_b_newer")
    stripe_id = "cus_YtxqtNmIafLnGj"
    deliver(first)
    settled(stripe_id)
    deliver(second)
    assert held(stripe_id) == {"advanced-reporting"}
    assert hint_of(stripe_id) == (True, True, 0)


def test_a_payload_cut_at_ten_is_a_question_and_revokes_nothing(acme: Any) -> None:
    keys = [f"k{number}" for number in range(12)]
    deliver(summary("cus_acme", *keys, created=NOW - 1))
    settled()
    deliver(summary("cus_acme", *keys[:10], created=NOW, has_more=True))
    assert held() == set(keys)
    assert hint_of() == (True, True, 0)


def test_the_captured_truncated_event_grants_nothing_by_itself() -> None:
    event = payload("event_summary_truncated_ten_of_twelve.partial_capture")
    deliver(event)
    stripe_id = event["data"]["object"]["customer"]
    assert held(stripe_id) == set()
    assert hint_of(stripe_id) == (True, True, 0)


def test_a_payload_from_the_future_is_a_question(acme: Any) -> None:
    settled()
    deliver(summary("cus_acme", "sso", created=NOW + 3))
    assert held() == set()
    assert hint_of() == (True, True, 0)


def test_a_subscription_event_is_a_question_for_later(acme: Any) -> None:
    settled()
    deliver(subscription_updated("cus_acme"))
    assert hint_of() == (True, False, 60)
    assert WebhookEvent.objects.get().status == "processed"


def test_a_hint_never_delays_a_fetch_nor_calms_an_urgent_one(acme: Any) -> None:
    settled()
    deliver(summary("cus_acme", "sso", created=NOW + 3))
    deliver(subscription_updated("cus_acme"))
    assert hint_of() == (True, True, 0)


@pytest.mark.parametrize(
    "name",
    [
        "event_summary_granted_first.capture",
        "event_summary_granted_two",
        "event_summary_without_previous_attributes",
        "event_summary_caused_by_api_request",
        "event_summary_unknown_customer",
    ],
)
def test_captured_events_give_their_rows(name: str) -> None:
    event = payload(name)
    carried = event["data"]["object"]
    deliver(event)
    rows = ActiveEntitlement.objects.filter(customer__stripe_id=carried["customer"])
    got = set(rows.values_list("stripe_id", "feature__stripe_id", "lookup_key"))
    assert got == {(row["id"], row["feature"], row["lookup_key"]) for row in carried["entitlements"]["data"]}
    assert got


def test_the_captured_live_event_is_applied_in_live_mode_only(settings: Any) -> None:
    event = payload("event_summary_granted_first_live.capture")
    deliver(event)
    assert not Customer.objects.exists()
    settings.ENTITLEMENTS_LIVEMODE = True
    deliver(event | {"id": "evt_again"})
    assert Customer.objects.get().livemode is True
    assert Customer.objects.get().active_entitlements.count() == 1


def test_a_connected_account_s_event_is_ignored() -> None:
    deliver(payload("event_summary_connect_account"))
    assert WebhookEvent.objects.get().status == "ignored"
    assert not Customer.objects.exists()


# --- what a grant is


def test_a_kept_grant_under_a_new_id_is_no_change(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW - 1))
    before = ActiveEntitlement.objects.get()
    deliver(summary("cus_acme", "sso", created=NOW))
    after = ActiveEntitlement.objects.get()
    assert before.pk == after.pk
    assert before.stripe_id != after.stripe_id
    assert effective() == ["+sso"]


def test_another_feature_behind_the_same_key_is_no_change_for_anybody(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW - 2))
    both = summary("cus_acme", "sso", "sso", created=NOW - 1)
    both["data"]["object"]["entitlements"]["data"][1]["feature"] = "feat_test_sso_renewed"
    deliver(both)
    assert ActiveEntitlement.objects.count() == 2
    only_new = summary("cus_acme", "sso", created=NOW)
    only_new["data"]["object"]["entitlements"]["data"][0]["feature"] = "feat_test_sso_renewed"
    deliver(only_new)
    assert ActiveEntitlement.objects.get().feature.stripe_id == "feat_test_sso_renewed"
    assert log() == [("granted", "sso", "event", True)]


def test_an_unknown_feature_becomes_a_placeholder_and_one_only(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW))
    deliver(summary("cus_other", "sso", created=NOW))
    feature = Feature.objects.get()
    assert (feature.stripe_id, feature.lookup_key, feature.name, feature.active) == ("feat_test_sso", "sso", "", True)


def test_keys_are_kept_exactly(acme: Any) -> None:
    deliver(summary("cus_acme", "SSO", "sso", "api.v2", "premium-support", created=NOW))
    assert held() == {"SSO", "sso", "api.v2", "premium-support"}


def test_rows_deleted_by_hand_are_announced_with_the_next_change(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW - 1))
    ActiveEntitlement.objects.all().delete()
    deliver(summary("cus_acme", "audit", created=NOW))
    assert effective() == ["+sso", "-sso", "+audit"]
    assert EntitlementChange.objects.get(kind="revoked").customer is None


# --- duplicates, deletion


def test_a_redelivery_is_no_error_that_a_database_would_log_with_the_payload(acme: Any) -> None:
    event = summary("cus_acme", "sso")
    errors = []

    def watch(execute: Any, *args: Any) -> Any:
        try:
            return execute(*args)
        except Exception as error:
            errors.append(error)
            raise

    with connection.execute_wrapper(watch):
        assert [deliver(event).status_code for _ in range(2)] == [200, 200]
    assert errors == []


def test_the_same_event_twice_is_one_row_and_one_change(acme: Any) -> None:
    event = summary("cus_acme", "sso", created=NOW)
    assert [deliver(event).status_code for _ in range(3)] == [200, 200, 200]
    assert WebhookEvent.objects.count() == 1
    assert (effective(), customer().version) == (["+sso"], 1)


def test_deletion_revokes_at_once_whatever_its_date(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=NOW))
    deliver(customer_deleted("cus_acme", created=NOW - 1000))
    row = customer()
    assert held() == set()
    assert effective() == ["+sso", "-sso"]
    assert (row.next_fetch_at, row.hinted_at, row.urgent, row.version) == (None, None, False, 2)


def test_deletion_is_final(acme: Any) -> None:
    deliver(customer_deleted("cus_acme", created=NOW - 1))
    deliver(summary("cus_acme", "sso", created=NOW))
    deliver(subscription_updated("cus_acme"))
    assert held() == set()
    assert customer().next_fetch_at is None
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {"processed"}


def test_deletion_of_an_unknown_customer_is_kept() -> None:
    deliver(payload("event_customer_deleted"))
    assert customer("cus_YtxqtNmIafLnGj").deleted_at is not None


# --- several events at once: what waited in the inbox


def test_of_a_batch_the_newest_counts_and_the_older_are_covered(acme: Any) -> None:
    settled()
    store_only(
        summary("cus_acme", "c", created=NOW),
        summary("cus_acme", "a", created=NOW - 2),
        summary("cus_acme", "b", created=NOW - 1),
    )
    call_command("entitlements_run")
    assert held() == {"c"}
    assert effective() == ["+c"]
    assert customer().version == 1


def test_of_a_batch_two_of_the_newest_second_are_a_question(acme: Any) -> None:
    settled()
    store_only(summary("cus_acme", "a", created=NOW), summary("cus_acme", "b", created=NOW))
    call_command("entitlements_run")
    assert held() == set()
    assert hint_of() == (True, True, 0)


def test_of_a_batch_deletion_wins(acme: Any) -> None:
    store_only(customer_deleted("cus_acme", created=NOW - 5), summary("cus_acme", "a", created=NOW))
    call_command("entitlements_run")
    assert held() == set()
    assert customer().deleted_at is not None


def test_an_event_that_was_not_delivered_is_only_a_question(acme: Any) -> None:
    """Polled, or replayed by staff: it has no signature's time."""
    settled()
    store_only(summary("cus_acme", "a", created=NOW))
    WebhookEvent.objects.update(sent_at=None)
    call_command("entitlements_run")
    assert held() == set()
    assert hint_of() == (True, True, 0)


# --- failure


def attempts() -> list[tuple[int, str]]:
    return list(WebhookEvent.objects.order_by("pk").values_list("attempts", "status"))


def test_a_failure_is_recorded_answered_2xx_and_tried_again_later(acme: Any, clock: Any) -> None:
    event = summary("cus_acme", "sso", created=NOW)
    with broken_processing():
        assert deliver(event).status_code == 200
    stored = WebhookEvent.objects.get()
    assert (stored.status, stored.attempts) == ("pending", 1)
    assert "Error" in stored.error
    assert (stored.next_attempt_at - timezone.now()).total_seconds() == 60
    call_command("entitlements_run")
    assert WebhookEvent.objects.get().attempts == 1, "too early"
    clock.shift(61)
    call_command("entitlements_run")
    assert (WebhookEvent.objects.get().status, WebhookEvent.objects.get().error) == ("processed", "")
    assert held() == {"sso"}


def test_retries_double_up_to_an_hour_and_end_as_failed(acme: Any, clock: Any) -> None:
    delays = []
    with broken_processing():
        deliver(summary("cus_acme", "sso", created=NOW))
        while (stored := WebhookEvent.objects.get()).status == "pending":
            delays.append((stored.next_attempt_at - timezone.now()).total_seconds())
            clock.shift(delays[-1])
            call_command("entitlements_run")
    assert delays == [60, 120, 240, 480, 960, 1920, 3600]
    assert attempts() == [(8, "failed")]


def test_an_event_that_fails_for_good_has_its_customer_fetched_instead(clock: Any) -> None:
    store_only(summary("cus_bad", "sso", created=NOW))
    WebhookEvent.objects.update(payload={"entitlements": "not a list"}, attempts=7)
    clock.shift(61)
    call_command("entitlements_run")
    assert attempts() == [(8, "failed")]
    assert hint_of("cus_bad")[0]


def test_an_event_that_failed_counts_when_stripe_is_made_to_send_it_again(acme: Any) -> None:
    event = summary("cus_acme", "sso", created=NOW)
    store_only(event)
    WebhookEvent.objects.update(status="failed", attempts=8, error="a release that was broken", payload=None)
    deliver(event)
    assert held() == {"sso"}
    assert attempts() == [(0, "processed")]


def test_an_event_that_was_ignored_by_mistake_counts_when_it_is_sent_again(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    event = summary("cus_acme", "sso", created=NOW)
    deliver(event)
    assert attempts() == [(0, "ignored")]
    settings.ENTITLEMENTS_LIVEMODE = False
    deliver(event)
    assert held() == {"sso"}


def test_a_processed_event_stays_processed_when_it_is_sent_again(acme: Any) -> None:
    event = summary("cus_acme", "sso", created=NOW)
    deliver(event)
    settled()
    deliver(event)
    assert hint_of() == (False, False, 7 * 86_400)


def test_a_redelivery_of_a_pending_event_is_another_try(acme: Any) -> None:
    event = summary("cus_acme", "sso", created=NOW)
    store_only(event)
    assert held() == set()
    deliver(event)
    assert held() == {"sso"}


def test_the_next_webhook_takes_up_to_ten_overdue_events_along(acme: Any, clock: Any) -> None:
    store_only(*(summary(f"cus_{number}", "sso", created=NOW) for number in range(12)))
    deliver(summary("cus_acme", "sso", created=NOW))
    assert WebhookEvent.objects.pending().count() == 12, "not overdue yet"
    clock.shift(60)
    deliver(summary("cus_acme", "sso", created=NOW + 60))
    assert WebhookEvent.objects.pending().count() == 2


def test_a_failed_event_that_is_replayed_has_stripe_asked(acme: Any, django_capture_on_commit_callbacks: Any) -> None:
    settled()
    store_only(summary("cus_acme", "sso", created=NOW))
    WebhookEvent.objects.update(status="failed", attempts=8, error="a release that was broken", next_attempt_at=None)
    with django_capture_on_commit_callbacks(execute=True):
        replay(WebhookEvent.objects.get())
    row = WebhookEvent.objects.get()
    assert (row.status, row.attempts, row.error, row.sent_at) == ("processed", 0, "", None)
    assert held() == set(), "what it carried may be long past"
    assert hint_of() == (True, True, 0)


def test_a_failed_event_that_nobody_can_read_can_be_replayed(django_capture_on_commit_callbacks: Any) -> None:
    unreadable = summary("cus_bad", "sso", created=NOW)
    unreadable["data"]["object"]["entitlements"] = "not a list"
    deliver(unreadable)
    settled("cus_bad")
    with django_capture_on_commit_callbacks(execute=True):
        replay(WebhookEvent.objects.get(status="failed"))
    assert hint_of("cus_bad") == (True, True, 0)


def test_a_deletion_that_is_replayed_counts(acme: Any, django_capture_on_commit_callbacks: Any) -> None:
    store_only(customer_deleted("cus_acme", created=NOW))
    WebhookEvent.objects.update(status="failed")
    with django_capture_on_commit_callbacks(execute=True):
        replay(WebhookEvent.objects.get())
    assert customer().deleted_at is not None


@pytest.mark.parametrize("fields", [{"status": "pending"}, {"status": "processed"}, {"customer_stripe_id": ""}])
def test_only_a_failed_event_about_somebody_can_be_replayed(fields: dict[str, Any]) -> None:
    store_only(summary("cus_acme", "sso", created=NOW))
    WebhookEvent.objects.update(**{"status": "failed"} | fields)
    with pytest.raises(ValueError, match="cannot be tried again"):
        replay(WebhookEvent.objects.get())


@pytest.mark.postgresql  # SQLite inserts and updates in portions
def test_a_batch_costs_the_same_for_many_events(acme: Any) -> None:
    costs = []
    for size in (20, 400):
        keys = [f"k{number}" for number in range(3)]
        store_only(*[summary(f"cus_{size}_{number}", *keys, created=NOW) for number in range(size)])
        with CaptureQueriesContext(connection) as queries:
            assert process_due(deadline=time.monotonic() + 60) == size
        costs.append(len(queries))
    assert costs[0] >= costs[1], "the first made the features"


def test_one_bad_event_fails_alone(acme: Any) -> None:
    store_only(summary("cus_acme", "sso", created=NOW), summary("cus_bad", "sso", created=NOW))
    WebhookEvent.objects.filter(customer_stripe_id="cus_bad").update(payload={"entitlements": "not a list"})
    call_command("entitlements_run")
    assert held() == {"sso"}
    assert attempts() == [(1, "processed"), (1, "pending")]


# --- who is told


def test_news_of_an_unlinked_customer_are_kept_and_effective_for_nobody() -> None:
    deliver(summary("cus_new", "sso", created=NOW))
    assert held("cus_new") == {"sso"}
    assert log() == [("granted", "sso", "event", False)]
    assert EntitlementChange.objects.get().subscriber is None


def test_the_log_replays_to_the_keys_of_each_customer(acme: Any) -> None:
    states = [("a", "b"), ("b", "c"), (), ("a",), ("a", "d")]
    for second, keys in enumerate(states):
        deliver(summary("cus_acme", *keys, created=NOW - 10 + second))
        replayed: set[str] = set()
        for change in EntitlementChange.objects.order_by("pk"):
            (replayed.add if change.kind == "granted" else replayed.discard)(change.lookup_key)
        assert replayed == set(keys) == held()
