"""`entitlements_link`: the customers that a field of the site names become linked, however many they are."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app.access import get_entitlements
from entitlements_app.bulk_links import BATCH
from entitlements_app.linking import link
from entitlements_app.models import Customer, SubscriberState
from entitlements_app.subscribers import get_subscriber_model
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, customer, effective, make_subscriber
from tests.server import ROOT, environment
from tests.testapp.models import Organisation, Purse, Staffer
from tests.workers import wait_until

PAYER = "organisation" if BY_ORGANISATION else "user"
FIELD = "testapp.Purse.stripe_customer_id"
LABEL = get_subscriber_model()._meta.label

pytestmark = pytest.mark.django_db


def run(*args: str, field: str = FIELD, path: str = PAYER) -> str:
    out, err = StringIO(), StringIO()
    try:
        call_command(
            "entitlements_link", field, *(["--subscriber", path] if path else []), *args, stdout=out, stderr=err
        )
    except CommandError as error:
        error.told = err.getvalue()  # type: ignore[attr-defined]
        raise
    assert err.getvalue() == ""
    return out.getvalue()


def refusal(*args: str, **names: str) -> str:
    """What is told of those who could not be linked."""
    with pytest.raises(CommandError) as raised:
        run(*args, **names)
    assert raised.value.returncode == 1
    return raised.value.told + str(raised.value)  # type: ignore[attr-defined]


def purse(stripe_id: str | None, subscriber: Any = None) -> Any:
    """A subscriber with the id of a customer in a model beside it."""
    subscriber = subscriber or make_subscriber()
    Purse.objects.create(stripe_customer_id=stripe_id, **{PAYER: subscriber})
    return subscriber


def many(number: int) -> None:
    """So many subscribers, each with a customer."""
    model: Any = get_subscriber_model()
    name = "name" if BY_ORGANISATION else "username"
    rows = model.objects.bulk_create(model(**{name: f"payer-{n}"}) for n in range(number))
    Purse.objects.bulk_create(Purse(stripe_customer_id=f"cus_{n}", **{PAYER: row}) for n, row in enumerate(rows))


def test_customers_of_a_model_beside_the_subscriber_are_linked() -> None:
    ada, bob = purse("cus_ada"), purse(" cus_bob\n")
    purse("")
    purse(None)
    purse("  ")
    out = run()
    assert "3 customer(s) to link in test mode, named by testapp.Purse.stripe_customer_id." in out
    assert "2 linked, 0 linked already." in out
    assert [row.subscriber for row in (customer("cus_ada"), customer("cus_bob"))] == [ada, bob]
    assert Customer.objects.count() == 2


def test_an_encrypted_field_is_read_and_what_it_makes_of_a_text_is_told() -> None:
    """Its values are compared with nothing in the database, and one that cannot be decrypted is no text."""
    ada, bob, carl = make_subscriber(), make_subscriber(), make_subscriber()
    for subscriber, sealed in ((ada, "cus_ada"), (bob, "cus_bob?"), (carl, ""), (carl, None)):
        Purse.objects.create(sealed_customer_id=sealed, **{PAYER: subscriber})
    told = refusal(field="testapp.Purse.sealed_customer_id")
    assert f"\"b'unreadable'\" of {LABEL} {bob.pk}: no Stripe ID" in told
    assert customer("cus_ada").subscriber == ada
    assert Customer.objects.count() == 1


def test_a_field_of_the_subscriber_itself_needs_no_path() -> None:
    ada = make_subscriber()
    field = "name" if BY_ORGANISATION else "last_name"
    type(ada).objects.update(**{field: "cus_ada"})
    run(field=f"{LABEL}.{field}", path="")
    assert customer("cus_ada").subscriber == ada


def test_what_a_customer_holds_counts_at_once_and_is_told() -> None:
    ada, bob = purse("cus_ada"), purse("cus_bob")
    deliver(summary("cus_ada", "sso", "audit"))
    deliver(summary("cus_bob", "sso"))
    run()
    assert [set(get_entitlements(each)) for each in (ada, bob)] == [{"sso", "audit"}, {"sso"}]
    assert sorted(effective()) == ["+audit", "+sso", "+sso"]


def test_many_links_wait_behind_news(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    settings.ENTITLEMENTS_STRIPE_RATE = 0.1
    for name in ("ada", "bob", "carol"):
        purse(f"cus_{name}")
    deliver(summary("cus_bob", "sso"))
    out = run()
    assert "3 customer(s) wait until Stripe is asked what they hold: at least 30 s at 0.1 a second" in out
    assert "entitlements_sync --marked" in out
    rows = Customer.objects.all()
    assert not any(row.urgent for row in rows)
    assert all(row.hinted_at for row in rows)
    link(purse("cus_dora"), "cus_dora")
    assert Customer.objects.due(timezone.now())[0].stripe_id == "cus_dora"


def test_without_a_key_it_says_what_is_missing(settings: Any) -> None:
    purse("cus_ada")
    assert "ENTITLEMENTS_STRIPE_API_KEY. It is not set." in run()


def test_a_second_run_passes_over_what_is_linked() -> None:
    many(3)
    run()
    before = list(Customer.objects.order_by("pk").values())
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert "0 linked, 3 linked already." in run()
    assert list(Customer.objects.order_by("pk").values()) == before
    written = [query["sql"] for query in queries if not query["sql"].lstrip().startswith("SELECT")]
    assert written == []


def test_whoever_cannot_be_linked_does_not_hold_up_the_others() -> None:
    holder = make_subscriber()
    link(holder, "cus_taken")
    Customer.objects.create(stripe_id="cus_dead", livemode=False, deleted_at=timezone.now(), next_fetch_at=None)
    taken, dead, ada = purse("cus_taken"), purse("cus_dead"), purse("cus_ada")
    long = purse("c" * 256)
    one, other = purse("cus_two"), purse("cus_two ")
    told = refusal()
    assert f"cus_taken of {LABEL} {taken.pk}: it is linked to {LABEL} {holder.pk}. If {taken.pk} pays, --move" in told
    assert f"cus_dead of {LABEL} {dead.pk}: Stripe deleted it, which is final." in told
    assert f"'{'c' * 80}…' of {LABEL} {long.pk}: no Stripe ID, which has 1 to 255 characters." in told
    for each in (one, other):
        assert f"cus_two of {LABEL} {each.pk}: several subscribers name it, so none gets it." in told
    assert "5 customer(s) could not be linked, as told above. All others are." in told
    assert customer("cus_ada").subscriber == ada
    assert customer("cus_taken").subscriber == holder
    assert set(Customer.objects.values_list("stripe_id", flat=True)) == {"cus_taken", "cus_dead", "cus_ada"}


def test_move_takes_over_what_one_subscriber_names_and_not_what_several_do() -> None:
    holder = make_subscriber()
    for stripe_id in ("cus_taken", "cus_two"):
        link(holder, stripe_id)
        deliver(summary(stripe_id, "sso"))
    taken = purse("cus_taken")
    purse("cus_two")
    purse("cus_two")
    told = refusal("--move")
    assert "2 customer(s) could not be linked" in told
    assert (customer("cus_taken").subscriber, customer("cus_two").subscriber) == (taken, holder)
    assert set(get_entitlements(taken)) == set(get_entitlements(holder)) == {"sso"}
    Purse.objects.filter(stripe_customer_id="cus_two").delete()
    deliver(summary("cus_two", created=int(time.time()) + 1))
    assert "0 linked, 1 linked already." in run("--move")


def test_two_rows_of_one_subscriber_that_name_one_customer_are_no_trouble() -> None:
    ada = purse("cus_ada")
    purse("cus_ada", ada)
    assert "1 linked, 1 linked already." in run()
    assert "0 linked, 2 linked already." in run()


def test_several_that_stand_far_apart_are_found() -> None:
    many(BATCH + 5)
    Purse.objects.filter(stripe_customer_id=f"cus_{BATCH + 4}").update(stripe_customer_id="cus_0")
    assert refusal().count("cus_0 of ") == 2
    assert Customer.objects.count() == BATCH + 3


def test_rows_without_a_subscriber_are_counted() -> None:
    purse("cus_ada")
    Purse.objects.create(stripe_customer_id="cus_nobody")
    out = run()
    assert f"1 customer(s) are passed over: there is no {PAYER} who would pay." in out
    assert "1 customer(s) to link" in out


def test_a_dry_run_tells_the_same_and_writes_nothing() -> None:
    holder, ada = make_subscriber(), purse("cus_ada")
    link(holder, "cus_taken")
    link(ada, "cus_known")
    purse("cus_known", ada)
    purse("cus_taken")
    before = list(Customer.objects.values())
    states = SubscriberState.objects.count()
    told = refusal("--dry-run")
    assert "cus_taken" in told
    assert "1 customer(s) would not be linked, as told above." in told
    out = run("--dry-run", "--move")
    assert "2 would be linked (1 of them taken over from another subscriber), 1 linked already. Nothing was" in out
    assert list(Customer.objects.values()) == before
    assert SubscriberState.objects.count() == states


def test_live_customers_are_linked_in_live_mode(settings: Any) -> None:
    ada = purse("cus_ada")
    settings.ENTITLEMENTS_LIVEMODE = True
    assert "to link in live mode" in run()
    assert Customer.objects.get(livemode=True).subscriber == ada


@pytest.mark.parametrize(
    ("field", "path", "remedy"),
    [
        ("stripe_customer_id", "", "expected app_label.Model.field, like auth.User.stripe_customer_id"),
        ("testap.Purse.stripe_customer_id", PAYER, "No installed app with label 'testap'"),
        ("testapp.Purze.stripe_customer_id", PAYER, "Did you mean testapp.Purse?"),
        ("testapp.Purse.customer_id", PAYER, "Did you mean stripe_customer_id? It has stripe_customer_id, "),
        ("testapp.Purse.pence", PAYER, "has no text field 'pence'"),
        ("testapp.Purse.user", PAYER, "has no text field 'user'"),
        (FIELD, "", f"{LABEL} does (ENTITLEMENTS_SUBSCRIBER_MODEL). Say how to get from the one to the other, like"),
        (FIELD, "usr", "no field named 'usr'. What leads on from there: user, organisation."),
        (FIELD, "user__organisations", "auth.User.organisations does not lead to one row"),
        (FIELD, "organisation" if PAYER == "user" else "user", "Go on from there with __."),
        (FIELD, "stripe_customer_id", "does not lead to one row"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(field: str, path: str, remedy: str) -> None:
    with pytest.raises(CommandError) as raised:
        run(field=field, path=path)
    assert remedy in str(raised.value)


@pytest.mark.skipif(BY_ORGANISATION, reason="about users that others inherit from")
def test_a_path_may_have_several_steps_and_end_at_one_who_inherits() -> None:
    staffer = Staffer.objects.create(username="staffer", number=4711, last_name="cus_staff")
    run(field="testapp.Staffer.last_name", path="")
    assert customer("cus_staff").subscriber_id == staffer.user_ptr_id
    type(staffer).objects.update(last_name="", first_name="cus_path")
    run(field="testapp.Staffer.first_name", path="user_ptr__staffer")
    assert customer("cus_path").subscriber_id == staffer.user_ptr_id


@pytest.mark.postgresql
def test_a_batch_takes_as_many_statements_however_large_it_is() -> None:
    def statements(number: int) -> int:
        many(number)
        for n in range(number):
            Customer.objects.create(stripe_id=f"cus_{n}", livemode=False)
        with CaptureQueriesContext(connection) as queries:
            run()
        assert Customer.objects.exclude(subscriber=None).count() == number
        Customer.objects.all().delete()
        get_subscriber_model()._base_manager.all().delete()
        return len(queries)

    few, full = statements(2), statements(BATCH)
    assert few == full


@pytest.mark.django_db(transaction=True)
def test_killed_in_the_middle_it_goes_on_where_it_was() -> None:
    many(BATCH * 12)
    command = [sys.executable, "-m", "django", "entitlements_link", FIELD, "--subscriber", PAYER]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=quiet, stderr=quiet)
    wait_until(lambda: Customer.objects.count() >= BATCH)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = Customer.objects.count()
    assert 0 < done < BATCH * 12
    assert done % BATCH == 0, "a batch is whole, or nothing of it"
    assert Customer.objects.exclude(subscriber=None).count() == done
    assert f"{BATCH * 12 - done:,} linked, {done:,} linked already." in run()


@pytest.mark.django_db(transaction=True)
def test_interrupted_by_hand_it_ends_between_batches_and_says_how_to_go_on() -> None:
    many(BATCH * 12)
    command = [sys.executable, "-m", "django", "entitlements_link", FIELD, "--subscriber", PAYER]
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: Customer.objects.exists())
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Interrupted. What is linked stays so; run the same command again, and it goes on from there." in told
    assert Customer.objects.count() % BATCH == 0


def test_an_organisation_is_never_taken_for_the_user_of_the_same_number() -> None:
    """The field is one of a model that does not pay here."""
    label = "auth.User.last_name" if BY_ORGANISATION else f"{Organisation._meta.label}.name"
    with pytest.raises(CommandError, match="is not who pays"):
        run(field=label, path="")
