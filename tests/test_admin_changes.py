"""The change log in the admin: found by what an index knows, delivery in words, parked changes sent again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.utils import timezone

from entitlements_app.models import ChangeCount, EntitlementChange
from entitlements_app.overrides import grant
from entitlements_app.provisioning import ATTEMPTS
from tests.delivery import deliver, summary
from tests.receivers import Listener, connected
from tests.rows import make_subscriber
from tests.staff import html_of, listed, said, staff, url

pytestmark = pytest.mark.django_db

VIEW, RESEND = "view_entitlementchange", "resend_entitlementchange"


@pytest.fixture
def globex(acme: Any) -> Any:
    """acme gained sso by an event, globex audit by an override, and cus_nobody, who is nobody's, sso."""
    deliver(summary("cus_acme", "sso"))
    deliver(summary("cus_nobody", "sso"))
    subscriber = make_subscriber()
    grant(subscriber, "audit", force=True)
    EntitlementChange.objects.update(delivered_at=timezone.now())
    return subscriber


def change(**fields: Any) -> EntitlementChange:
    return EntitlementChange.objects.get(**fields)


def of_acme() -> EntitlementChange:
    return change(customer__stripe_id="cus_acme")


def park(row: EntitlementChange, **fields: Any) -> EntitlementChange:
    """As after the last attempt."""
    parked = {"delivered_at": None, "parked_at": timezone.now(), "attempts": ATTEMPTS, "error": "shop.tell: it is down"}
    EntitlementChange.objects.filter(pk=row.pk).update(**parked | fields)
    row.refresh_from_db()
    return row


def test_they_are_found_by_key_customer_and_subscriber(acme: Any, globex: Any) -> None:
    support = staff(VIEW)
    audit, nobodys = change(lookup_key="audit"), change(customer__stripe_id="cus_nobody")
    for term, found in (
        ("sso", {of_acme(), nobodys}),
        ("cus_acme", {of_acme()}),
        (str(globex.pk), {audit}),
        ("cus_unknown", set()),
        ("nothing-like-it", set()),
        ("9" * 30, set()),
    ):
        assert listed(support, EntitlementChange, q=term) == {row.pk for row in found}, term
    assert listed(support, EntitlementChange, q="cus_acme", kind__exact="revoked") == set()
    assert listed(support, EntitlementChange, q="cus_acme", kind__exact="granted") == {of_acme().pk}


def test_a_key_may_be_a_number(globex: Any) -> None:
    grant(make_subscriber(), str(10**6), force=True)
    deliver(summary("cus_number", str(10**6)))
    assert listed(staff(VIEW), EntitlementChange, q=str(10**6)) == {
        row.pk for row in EntitlementChange.objects.filter(lookup_key=str(10**6))
    }


def test_they_are_filtered(globex: Any) -> None:
    audit, nobodys, acmes = change(lookup_key="audit"), change(customer__stripe_id="cus_nobody"), of_acme()
    EntitlementChange.objects.filter(pk=nobodys.pk).update(drift="event_lost", livemode=True)
    support = staff(VIEW)
    for query, found in (
        ({"kind__exact": "granted"}, {audit, nobodys, acmes}),
        ({"kind__exact": "revoked"}, set()),
        ({"cause__exact": "override"}, {audit}),
        ({"effective__exact": "0"}, {nobodys}),
        ({"drift__exact": "event_lost"}, {nobodys}),
        ({"drift__exact": "any"}, {nobodys}),
        ({"drift__exact": "catalog"}, set()),
        ({"livemode__exact": "1"}, {nobodys}),
        ({"livemode__exact": "0", "cause__exact": "event"}, {acmes}),
        ({"delivery": "delivered"}, {audit, acmes}),
        ({"delivery": "nobody"}, {nobodys}),
        ({"delivery": "nonsense", "kind__exact": "nonsense", "drift__exact": "\x00"}, {audit, nobodys, acmes}),
    ):
        assert listed(support, EntitlementChange, **query) == {row.pk for row in found}, query


def test_delivery_is_told_in_words(globex: Any) -> None:
    support, row = staff(VIEW), of_acme()
    page = url(EntitlementChange, row.pk, "change")
    states: tuple[tuple[str, dict[str, Any]], ...] = (
        ("delivered", {}),
        ("parked", {"delivered_at": None, "parked_at": timezone.now(), "error": "shop.tell: it is down"}),
        ("waiting, failed 3 times", {"parked_at": None, "attempts": 3}),
        ("about nobody", {"subscriber": None}),
        ("about nobody", {"delivered_at": timezone.now(), "error": "Not sent: the subscriber was deleted."}),
    )
    for word, fields in states:
        EntitlementChange.objects.filter(pk=row.pk).update(**fields)
        assert f">{word}</span>" in html_of(support.get(page)), word
        assert f">{word}</span>" in html_of(support.get(url(EntitlementChange), {"q": "cus_acme"})), word


def test_the_page_of_a_change_shows_who_was_told_and_what_failed(globex: Any) -> None:
    row = park(of_acme(), receivers_done=["shop.receivers.count"], error="<b>shop.tell</b>: it is down")
    page = html_of(staff(VIEW).get(url(EntitlementChange, row.pk, "change")))
    assert "shop.receivers.count" in page
    assert "&lt;b&gt;shop.tell&lt;/b&gt;: it is down" in page
    assert "/customer/" not in page
    assert "/customer/" in html_of(staff(VIEW, "view_customer").get(url(EntitlementChange, row.pk, "change")))


# --- days


def noon(day: datetime) -> datetime:
    return day.replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
def days(globex: Any) -> Iterator[tuple[EntitlementChange, EntitlementChange]]:
    """A change of today, and one of ten days ago."""
    today, old = change(lookup_key="audit"), of_acme()
    now = (
        timezone.localtime(timezone=timezone.get_default_timezone())
        if timezone.is_aware(timezone.now())
        else timezone.now()
    )
    EntitlementChange.objects.filter(pk=old.pk).update(created_at=noon(now) - timedelta(days=10))
    EntitlementChange.objects.filter(pk=today.pk).update(created_at=now)
    EntitlementChange.objects.exclude(pk__in=[old.pk, today.pk]).delete()
    old.refresh_from_db()
    today.refresh_from_db()
    return today, old


def day_of(row: EntitlementChange) -> Any:
    at = row.created_at
    return (timezone.localtime(at, timezone.get_default_timezone()) if timezone.is_aware(at) else at).date()


@pytest.mark.parametrize("counted", [False, True])
def test_the_changes_of_a_day_are_found_counted_or_not(days: Any, counted: bool) -> None:
    today, old = days
    if counted:
        keys, none = ("first_change", "last_change"), {"granted": 0, "revoked": 0, "counted_at": timezone.now()}
        of_day = none | {"day": day_of(old)}
        ChangeCount.objects.create(livemode=False, **of_day | {"granted": 1} | dict.fromkeys(keys, old.pk))
        ChangeCount.objects.create(livemode=True, **of_day | dict.fromkeys(keys, 0))
    support = staff(VIEW)
    assert listed(support, EntitlementChange, day=day_of(old).isoformat(), kind__exact="granted") == {old.pk}
    assert listed(support, EntitlementChange, day=day_of(today).isoformat()) == {today.pk}
    assert listed(support, EntitlementChange, day="2001-01-01") == set()
    assert f"?day={day_of(today)}" in html_of(support.get(url(EntitlementChange)))


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "20260101T00", "\x00"])
def test_a_day_that_is_none_is_no_error_page(days: Any, day: str) -> None:
    answer = staff(VIEW).get(url(EntitlementChange), {"day": day})
    assert (answer.status_code, answer["Location"]) == (302, f"{url(EntitlementChange)}?e=1")


# --- send again


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic", [False, True])
def test_a_parked_change_is_sent_again_by_its_button(globex: Any, atomic: bool) -> None:
    row, listener, support = park(of_acme()), Listener(), staff(VIEW, RESEND)
    address = url(EntitlementChange, row.pk, "resend")
    assert f'action="{address}"' in html_of(support.get(url(EntitlementChange, row.pk, "change")))
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        with connected(listener):
            assert said(support, address) == "It was sent again, and every receiver succeeded."
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert listener.heard == ["+sso"]
    assert LogEntry.objects.get().object_id == str(row.pk)
    assert f'action="{address}"' not in html_of(support.get(url(EntitlementChange, row.pk, "change")))
    assert said(support, address).startswith("Only parked changes are sent again")


@pytest.mark.django_db(transaction=True)
def test_one_that_fails_again_says_when_it_is_tried_next(globex: Any) -> None:
    row, listener = park(of_acme()), Listener()
    listener.fails = 1
    with connected(listener):
        message = said(staff(VIEW, RESEND), url(EntitlementChange, row.pk, "resend"))
    assert message.startswith("It was sent again, and failed again. The next attempt is on ")


@pytest.mark.django_db(transaction=True)
def test_several_are_sent_again_and_others_left_alone(globex: Any) -> None:
    parked = [park(of_acme()), park(change(lookup_key="audit"))]
    other = change(customer__stripe_id="cus_nobody")
    listener, support = Listener(), staff(VIEW, RESEND)
    chosen = {"action": "resend", "_selected_action": [row.pk for row in [*parked, other]]}
    with connected(listener):
        message = said(support, url(EntitlementChange), chosen)
    assert message.startswith("2 changes are sent again. Only parked changes are sent again")
    assert sorted(listener.heard) == ["+audit", "+sso"]
    assert LogEntry.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_what_somebody_else_sends_meanwhile_is_not_sent_twice(globex: Any) -> None:
    first, second = park(of_acme()), park(change(lookup_key="audit"))
    listener, colleague = Listener(), staff(VIEW, RESEND, name="colleague")

    def send_the_other(change: EntitlementChange, **_: Any) -> None:
        if change.pk == first.pk:
            colleague.post(url(EntitlementChange, second.pk, "resend"))

    chosen = {"action": "resend", "_selected_action": [first.pk, second.pk]}
    with connected(listener), connected(send_the_other):
        message = said(staff(VIEW, RESEND), url(EntitlementChange), chosen)
    assert message.startswith("1 change is sent again. Only parked changes are sent again")
    assert sorted(listener.heard) == ["+audit", "+sso"]


@pytest.mark.parametrize("key", ["abc", "-1 OR 1=1", "\0", "9" * 30, "1" * 5000])
def test_made_up_keys_of_rows_are_a_bad_request(globex: Any, key: str) -> None:
    answer = staff(VIEW, RESEND).post(url(EntitlementChange), {"action": "resend", "_selected_action": key})
    assert answer.status_code == 400


def test_nobody_is_told_of_a_subscriber_that_is_gone(globex: Any) -> None:
    row = park(of_acme(), subscriber=None)
    message = said(staff(VIEW, RESEND), url(EntitlementChange, row.pk, "resend"))
    assert message == "The subscriber was deleted: there is nobody left whose change it could be."


@pytest.mark.parametrize("may", [(), (VIEW,), (RESEND,)])
def test_who_may_not_send_is_refused_by_url_too(globex: Any, may: tuple[str, ...]) -> None:
    row, support = park(of_acme()), staff(*may)
    assert support.post(url(EntitlementChange, row.pk, "resend")).status_code == 403
    support.post(url(EntitlementChange), {"action": "resend", "_selected_action": row.pk})
    if VIEW in may:
        assert "/resend/" not in html_of(support.get(url(EntitlementChange, row.pk, "change")))
        assert 'value="resend"' not in html_of(support.get(url(EntitlementChange)))
    row.refresh_from_db()
    assert row.parked_at is not None


def test_sending_is_a_post_from_our_own_page(globex: Any) -> None:
    row = park(of_acme())
    assert staff(VIEW, RESEND).get(url(EntitlementChange, row.pk, "resend")).status_code == 405
    assert staff(VIEW, RESEND, csrf=True).post(url(EntitlementChange, row.pk, "resend")).status_code == 403


def test_pages_cost_few_queries(globex: Any, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso", "audit"))
    support = staff(VIEW, RESEND, "view_customer")
    queries = (
        "",
        "?q=sso&kind__exact=granted",
        f"?q={globex.pk}",
        "?q=cus_acme",
        "?delivery=parked",
        "?day=2026-01-01",
    )
    for address in [url(EntitlementChange) + query for query in queries] + [
        url(EntitlementChange, of_acme().pk, "change")
    ]:
        with django_assert_max_num_queries(12):
            assert support.get(address).status_code == 200
