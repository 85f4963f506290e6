"""The inbox in the admin: each status in plain words, failed events tried again or dismissed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.utils import timezone

from entitlements_app import inbox
from entitlements_app.health import get_problems
from entitlements_app.models import WebhookEvent
from entitlements_app.status import get_status
from tests.delivery import customer_deleted, deliver, subscription_updated, summary
from tests.rows import customer, held
from tests.staff import html_of, listed, said, staff, url

pytestmark = pytest.mark.django_db

VIEW, REPLAY = "view_webhookevent", "replay_webhookevent"
BOTH = pytest.mark.parametrize("atomic", [False, True])


@pytest.fixture
def failed(acme: Any) -> WebhookEvent:
    """acme holds sso; an event that it was deleted could not be processed."""
    deliver(summary("cus_acme", "sso"))
    deliver(customer_deleted("cus_other"))
    WebhookEvent.objects.filter(customer_stripe_id="cus_other").update(
        customer_stripe_id="cus_acme", status="failed", processed_at=None, error="OperationalError: <disk> is full"
    )
    return WebhookEvent.objects.get(status="failed")


@pytest.fixture
def unreadable(failed: WebhookEvent) -> WebhookEvent:
    """Another one that names nobody."""
    return WebhookEvent.objects.create(
        stripe_id="evt_unreadable", livemode=False, type=failed.type, status="failed", error="no customer"
    )


def change_page(row: WebhookEvent) -> str:
    return url(WebhookEvent, row.pk, "change")


def test_they_are_found_by_whole_ids(failed: WebhookEvent) -> None:
    summary_event = WebhookEvent.objects.exclude(pk=failed.pk).get()
    support = staff(VIEW)
    assert listed(support, WebhookEvent, q=summary_event.stripe_id) == {summary_event.pk}
    assert listed(support, WebhookEvent, q="cus_acme") == {summary_event.pk, failed.pk}
    assert listed(support, WebhookEvent, q="cus_acme", status__exact="failed") == {failed.pk}
    assert listed(support, WebhookEvent, q="evt_nothing") == set()


def test_they_are_filtered(failed: WebhookEvent, unreadable: WebhookEvent) -> None:
    deliver(subscription_updated("cus_acme"))
    deliver(summary("cus_live", "sso", livemode=True))
    ignored, support = WebhookEvent.objects.get(livemode=True), staff(VIEW)
    summary_event = WebhookEvent.objects.get(type__contains="summary", livemode=False)
    subscription = WebhookEvent.objects.get(type__startswith="customer.subscription.")
    for query, found in (
        ({"status__exact": "failed"}, {failed, unreadable}),
        ({"status__exact": "pending"}, set()),
        ({"status__exact": "ignored"}, {ignored}),
        ({"livemode__exact": "1"}, {ignored}),
        ({"type": "customer.deleted"}, {failed, unreadable}),
        ({"type": "customer.subscription."}, {subscription}),
        ({"type": summary_event.type}, {summary_event, ignored}),
        ({"type": "other"}, set()),
        ({"type": "\x00", "status__exact": "failed"}, {failed, unreadable}),
    ):
        assert listed(support, WebhookEvent, **query) == {row.pk for row in found}, query


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "pending", "attempts": 0}, "waits to be processed for the first time"),
        ({"status": "pending", "attempts": 2, "next_attempt_at": timedelta(hours=1)}, "is tried again on"),
        (
            {"status": "pending", "attempts": 2, "next_attempt_at": -timedelta(hours=1)},
            "when the inbox is next worked off",
        ),
        ({"status": "processed"}, "It was applied"),
        ({"status": "ignored", "account": "acct_1"}, "of another account than the site"),
        ({"status": "ignored", "livemode": True}, "of the other mode than this site"),
        ({"status": "ignored"}, "Nothing follows from an event like this one"),
        ({"status": "failed"}, "so Stripe is asked about its customer"),
        ({"status": "failed", "customer_stripe_id": ""}, "names no customer whom Stripe could be asked about"),
        ({"sent_at": None}, "found by asking the Events API, or tried again by staff"),
        ({"sent_at": 86_400}, "By a webhook, signed at 1970-01-02 00:00:00 (UTC)."),
        ({"sent_at": 2**53}, "By a webhook, signed at 9007199254740992"),
        ({"payload": None}, "None, or forgotten"),
        ({"payload": {"data": ["<b>ä</b>"]}}, "&lt;b&gt;ä&lt;/b&gt;"),
    ],
)
def test_a_page_says_in_plain_words_how_it_is(failed: WebhookEvent, fields: dict[str, Any], words: str) -> None:
    at = fields.get("next_attempt_at")
    changed = fields | ({"next_attempt_at": timezone.now() + at} if at else {})
    WebhookEvent.objects.filter(pk=failed.pk).update(**changed)
    page = html_of(staff(VIEW).get(change_page(failed)))
    assert words in page
    assert "&lt;disk&gt; is full" in page


def test_its_customer_is_linked_for_who_may_see_customers(failed: WebhookEvent) -> None:
    link = f"/admin/entitlements_app/customer/{customer().pk}/change/"
    assert link not in html_of(staff(VIEW).get(change_page(failed)))
    assert link in html_of(staff(VIEW, "view_customer").get(change_page(failed)))
    WebhookEvent.objects.filter(pk=failed.pk).update(livemode=True)
    assert link not in html_of(staff(VIEW, "view_customer").get(change_page(failed)))


# --- try again


@BOTH
@pytest.mark.django_db(transaction=True)
def test_a_failed_event_is_tried_again_by_its_button(failed: WebhookEvent, atomic: bool) -> None:
    support, address = staff(VIEW, REPLAY), url(WebhookEvent, failed.pk, "replay")
    assert f'action="{address}"' in html_of(support.get(change_page(failed)))
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        assert said(support, address) == "It was tried again, and is processed."
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert held() == set()
    assert LogEntry.objects.get().change_message == "Tried again."
    assert f'action="{address}"' not in html_of(support.get(change_page(failed)))
    assert said(support, address).startswith("It cannot be tried again")


def test_one_that_names_nobody_can_only_be_dismissed(unreadable: WebhookEvent) -> None:
    support = staff(VIEW, REPLAY)
    page = html_of(support.get(change_page(unreadable)))
    assert "/replay/" not in page
    assert "/dismiss/" in page
    assert said(support, url(WebhookEvent, unreadable.pk, "replay")).startswith("It cannot be tried again")


# --- dismiss


def test_a_dismissed_event_is_ignored_keeps_its_reason_and_alarms_nobody(
    failed: WebhookEvent, unreadable: WebhookEvent
) -> None:
    support = staff(VIEW, REPLAY)
    for row in (failed, unreadable):
        assert said(support, url(WebhookEvent, row.pk, "dismiss")) == "It is dismissed, and counts as ignored."
    unreadable.refresh_from_db()
    assert (unreadable.status, unreadable.error) == ("ignored", "Dismissed after it had failed: no customer")
    assert "somebody dismissed it" in html_of(support.get(change_page(unreadable)))
    assert "events_failed" not in [problem.code for problem in get_problems(get_status())]
    assert [(entry.user.username, entry.change_message) for entry in LogEntry.objects.all()] == [
        ("support", "Dismissed.")
    ] * 2
    assert (
        said(support, url(WebhookEvent, unreadable.pk, "dismiss")) == "Only events that have failed can be dismissed."
    )


@BOTH
@pytest.mark.django_db(transaction=True)
def test_several_are_dismissed_and_others_left_alone(
    failed: WebhookEvent, unreadable: WebhookEvent, atomic: bool
) -> None:
    chosen = {"action": "dismiss", "_selected_action": list(WebhookEvent.objects.values_list("pk", flat=True))}
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        message = said(staff(VIEW, REPLAY), url(WebhookEvent), chosen)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert message == "2 events are dismissed. 1 event has not failed."
    assert sorted(WebhookEvent.objects.values_list("status", flat=True)) == ["ignored", "ignored", "processed"]


def test_only_what_has_failed_is_dismissed(failed: WebhookEvent) -> None:
    for row in WebhookEvent.objects.exclude(pk=failed.pk):
        with pytest.raises(ValueError, match="it has not failed"):
            inbox.dismiss(row)


def test_a_dismissed_event_that_comes_again_and_can_be_read_counts(acme: Any) -> None:
    event = summary("cus_acme", "sso")
    deliver(event)
    WebhookEvent.objects.update(status="failed", error="no room")
    row = WebhookEvent.objects.get()
    inbox.dismiss(row)
    deliver(event)
    row.refresh_from_db()
    assert (row.status, row.error) == ("processed", "")


# --- who may


@pytest.mark.parametrize("may", [(), (VIEW,), (REPLAY,)])
@pytest.mark.parametrize("action", ["replay", "dismiss"])
def test_who_may_not_is_refused_by_url_too(failed: WebhookEvent, may: tuple[str, ...], action: str) -> None:
    support = staff(*may)
    assert support.post(url(WebhookEvent, failed.pk, action)).status_code == 403
    support.post(url(WebhookEvent), {"action": action, "_selected_action": failed.pk})
    if VIEW in may:
        assert f"/{action}/" not in html_of(support.get(change_page(failed)))
        assert f'value="{action}"' not in html_of(support.get(url(WebhookEvent)))
    failed.refresh_from_db()
    assert failed.status == "failed"


@pytest.mark.parametrize("action", ["replay", "dismiss"])
def test_both_are_posts_from_our_own_page(failed: WebhookEvent, action: str) -> None:
    address = url(WebhookEvent, failed.pk, action)
    assert staff(VIEW, REPLAY).get(address).status_code == 405
    assert staff(VIEW, REPLAY, csrf=True).post(address).status_code == 403


def test_pages_cost_few_queries(failed: WebhookEvent, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso"))
    support = staff(VIEW, REPLAY, "view_customer")
    queries = ("", "?q=cus_acme", "?status__exact=failed", "?status__exact=ignored&type=other&livemode__exact=0")
    for address in [url(WebhookEvent) + query for query in queries] + [change_page(failed)]:
        with django_assert_max_num_queries(12):
            assert support.get(address).status_code == 200
