"""Overrides in the admin: made by a form and ended by a button, through `overrides`, and never edited."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from entitlements_app.access import has_entitlement
from entitlements_app.models import EntitlementOverride
from entitlements_app.overrides import deny, end, grant
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, effective, make_subscriber
from tests.staff import html_of, listed, said, staff, url

pytestmark = pytest.mark.django_db

VIEW, ADD, END = "view_entitlementoverride", "add_entitlementoverride", "end_entitlementoverride"
HOUR = timedelta(hours=1)
ADD_URL = url(EntitlementOverride, "add")


@pytest.fixture
def ada(acme: Any) -> Any:
    """A subscriber who holds audit, in a catalogue with sso."""
    deliver(summary("cus_other", "sso"))
    deliver(summary("cus_acme", "audit"))
    return acme


def filled(subscriber: Any, **fields: str) -> dict[str, str]:
    return {"effect": "grant", "subscriber": f"pk:{subscriber.pk}", "lookup_key": "sso", "reason": "pilot", **fields}


def last() -> EntitlementOverride:
    return EntitlementOverride.objects.latest("pk")


# --- grant and deny


def test_a_key_is_granted_and_the_answer_told(ada: Any) -> None:
    message = said(staff(VIEW, ADD), ADD_URL, filled(ada))
    assert f"“sso” is granted to {ada}. Is it entitled now? Yes: an override grants it" in message
    assert has_entitlement(ada, "sso")
    made = last()
    assert (made.author.username, made.reason, made.expires_at) == ("support", "pilot", None)
    assert effective() == ["+audit", "+sso"]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.is_addition()) == (str(made.pk), True)


def test_a_key_is_denied_and_the_answer_told(ada: Any) -> None:
    message = said(staff(VIEW, ADD), ADD_URL, filled(ada, effect="deny", lookup_key="audit"))
    assert f"“audit” is denied to {ada}. Is it entitled now? No: an override denies it" in message
    assert not has_entitlement(ada, "audit")


def test_a_day_ends_where_staff_lives_and_a_time_is_to_the_minute(ada: Any) -> None:
    with time_machine.travel(datetime(2027, 3, 1, 12, tzinfo=UTC), tick=False):
        support = staff(VIEW, ADD)
        said(support, ADD_URL, filled(ada, starts_0="2027-03-02", until_0="2027-03-31"))
        zone = timezone.get_default_timezone()
        begin, end_of_day = datetime(2027, 3, 2), datetime(2027, 4, 1)
        expected = [
            moment.replace(tzinfo=zone) if timezone.is_aware(timezone.now()) else moment
            for moment in (begin, end_of_day)
        ]
        assert [last().starts_at, last().expires_at] == expected
        said(support, ADD_URL, filled(ada, until_0="2027-03-31", until_1="09:30"))
        assert (expected[1] - last().expires_at) == timedelta(hours=14, minutes=30)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"lookup_key": "ssso"}, "No known feature has this key."),
        ({"subscriber": "nobody-of-that-name"}, "There is no"),
        ({"subscriber": "cus_other"}, "is linked to nobody"),
        ({"until_0": "2020-01-01"}, "This moment is over"),
        ({"starts_0": "2099-01-02", "until_0": "2099-01-01", "until_1": "12:00"}, "It would end before it starts."),
        ({"until_1": "12:00"}, "Name the day as well."),
        ({"until_0": "9999-12-31"}, "leave it empty"),
        ({"until_0": "soon"}, "Enter a valid date."),
        ({"reason": ""}, "This field is required."),
        ({"effect": "maybe"}, "Select a valid choice."),
    ],
)
def test_what_cannot_be_is_an_error_beside_its_field_and_nothing_typed_is_lost(
    ada: Any, fields: dict[str, str], error: str
) -> None:
    typed = {"reason": "ticket 4711"} | fields
    page = html_of(staff(VIEW, ADD).post(ADD_URL, filled(ada) | typed))
    assert error in page
    for text in typed.values():
        assert text in page
    assert not EntitlementOverride.objects.exists()
    assert not LogEntry.objects.exists()


def test_who_is_sure_grants_a_key_that_is_still_to_come(ada: Any) -> None:
    support = staff(VIEW, ADD)
    assert 'name="force"' not in html_of(support.get(ADD_URL))
    assert 'name="force"' in html_of(support.post(ADD_URL, filled(ada, lookup_key="beta")))
    said(support, ADD_URL, filled(ada, lookup_key="beta", force="on"))
    assert has_entitlement(ada, "beta")


def test_a_link_fills_the_form_in_and_known_keys_are_offered(ada: Any) -> None:
    query = {"subscriber": str(ada.pk), "lookup_key": "sso", "effect": "deny"}
    page = html_of(staff(VIEW, ADD).get(ADD_URL, query))
    assert f'value="{ada.pk}"' in page
    assert '<option value="deny" selected>' in page
    assert '<option value="audit"></option>' in page


@pytest.mark.skipif(BY_ORGANISATION, reason="the organisations of these tests have no page in the admin")
def test_the_subscriber_is_looked_up_by_who_may_see_subscribers(ada: Any) -> None:
    assert "related-lookup" not in html_of(staff(VIEW, ADD).get(ADD_URL))
    admin = User.objects.create_superuser("root")
    client = staff(VIEW, ADD)
    client.force_login(admin)
    assert "related-lookup" in html_of(client.get(ADD_URL))


def test_a_hostile_name_is_text(ada: Any) -> None:
    field = "name" if BY_ORGANISATION else "username"
    setattr(ada, field, "<script>alert(1)</script>")
    ada.save()
    support = staff(VIEW, ADD, END)
    page = support.post(ADD_URL, filled(ada, reason="<script>x</script>"), follow=True).content.decode()
    pages = [
        page,
        html_of(support.get(url(EntitlementOverride))),
        html_of(support.get(url(EntitlementOverride, last().pk, "change"))),
    ]
    assert not [page for page in pages if "<script>alert" in page or "<script>x" in page]
    assert all("&lt;script&gt;alert(1)" in page for page in pages)


def test_who_may_only_add_is_led_to_the_index(ada: Any) -> None:
    answer = staff(ADD).post(ADD_URL, filled(ada))
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert EntitlementOverride.objects.exists()


@pytest.mark.parametrize("may", [(), (VIEW,), (VIEW, END)])
def test_who_may_not_add_is_refused_by_url_too(ada: Any, may: tuple[str, ...]) -> None:
    support = staff(*may)
    assert support.get(ADD_URL).status_code == 403
    assert support.post(ADD_URL, filled(ada)).status_code == 403
    if may:
        assert "addlink" not in html_of(support.get(url(EntitlementOverride)))
    assert not EntitlementOverride.objects.exists()


def test_forms_of_other_sites_do_nothing(ada: Any) -> None:
    made = grant(ada, "sso")
    support = staff(VIEW, ADD, END, csrf=True)
    assert support.post(ADD_URL, filled(ada)).status_code == 403
    assert support.post(url(EntitlementOverride, made.pk, "end")).status_code == 403
    assert support.post(url(EntitlementOverride), {"action": "end", "_selected_action": made.pk}).status_code == 403
    assert has_entitlement(ada, "sso")


# --- end


def test_one_is_ended_by_its_button(ada: Any) -> None:
    made, other = grant(ada, "sso", reason="pilot"), grant(ada, "sso")
    support = staff(VIEW, END)
    page, address = url(EntitlementOverride, made.pk, "change"), url(EntitlementOverride, made.pk, "end")
    assert f'action="{address}"' in html_of(support.get(page))
    assert f"Is {ada} entitled to “sso” now? Yes" in said(support, address)
    assert "? No" in said(support, url(EntitlementOverride, other.pk, "end"))
    assert effective() == ["+audit", "+sso", "-sso"]
    assert EntitlementOverride.objects.count() == 2
    assert f'action="{address}"' not in html_of(support.get(page))
    assert said(support, address) == "It is over already."
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "Ended: grant “sso”: pilot",
        "Ended: grant “sso”",
    ]


def test_one_to_come_is_called_off_and_gone(ada: Any) -> None:
    made = grant(ada, "sso", starts=timezone.now() + HOUR)
    support = staff(VIEW, END)
    assert "Call it off" in html_of(support.get(url(EntitlementOverride, made.pk, "change")))
    answer = support.post(url(EntitlementOverride, made.pk, "end"))
    assert (answer.status_code, answer["Location"]) == (302, url(EntitlementOverride))
    assert not EntitlementOverride.objects.exists()
    assert support.post(url(EntitlementOverride, made.pk, "end")).status_code == 404


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.django_db(transaction=True)
def test_several_are_ended_at_once_each_by_itself(ada: Any, atomic: bool) -> None:
    over = grant(ada, "sso")
    end(over)
    chosen = [over, grant(ada, "sso"), deny(ada, "audit"), grant(make_subscriber(), "sso")]
    data = {"action": "end", "_selected_action": [row.pk for row in chosen]}
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        message = said(staff(VIEW, END), url(EntitlementOverride), data)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert message == "3 overrides have ended. 1 override was over already."
    assert not EntitlementOverride.objects.in_force(timezone.now()).exists()
    assert LogEntry.objects.count() == 3


@pytest.mark.parametrize("may", [(), (VIEW,), (VIEW, ADD), (END,)])
def test_who_may_not_end_is_refused_by_url_too(ada: Any, may: tuple[str, ...]) -> None:
    made = grant(ada, "sso")
    support = staff(*may)
    assert support.post(url(EntitlementOverride, made.pk, "end")).status_code == 403
    support.post(url(EntitlementOverride), {"action": "end", "_selected_action": made.pk})
    if VIEW in may:
        assert "/end/" not in html_of(support.get(url(EntitlementOverride, made.pk, "change")))
        assert 'value="end"' not in html_of(support.get(url(EntitlementOverride)))
    assert has_entitlement(ada, "sso")


def test_nobody_edits_one(ada: Any) -> None:
    made = grant(ada, "sso", reason="pilot")
    support = staff(VIEW, ADD, END)
    assert support.post(url(EntitlementOverride, made.pk, "change"), {"reason": "another"}).status_code == 403
    assert last().reason == "pilot"


def test_end_ends_what_is_in_force_deletes_what_is_to_come_and_refuses_what_is_over(ada: Any) -> None:
    now, later = grant(ada, "sso"), grant(ada, "sso", starts=timezone.now() + HOUR)
    end(later)
    assert has_entitlement(ada, "sso")
    end(now)
    assert not has_entitlement(ada, "sso")
    assert list(EntitlementOverride.objects.all()) == [now]
    for over in (now, later):
        with pytest.raises(ValueError, match="over already"):
            end(over)
    assert effective() == ["+audit", "+sso", "-sso"]


# --- lists


def test_they_are_found_by_state_effect_key_and_subscriber(ada: Any) -> None:
    now, denied = grant(ada, "sso"), deny(ada, "audit")
    later = grant(make_subscriber(), "sso", starts=timezone.now() + HOUR)
    over = grant(ada, "sso")
    end(over)
    support = staff(VIEW)
    for query, found in (
        ({"state": "in_force"}, {now, denied}),
        ({"state": "to_come"}, {later}),
        ({"state": "over"}, {over}),
        ({"effect__exact": "deny"}, {denied}),
        ({"q": "sso"}, {now, later, over}),
        ({"q": "sso", "state": "to_come"}, {later}),
        ({"q": str(ada.pk)}, {now, denied, over}),
        ({"q": "cus_acme"}, {now, denied, over}),
        ({"q": "nothing-like-it"}, set()),
        ({}, {now, denied, later, over}),
    ):
        assert listed(support, EntitlementOverride, **query) == {row.pk for row in found}, query
    page = html_of(support.get(url(EntitlementOverride)))
    assert all(word in page for word in ("in force", "to come", "over"))


@pytest.mark.skipif(BY_ORGANISATION, reason="organisations of these tests have no natural key")
def test_they_are_found_by_the_subscriber_s_name(ada: Any) -> None:
    made = grant(ada, "sso")
    assert listed(staff(VIEW), EntitlementOverride, q=ada.username) == {made.pk}


def test_pages_cost_few_queries(ada: Any, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        made = grant(make_subscriber(), "sso", by=User.objects.first())
    support = staff(VIEW, ADD, END)
    for address in (
        url(EntitlementOverride),
        f"{url(EntitlementOverride)}?q={ada.pk}",
        f"{url(EntitlementOverride)}?state=over",
        url(EntitlementOverride, made.pk, "change"),
        ADD_URL,
    ):
        with django_assert_max_num_queries(12):
            assert support.get(address).status_code == 200
