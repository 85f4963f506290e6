"""Who a customer is: the admin knows it from dj-stripe, before Stripe is asked."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from djstripe.models import Customer as Theirs

from entitlements_app import linking
from entitlements_app.contrib.djstripe import customers, details
from entitlements_app.models import Customer
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator
from entitlements_app.testing.factories import CustomerFactory
from tests.rows import customer, make_subscriber

pytestmark = pytest.mark.django_db(transaction=True)


def theirs(stripe_id: str = "cus_acme", *, name: Any = "Acme", **said: Any) -> Any:
    row = {"email": "billing@acme.example", "stripe_data": {"name": name}, "livemode": False}
    return Theirs.objects.create(id=stripe_id, subscriber=make_subscriber(), **(row | said))


def known_as(stripe_id: str = "cus_acme") -> tuple[str, str]:
    row = customer(stripe_id)
    return row.email, row.name


def run() -> str:
    out = StringIO()
    call_command("entitlements_link_djstripe", stdout=out, stderr=StringIO())
    return out.getvalue()


def forget() -> None:
    Customer.objects.update(email="", name="", metadata={"seats": "5"})


def test_a_customer_that_dj_stripe_makes_is_known_by_name_and_found(admin_client: Any) -> None:
    theirs()
    assert known_as() == ("billing@acme.example", "Acme")
    found = admin_client.get(reverse("admin:entitlements_app_customer_changelist"), {"q": "billing@acme.example"})
    assert "cus_acme" in found.content.decode()


def test_a_customer_is_known_by_the_name_that_stripe_tells_dj_stripe(simulator: StripeSimulator) -> None:
    row = Theirs.create(make_subscriber())
    said = simulator.call("POST", f"/v1/customers/{row.id}", {"name": "Acme Ltd", "email": "books@acme.example"})
    assert known_as(row.id) == ("", ""), "dj-stripe has kept neither of what it has sent"
    Theirs.sync_from_stripe_data(said)
    assert known_as(row.id) == ("books@acme.example", "Acme Ltd")


def test_what_dj_stripe_saves_is_taken_and_an_empty_text_says_nothing() -> None:
    row = theirs()
    row.stripe_data = {"name": "Acme Ltd"}
    row.email = ""
    row.save()
    assert known_as() == ("billing@acme.example", "Acme Ltd")
    for strange in (None, 5, ["Acme"], "A" * 5000):
        row.stripe_data = {"name": strange}
        row.save()
    assert known_as() == ("billing@acme.example", "A" * 255)


def test_what_stripe_is_asked_later_wins(simulator: StripeSimulator) -> None:
    stripe_id = simulator.create_customer("books@acme.example", name="Acme GmbH")["id"]
    CustomerFactory(stripe_id=stripe_id, keys=("sso",))
    theirs(stripe_id)
    assert known_as(stripe_id) == ("billing@acme.example", "Acme")
    sync_customer(customer(stripe_id))  # it holds no more, so Stripe is asked whether it is there
    assert known_as(stripe_id) == ("books@acme.example", "Acme GmbH")


def test_metadata_are_stripe_s_own() -> None:
    row = theirs(metadata={"owner": "7"})
    forget()
    row.save()
    assert known_as() == ("billing@acme.example", "Acme")
    assert customer().metadata == {"seats": "5"}


def test_a_save_that_tells_nothing_new_costs_no_more_than_before() -> None:
    theirs()
    row = Theirs.objects.get()
    with CaptureQueriesContext(connection) as queries:
        row.save()
    assert len([each for each in queries if "entitlements_app" in each["sql"]]) == 1


def test_what_nobody_vouches_for_names_nobody() -> None:
    row = theirs()
    row.stripe_data = {"name": "Mallory"}
    customers.distrust(on=True)
    row.save()
    customers.distrust(on=False)
    assert known_as()[1] == "Acme"


def test_a_deleted_customer_and_one_of_another_account_stay_as_they_are(two_accounts: dict[str, Any]) -> None:
    row, other = theirs(), theirs("cus_other", djstripe_owner_account=two_accounts["theirs"])
    linking.link(make_subscriber(), "cus_other")
    Customer.objects.filter(stripe_id="cus_acme").update(deleted_at="2026-01-01T00:00Z", next_fetch_at=None)
    forget()
    row.save()
    other.save()
    run()
    assert (known_as(), known_as("cus_other")) == (("", ""), ("", ""))


def test_a_customer_of_a_connected_account_with_the_same_id_is_another() -> None:
    CustomerFactory(stripe_id="cus_acme", account="acct_connected", name="Of another")
    CustomerFactory(stripe_id="cus_acme", livemode=True, name="Live")
    row = theirs()
    run()
    row.stripe_data = {"name": "Acme Ltd"}
    row.save()
    named = Customer.objects.values_list("account", "livemode", "name")
    assert set(named) == {("", False, "Acme Ltd"), ("acct_connected", False, "Of another"), ("", True, "Live")}


def test_a_rollback_of_dj_stripe_names_nobody() -> None:
    row = theirs()
    with transaction.atomic():
        row.stripe_data = {"name": "Acme Ltd"}
        row.save()
        transaction.set_rollback(True)
    assert known_as()[1] == "Acme"


def bulk(number: int) -> None:
    subscriber = make_subscriber()
    Theirs.objects.bulk_create(
        Theirs(
            id=f"cus_{n}",
            subscriber=subscriber,
            livemode=False,
            email=f"{n}@acme.example",
            stripe_data={"name": f"A{n}"},
        )
        for n in range(number)
    )


def test_the_command_brings_them_for_an_existing_site() -> None:
    bulk(3)
    assert "3 customer(s) have their name and e-mail address from dj-stripe now." in run()
    assert known_as("cus_2") == ("2@acme.example", "A2")
    assert "from dj-stripe now" not in run()


def test_the_command_brings_them_also_where_some_could_not_be_linked() -> None:
    bulk(2)
    linking.link(make_subscriber(), "cus_0")
    with pytest.raises(CommandError, match="could not be linked"):
        run()
    assert (known_as("cus_0"), known_as("cus_1")) == (("0@acme.example", "A0"), ("1@acme.example", "A1"))


@pytest.fixture
def queries_for() -> Callable[[int], int]:
    def count(number: int) -> int:
        rows = [(f"cus_{n}", f"{n}@acme.example", "Acme") for n in range(number)]
        Customer.objects.bulk_create(Customer(stripe_id=stripe_id, livemode=False) for stripe_id, _, _ in rows)
        with CaptureQueriesContext(connection) as queries:
            assert details.take_missing(rows, livemode=False) == number
        Customer.objects.all().delete()
        return len(queries)

    return count


def test_many_cost_as_many_queries_as_two(queries_for: Callable[[int], int]) -> None:
    assert queries_for(2) == queries_for(40)
