"""Active entitlements in the admin: who has a feature, what a customer holds, and all of it as CSV."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.client import AsyncClient

from entitlements_app.admin import csv_export
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Customer, Feature
from entitlements_app.overrides import grant
from tests.delivery import deliver, summary
from tests.rows import make_subscriber
from tests.staff import html_of, listed, staff, url
from tests.threads import together

pytestmark = pytest.mark.django_db

VIEW, EXPORT = "view_activeentitlement", "export_activeentitlement"
EXPORT_URL = "/admin/entitlements_app/activeentitlement/export/"


@pytest.fixture
def globex(acme: Any) -> Any:
    """acme holds sso and audit; globex, another subscriber, holds sso."""
    deliver(summary("cus_acme", "sso", "audit"))
    deliver(summary("cus_globex", "sso"))
    subscriber = make_subscriber()
    link(subscriber, "cus_globex")
    return subscriber


def later() -> int:
    return int(time.time()) + 1


def pk(customer: str, key: str) -> int:
    return ActiveEntitlement.objects.get(customer__stripe_id=customer, lookup_key=key).pk


def exported(client: Client, query: str = "") -> list[dict[str, str]]:
    answer = client.post(EXPORT_URL + query)
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_by_feature_who_has_it_and_by_customer_what_it_holds(globex: Any) -> None:
    support = staff(VIEW)
    sso = Feature.objects.get(lookup_key="sso")
    everyone = {pk("cus_acme", "sso"), pk("cus_globex", "sso")}
    assert listed(support, ActiveEntitlement, feature__id__exact=sso.pk) == everyone
    assert listed(support, ActiveEntitlement, q="sso") == everyone
    assert listed(support, ActiveEntitlement, q="cus_acme") == {pk("cus_acme", "sso"), pk("cus_acme", "audit")}
    assert listed(support, ActiveEntitlement, q="cus_acme", feature__id__exact=sso.pk) == {pk("cus_acme", "sso")}
    for nothing in ("cus_nobody", "no_such_key"):
        assert listed(support, ActiveEntitlement, q=nothing) == set()


def test_a_part_of_a_name_finds_features_but_the_whole_key_that_one_alone(globex: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit", "sso_extra", created=later()))
    Feature.objects.filter(lookup_key="audit").update(name="Audit log")
    support = staff(VIEW)
    assert listed(support, ActiveEntitlement, q="log") == {pk("cus_acme", "audit")}
    assert pk("cus_acme", "sso_extra") not in listed(support, ActiveEntitlement, q="sso")
    assert pk("cus_acme", "sso_extra") in listed(support, ActiveEntitlement, q="sso_")


def test_a_key_may_look_like_a_customer(globex: Any) -> None:
    deliver(summary("cus_globex", "cus_tom", created=later()))
    assert listed(staff(VIEW), ActiveEntitlement, q="cus_tom") == {pk("cus_globex", "cus_tom")}


def test_modes_are_told_apart(globex: Any) -> None:
    live = Customer.objects.create(stripe_id="cus_acme", livemode=True)
    feature = Feature.objects.create(stripe_id="feat_live", lookup_key="sso", livemode=True)
    row = ActiveEntitlement.objects.create(customer=live, feature=feature, lookup_key="sso", stripe_id="ent_live")
    support = staff(VIEW)
    assert listed(support, ActiveEntitlement, feature__livemode__exact="1") == {row.pk}
    assert row.pk not in listed(support, ActiveEntitlement, feature__livemode__exact="0")
    assert row.pk in listed(support, ActiveEntitlement, q="cus_acme")
    assert '<div class="readonly">live</div>' in html_of(support.get(url(ActiveEntitlement, row.pk, "change")))


def test_features_are_chosen_from_one_list(globex: Any) -> None:
    page = html_of(staff(VIEW).get(url(ActiveEntitlement), {"q": "sso"}))
    assert '<select name="feature__id__exact"' in page
    assert '<input type="hidden" name="q" value="sso">' in page
    assert "?feature__id__exact" not in page


@pytest.mark.parametrize("wrong", ["x", "-1", "9" * 40, "１"])
def test_a_feature_that_is_no_number_is_no_error_page(globex: Any, wrong: str) -> None:
    support = staff(VIEW, EXPORT)
    answer = support.get(url(ActiveEntitlement), {"feature__id__exact": wrong})
    assert (answer.status_code, answer["Location"]) == (302, f"{url(ActiveEntitlement)}?e=1")
    assert support.post(f"{EXPORT_URL}?feature__id__exact={wrong}").status_code == 302


def test_names_of_others_link_only_where_staff_may_look(globex: Any) -> None:
    page = html_of(staff(VIEW).get(url(ActiveEntitlement)))
    assert "cus_acme" in page
    assert "/customer/" not in page
    assert "/customer/" in html_of(staff(VIEW, "view_customer").get(url(ActiveEntitlement)))


def test_nobody_sorts_a_big_table_by_another_column(globex: Any, django_assert_max_num_queries: Any) -> None:
    support = staff(VIEW)
    with django_assert_max_num_queries(12) as queries:
        support.get(url(ActiveEntitlement), {"o": "1.-5", "q": "sso"})
    orders = [query["sql"].partition("ORDER BY")[2] for query in queries.captured_queries]
    assert not [order for order in orders if '"entitlements_app_activeentitlement"."lookup_key"' in order]


# --- CSV


def test_what_is_filtered_is_exported_with_who_they_are(globex: Any) -> None:
    Customer.objects.filter(stripe_id="cus_globex").update(email="hank@globex.example", name="Hank Scorpio, Ä")
    rows = exported(staff(VIEW, EXPORT), "?q=cus_globex")
    assert len(rows) == 1
    since = rows[0].pop("since")
    assert since == ActiveEntitlement.objects.get(pk=pk("cus_globex", "sso")).created_at.isoformat()
    feature = Feature.objects.get(lookup_key="sso")
    assert rows[0] == {
        "lookup_key": "sso",
        "feature": feature.stripe_id,
        "feature_name": "",
        "customer": "cus_globex",
        "email": "hank@globex.example",
        "name": "Hank Scorpio, Ä",
        "subscriber_id": str(globex.pk),
        "subscriber": str(globex),
        "mode": "test",
        "confirmed": "",
    }
    assert len(exported(staff(VIEW, EXPORT))) == 3
    assert len(exported(staff(VIEW, EXPORT), f"?feature__id__exact={feature.pk}")) == 2


def test_an_export_has_a_name_with_its_date_and_is_kept_nowhere(globex: Any) -> None:
    answer = staff(VIEW, EXPORT).post(EXPORT_URL)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="active-entitlements-20')
    assert "no-store" in answer["Cache-Control"]
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id, entry.change_message) == (
        "support",
        None,
        "Exported as CSV: all rows",
    )


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(globex: Any, begin: str) -> None:
    hostile = f'{begin}HYPERLINK("http://evil.example","a")'
    Customer.objects.filter(stripe_id="cus_globex").update(email=hostile, name=hostile)
    row = exported(staff(VIEW, EXPORT), "?q=cus_globex")[0]
    assert row["email"] == row["name"] == f"'{hostile}"


def test_no_cell_ends_at_a_semicolon(globex: Any) -> None:
    """At which spreadsheets of some countries begin a new one, that could be a formula."""
    Customer.objects.filter(stripe_id="cus_globex").update(name="Globex;=cmd|' /C calc'!A1")
    answer = staff(VIEW, EXPORT).post(f"{EXPORT_URL}?q=cus_globex")
    assert b""","Globex;=cmd|' /C calc'!A1",""" in b"".join(answer.streaming_content)


def test_names_of_others_are_text_on_the_page(globex: Any) -> None:
    Feature.objects.filter(lookup_key="sso").update(name="<script>alert(1)</script>")
    page = html_of(staff(VIEW).get(url(ActiveEntitlement)))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("may", [(), (VIEW,), (EXPORT,)])
def test_who_may_not_export_is_refused_by_url_too(globex: Any, may: tuple[str, ...]) -> None:
    support = staff(*may)
    assert support.post(EXPORT_URL).status_code == 403
    if VIEW in may:
        assert "Export" not in html_of(support.get(url(ActiveEntitlement)))
    assert not LogEntry.objects.exists()


def test_an_export_is_a_post_from_our_own_page(globex: Any) -> None:
    assert staff(VIEW, EXPORT).get(EXPORT_URL).status_code == 405
    assert staff(VIEW, EXPORT, csrf=True).post(EXPORT_URL).status_code == 403
    page = html_of(staff(VIEW, EXPORT).get(url(ActiveEntitlement), {"q": "sso"}))
    assert f'<form method="post" action="{EXPORT_URL}?q=sso">' in page


@pytest.fixture
def crowd(transactional_db: None) -> int:
    """More customers of one feature than are read at once."""
    number = csv_export.CHUNK + 50
    feature = Feature.objects.create(stripe_id="feat_sso", lookup_key="sso", livemode=False)
    customers = [Customer(stripe_id=f"cus_{nth}", livemode=False) for nth in range(number)]
    rows = [
        ActiveEntitlement(customer=row, feature=feature, lookup_key="sso", stripe_id=f"ent_{row.pk}")
        for row in Customer.objects.bulk_create(customers)
    ]
    ActiveEntitlement.objects.bulk_create(rows)
    return number


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic", [False, True])
def test_an_export_is_read_in_chunks_between_which_others_write(
    crowd: int, atomic: bool, django_assert_num_queries: Any
) -> None:
    support = staff(VIEW, EXPORT)
    connection.settings_dict["ATOMIC_REQUESTS"] = atomic
    try:
        chunks = iter(support.post(EXPORT_URL).streaming_content)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert next(chunks).startswith(b'"lookup_key","feature",')
    with django_assert_num_queries(1):
        assert next(chunks).count(b"\r\n") == csv_export.CHUNK
    together(lambda: deliver(summary("cus_new", "sso")))
    assert not connection.in_atomic_block
    with django_assert_num_queries(2):
        assert b"".join(chunks).count(b"\r\n") == crowd - csv_export.CHUNK + 1


async def export_in_event_loop() -> list[bytes]:
    client = AsyncClient()
    await client.aforce_login(await User.objects.aget(username="support"))
    answer = await client.post(EXPORT_URL)
    return [part async for part in answer.streaming_content]


@pytest.mark.django_db(transaction=True)
def test_an_event_loop_is_given_the_same_chunks(crowd: int) -> None:
    staff(VIEW, EXPORT)
    chunks = async_to_sync(export_in_event_loop)()
    assert len(chunks) == 3
    assert b"".join(chunks).count(b"\r\n") == crowd + 1


def test_a_list_costs_few_queries(globex: Any, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso", "audit"))
    grant(globex, "sso")
    support = staff(VIEW, EXPORT, "view_customer")
    for query in ({}, {"q": "sso"}, {"q": "cus_acme", "feature__livemode__exact": "0"}):
        with django_assert_max_num_queries(12):
            support.get(url(ActiveEntitlement), query)
