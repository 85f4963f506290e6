"""Support types what it knows of a customer, and finds it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from entitlements_app.customer_search import MOST, find_customers
from entitlements_app.linking import link
from entitlements_app.models import Customer
from entitlements_app.subscriber_search import LOOKED_THROUGH
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, make_subscriber
from tests.staff import staff

pytestmark = pytest.mark.django_db

LIST = "/admin/entitlements_app/customer/"
ON_POSTGRESQL = connection.vendor == "postgresql"


@pytest.fixture
def support(db: None) -> Client:
    """Support staff who may view, and nothing else."""
    return staff("view_customer")


@pytest.fixture
def ada(acme: Any) -> Customer:
    """A customer whose e-mail and name Stripe has told, among others."""
    link(make_subscriber(), "cus_bob")
    Customer.objects.create(
        stripe_id="cus_live", livemode=True, name="Ada-Marie O'Brien Live", email="ada@live.example"
    )
    Customer.objects.filter(stripe_id="cus_bob").update(name="Bob & Sons GmbH", email="bob@example.com")
    Customer.objects.filter(stripe_id="cus_acme").update(name="Ada-Marie O'Brien", email="Ada.OBrien@example.com")
    return Customer.objects.get(stripe_id="cus_acme")


def found(term: str) -> set[str]:
    return set(Customer.objects.filter(pk__in=find_customers(term).customers).values_list("stripe_id", flat=True))


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("cus_acme", {"cus_acme"}),
        ("  cus_acme\t", {"cus_acme"}),
        ("cus_live", {"cus_live"}),
        ("cus_acm", set()),
        ("ada.obrien@EXAMPLE.com", {"cus_acme"}),
        ("ada@example.com", set()),
        ("obrien", set()),
        ("brien", {"cus_acme", "cus_live"}),
        ("O'Brien  ada", {"cus_acme", "cus_live"}),
        ("ada-marie live", {"cus_live"}),
        ("ada bob", set()),
        ("bob & sons", {"cus_bob"}),
        ("SON", {"cus_bob"}),
        ("gm so b", {"cus_bob"}),
    ],
)
def test_a_customer_is_found_by_what_it_is_called(ada: Customer, term: str, names: set[str]) -> None:
    assert found(term) == names


def test_a_customer_is_found_by_its_subscriber(ada: Customer) -> None:
    who = ada.subscriber
    assert found(str(who.pk)) == {"cus_acme"}
    assert found(str(who)) == found(str(who).upper()) == {"cus_acme"} if BY_ORGANISATION else {"cus_acme"}


@pytest.mark.skipif(BY_ORGANISATION, reason="organisations have no e-mail address")
def test_a_customer_is_found_by_the_e_mail_of_its_user(ada: Customer) -> None:
    User.objects.filter(pk=ada.subscriber.pk).update(email="Ada@work.example")
    assert found("ada@Work.example") == {"cus_acme"}


@pytest.mark.postgresql
def test_what_has_no_index_is_found_in_a_big_table_once_it_has_one(db: None) -> None:
    table, column, term, many = _ORGANISATIONS if BY_ORGANISATION else _USERS
    with connection.cursor() as cursor:
        cursor.execute(many, [LOOKED_THROUGH + 1])
        assert find_customers(term).without_customer == frozenset()
        cursor.execute(f"CREATE INDEX ON {table} (UPPER({column}))")
    assert len(find_customers(term).without_customer) == 1


_ORGANISATIONS = (
    "testapp_organisation",
    "name",
    "Firm-1",
    """
    INSERT INTO testapp_organisation (id, name) SELECT gen_random_uuid(), 'firm-' || n FROM generate_series(0, %s) n""",
)
_USERS = (
    "auth_user",
    "email",
    "Firm-1@example.com",
    """
    INSERT INTO auth_user (username, first_name, last_name, email, password, is_superuser, is_staff, is_active,
        date_joined)
    SELECT n, '', '', 'firm-' || n || '@example.com', '', false, false, true, now() FROM generate_series(0, %s) n""",
)


STRANGE = [
    "\0",
    "ada\0",
    "cus_acme\0",
    "ada@example.com\0",
    "\ud800",
    "a" * 10_000,
    "é" * 512,
    " ".join("abcdefghij" * 5),
    "🎉",
    "🎉 nobody",
    "nobody:* | !ada",
    "' | 'zed",
    "\\",
    "\\'",
    "'':*",
    "x & | ! ( ) <-> y",
    "%",
    "_",
    "9" * 400,
    "-1",
    "1e5",
    "@",
    "@@",
    "nobody@nowhere.example",
    "cus_",
    "00000000-0000-0000-0000-000000000000",
    "²",
    "",
    " \t ",
]


@pytest.mark.parametrize("term", STRANGE)
def test_whatever_is_typed_finds_nothing_it_does_not_name(ada: Customer, admin_client: Client, term: str) -> None:
    assert find_customers(term).customers == frozenset()
    assert admin_client.get(LIST, {"q": term.encode(errors="replace")}).status_code == 200


def test_more_than_can_be_shown_is_said(admin_client: Client) -> None:
    Customer.objects.bulk_create(
        Customer(stripe_id=f"cus_{number}", livemode=False, name=f"Common {number}") for number in range(MOST + 5)
    )
    assert len(find_customers("common").customers) == MOST
    assert b"More customers match" in admin_client.get(LIST, {"q": "common"}).content
    assert b"More customers match" not in admin_client.get(LIST, {"q": "common 7"}).content


def test_a_subscriber_without_a_customer_is_named(ada: Customer, support: Client) -> None:
    alone = make_subscriber()
    said = support.get(LIST, {"q": str(alone.pk)}).content.decode()
    assert f"{alone} ({alone._meta.verbose_name}) has no Stripe customer." in said
    assert "has no Stripe customer" not in support.get(LIST, {"q": str(ada.subscriber.pk)}).content.decode()
    assert "has no Stripe customer" not in support.get(LIST, {"q": "nobody"}).content.decode()


def test_a_name_from_outside_is_text(support: Client) -> None:
    Customer.objects.create(stripe_id="cus_evil", livemode=False, name="<script>1</script>", email="<b>@evil.example")
    said = support.get(LIST, {"q": "cus_evil"}).content.decode()
    assert '&lt;script&gt;1&lt;/script&gt;<span class="ent-below">&lt;b&gt;@evil.example' in said


@pytest.mark.parametrize("query", [{}, {"q": "brien"}, {"q": "cus_live"}, {"q": "a@b.example"}, {"state": "due"}])
def test_a_page_takes_few_queries(
    ada: Customer, support: Client, query: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        link(make_subscriber(), f"cus_{number}")
    with django_assert_max_num_queries(12):
        assert support.get(LIST, query).status_code == 200


def test_the_address_does_not_choose_another_order(ada: Customer, admin_client: Client) -> None:
    rows = [row.pk for row in admin_client.get(LIST, {"o": "1"}).context["cl"].result_list]
    assert rows == sorted(rows, reverse=True)


def test_what_a_customer_holds_is_found_by_its_e_mail_address(ada: Customer, admin_client: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    deliver(summary("cus_bob", "audit"))
    for term, keys in {"ADA.OBrien@example.com": ["sso"], "nobody@example.com": []}.items():
        listed = admin_client.get("/admin/entitlements_app/activeentitlement/", {"q": term}).context["cl"].result_list
        assert [row.lookup_key for row in listed] == keys


# Filters


def listed(client: Client, **query: str) -> set[str]:
    return {row.stripe_id for row in client.get(LIST, query).context["cl"].result_list}


@pytest.fixture
def all_sorts(db: None) -> None:
    now, later = timezone.now(), timezone.now() + timedelta(days=1)
    fine: dict[str, Any] = {"window_from": 1, "window_to": 1, "next_fetch_at": later, "fetched_at": now}
    for stripe_id, values in {
        "cus_fine": {},
        "cus_urgent": {"urgent": True, "hinted_at": now, "next_fetch_at": now},
        "cus_marked": {"hinted_at": now},
        "cus_due": {"next_fetch_at": now},
        "cus_missing": {"missing_since": now},
        "cus_deleted": {"deleted_at": now, "next_fetch_at": None, "hinted_at": now},
        "cus_failing": {"fetch_failures": 2},
        "cus_new": {"window_from": None, "window_to": None},
        "cus_live": {"livemode": True, "urgent": True},
        "cus_theirs": {"account": "acct_other"},
    }.items():
        Customer.objects.create(**{"stripe_id": stripe_id, "livemode": False, **fine, **values})
    link(make_subscriber(), "cus_fine")
    Customer.objects.filter(stripe_id="cus_fine").update(hinted_at=None, urgent=False, **fine)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"state": "urgent"}, {"urgent"}),
        ({"state": "marked"}, {"urgent", "marked"}),
        ({"state": "due"}, {"urgent", "due"}),
        ({"state": "missing"}, {"missing"}),
        ({"state": "deleted"}, {"deleted"}),
        ({"state": "nonsense"}, None),
        ({"livemode__exact": "1"}, {"live"}),
        ({"livemode__exact": "1", "state": "urgent"}, set()),
        ({"livemode__exact": "x"}, None),
        ({"linked": "yes"}, {"fine"}),
        ({"linked": "no", "livemode__exact": "1"}, {"live"}),
        ({"state": "marked", "q": "cus_marked"}, {"marked"}),
        ({"state": "due", "q": "cus_marked"}, set()),
    ],
)
def test_customers_are_filtered(
    all_sorts: None, support: Client, query: dict[str, str], names: set[str] | None
) -> None:
    everybody = set(Customer.objects.values_list("stripe_id", flat=True))
    assert listed(support, **query) == (everybody if names is None else {f"cus_{name}" for name in names})


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("fine", "confirmed"),
        ("urgent", "urgent"),
        ("marked", "marked"),
        ("missing", "unknown to Stripe"),
        ("deleted", "deleted"),
        ("failing", "cannot be fetched"),
        ("new", "not confirmed yet"),
        ("live", "not asked about"),
        ("theirs", "not asked about"),
    ],
)
def test_a_customer_s_state_is_a_word(all_sorts: None, support: Client, name: str, word: str) -> None:
    said = support.get(LIST, {"q": f"cus_{name}"}).content.decode()
    assert f">{word}</span>" in said


def test_the_mode_is_told_and_whose_account(all_sorts: None, support: Client) -> None:
    assert ">live</td>" in support.get(LIST, {"q": "cus_live"}).content.decode()
    assert ">test, acct_other</td>" in support.get(LIST, {"q": "cus_theirs"}).content.decode()
