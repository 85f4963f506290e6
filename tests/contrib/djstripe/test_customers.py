"""dj-stripe's customers and subscribers are ours: one by one as it writes them, and all at once by a command."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from threading import Event
from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from djstripe.models import Customer as Theirs

from entitlements_app import linking
from entitlements_app.access import get_entitlements
from entitlements_app.bulk_links import BATCH
from entitlements_app.contrib.djstripe import customers
from entitlements_app.linking import link
from entitlements_app.models import Customer, EntitlementChange, SubscriberState
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.testing import StripeSimulator
from tests.delivery import customer_deleted, summary
from tests.delivery import deliver as deliver_here
from tests.rows import BY_ORGANISATION, customer, effective, make_subscriber
from tests.server import ROOT, environment
from tests.threads import Crowd, together, wait_for_backends
from tests.workers import wait_until

pytestmark = pytest.mark.django_db

LABEL = get_subscriber_model()._meta.label


def holder(stripe_id: str = "cus_acme") -> Any:
    """To whom a customer is linked here."""
    return customer(stripe_id).subscriber


def theirs(subscriber: Any, stripe_id: str = "cus_acme", **said: Any) -> Any:
    """A customer as dj-stripe makes it, before it knows whose account it is of."""
    return Theirs.objects.create(id=stripe_id, subscriber=subscriber, **({"livemode": False} | said))


def give(row: Any, subscriber: Any) -> None:
    """What dj-stripe does, and its admin."""
    row = Theirs.objects.get(pk=row.pk)
    row.subscriber = subscriber
    row.save()


def keys(subscriber: Any) -> set[str]:
    return set(get_entitlements(subscriber))


@pytest.fixture
def told(caplog: Any) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="entitlements_app.contrib.djstripe")
    return lambda: [record.getMessage() for record in caplog.records if "djstripe" in record.name]


@pytest.fixture
def ada() -> Any:
    return make_subscriber()


@pytest.fixture
def bob() -> Any:
    return make_subscriber()


# dj-stripe's own ways


@pytest.fixture
def pro(simulator: StripeSimulator) -> Any:
    """A price whose product has `sso`."""
    return simulator.create_price(simulator.create_product("Pro", features=[simulator.create_feature("sso")]))


def test_a_customer_that_dj_stripe_makes_is_linked_at_once(simulator: StripeSimulator, ada: Any) -> None:
    with transaction.atomic():
        row, _ = Theirs.get_or_create(subscriber=ada)
        assert holder(row.id) == ada
        assert Theirs.get_or_create(subscriber=ada) == (row, False)
    assert customer(row.id).urgent, "what it bought elsewhere is asked for soon"
    assert Customer.objects.count() == 1


def test_a_rollback_undoes_both(simulator: StripeSimulator, ada: Any) -> None:
    with transaction.atomic():
        Theirs.create(ada)
        transaction.set_rollback(True)
    assert not Theirs.objects.exists()
    assert not Customer.objects.exists()


def test_the_metadata_of_a_customer_moves_it(
    simulator: StripeSimulator, pro: Any, deliver: Callable[[], None], ada: Any, bob: Any
) -> None:
    row = Theirs.create(ada)
    simulator.subscribe(row.id, pro)
    deliver()
    assert (holder(row.id), keys(ada)) == (ada, {"sso"})
    simulator.call("POST", f"/v1/customers/{row.id}", {"metadata": {"djstripe_subscriber": str(bob.pk)}})
    deliver()
    assert (holder(row.id), keys(ada), keys(bob)) == (bob, set(), {"sso"})


def test_a_customer_deleted_at_stripe_counts_for_nobody(
    simulator: StripeSimulator, pro: Any, deliver: Callable[[], None], ada: Any
) -> None:
    row = Theirs.create(ada)
    simulator.subscribe(row.id, pro)
    deliver()
    assert keys(ada) == {"sso"}
    simulator.delete_customer(row.id)
    deliver()
    assert (Theirs.objects.get().subscriber, holder(row.id), keys(ada)) == (None, None, set())


# What follows from what


def test_a_malformed_setting_is_raised_with_news_and_stops_nothing_else(ada: Any, bob: Any, settings: Any) -> None:
    """So whoever tries again does both, as Stripe does with a webhook; a warning would have lost the link."""
    row = theirs(ada)
    settings.ENTITLEMENTS_WEBHOOK_PROCESSING = settings.ENTITLEMENTS_STRIPE_API_KEY = "nonsense"
    Theirs.objects.get(pk=row.pk).save()
    with pytest.raises(ImproperlyConfigured), transaction.atomic():
        give(row, bob)
    assert Theirs.objects.get().subscriber == holder() == ada


def test_what_a_customer_holds_counts_with_the_link(ada: Any) -> None:
    deliver_here(summary("cus_acme", "sso"))
    theirs(ada)
    assert keys(ada) == {"sso"}
    assert effective() == ["+sso"]


def test_a_row_that_gets_its_subscriber_later_is_linked_then(ada: Any) -> None:
    row = theirs(None)
    assert not Customer.objects.exists()
    give(row, ada)
    assert holder() == ada


def test_a_row_from_before_this_app_is_linked_with_its_next_save(ada: Any) -> None:
    Theirs.objects.bulk_create([Theirs(id="cus_acme", subscriber=ada, livemode=False)])  # sends no signal
    assert not Customer.objects.exists()
    Theirs.objects.get().save()
    assert holder() == ada


def test_another_subscriber_takes_it_over_and_none_gives_it_up(ada: Any, bob: Any) -> None:
    row = theirs(ada)
    deliver_here(summary("cus_acme", "sso"))
    give(row, bob)
    assert (holder(), keys(ada), keys(bob)) == (bob, set(), {"sso"})
    give(row, None)
    assert (holder(), keys(bob)) == (None, set())
    assert effective() == ["+sso", "-sso", "+sso", "-sso"]


def test_what_the_site_has_linked_otherwise_stays_so(ada: Any, bob: Any, told: Any) -> None:
    carol = make_subscriber()
    row = theirs(ada)
    link(carol, "cus_acme", move=True)
    Theirs.objects.get().save()
    assert (holder(), told()) == (carol, [])
    give(row, bob)
    assert holder() == carol
    (line,) = told()
    assert f"dj-stripe gives cus_acme to {bob.pk}, and it stays as it was here: It is linked to {LABEL}" in line
    assert line.endswith("If dj-stripe is right: manage.py entitlements_link_djstripe --move")
    give(row, None)
    assert holder() == carol


def test_a_customer_without_a_subscriber_at_dj_stripe_stays_linked(ada: Any) -> None:
    link(ada, "cus_acme")
    theirs(None)
    Theirs.objects.get().save()
    assert holder() == ada


def test_a_new_row_takes_nothing_away(ada: Any, bob: Any, told: Any) -> None:
    link(bob, "cus_acme")
    theirs(ada)
    assert holder() == bob
    (line,) = told()
    assert "cus_acme is linked to another subscriber" in line


def test_a_deleted_row_gives_up_what_was_its_subscriber_s(ada: Any, bob: Any) -> None:
    row = theirs(ada)
    link(bob, "cus_other")
    other = theirs(None, "cus_other")
    row.delete()
    other.delete()
    assert (holder(), holder("cus_other")) == (None, bob)
    theirs(ada)
    Theirs.objects.all().delete()
    assert holder() is None


def test_a_subscriber_who_is_deleted_leaves_both_with_nobody(ada: Any) -> None:
    theirs(ada)
    deliver_here(summary("cus_acme", "sso"))
    ada.delete()
    assert (Theirs.objects.get().subscriber, holder()) == (None, None)
    Theirs.objects.get().save()
    assert holder() is None


def test_a_customer_deleted_in_stripe_is_not_linked_and_does_not_stop_dj_stripe(ada: Any, told: Any) -> None:
    deliver_here(summary("cus_acme"))
    deliver_here(customer_deleted("cus_acme"))
    theirs(ada)
    Theirs.objects.get().save()
    assert holder() is None
    (line,) = told()
    assert "cus_acme was deleted in Stripe" in line


def test_an_id_that_is_none_is_told(ada: Any, told: Any) -> None:
    theirs(ada, "")
    assert not Customer.objects.exists()
    assert "1 to 255 characters" in told()[0]


@pytest.mark.parametrize("configured", [True, False])
def test_a_row_is_of_its_mode_and_of_the_configured_one_if_it_does_not_say(
    ada: Any, settings: Any, configured: bool
) -> None:
    settings.ENTITLEMENTS_LIVEMODE = configured
    for stripe_id, mode in (("cus_live", True), ("cus_test", False), ("cus_unsaid", None)):
        theirs(ada, stripe_id, livemode=mode)
    modes = dict(Customer.objects.filter(subscriber__isnull=False).values_list("stripe_id", "livemode"))
    assert modes == {"cus_live": True, "cus_test": False, "cus_unsaid": configured}


def test_rows_of_another_account_are_not_ours(ada: Any, bob: Any, two_accounts: dict[str, Any]) -> None:
    theirs(ada, djstripe_owner_account=two_accounts["ours"])
    row = theirs(ada, "cus_elsewhere", djstripe_owner_account=two_accounts["theirs"])
    assert [row.stripe_id for row in Customer.objects.all()] == ["cus_acme"]
    link(bob, "cus_elsewhere")
    give(row, None)
    give(row, bob)
    Theirs.objects.get(pk=row.pk).delete()
    assert holder("cus_elsewhere") == bob


# Saves that say nothing of it


def queries_of(work: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        work()
    return [
        query["sql"] for query in queries if "entitlements_app" in query["sql"] or "djstripe_apikey" in query["sql"]
    ]


def test_a_save_that_changes_nothing_costs_one_read(ada: Any, two_accounts: dict[str, Any]) -> None:
    theirs(ada, djstripe_owner_account=two_accounts["ours"])
    row = Theirs.objects.get()
    (read,) = queries_of(row.save)
    assert read.startswith("SELECT")
    assert "FOR UPDATE" not in read
    assert queries_of(lambda: row.save(update_fields=["stripe_data"])) == []
    assert queries_of(Theirs.objects.defer("subscriber").get().save) == []
    assert queries_of(lambda: theirs(None, "cus_nobody")) == []


def test_a_save_of_the_subscriber_alone_is_one(ada: Any) -> None:
    row = theirs(None)
    row.subscriber = ada
    row.save(update_fields=["subscriber"])
    assert holder() == ada
    row.subscriber_id = None
    row.save(update_fields=["subscriber_id"])
    assert holder() is None


def test_fixtures_are_loaded_as_they_are(ada: Any) -> None:
    row = theirs(ada)
    as_text = serializers.serialize("json", [row])
    row.delete()
    unlinked = Customer.objects.values().get()
    for each in serializers.deserialize("json", as_text):
        each.save()
    assert Theirs.objects.get().subscriber == ada
    assert Customer.objects.values().get() == unlinked


def test_a_key_given_as_a_text_is_the_one_in_the_database(ada: Any) -> None:
    theirs(ada)
    row = Theirs.objects.get()
    row.subscriber_id = str(ada.pk)
    assert len(queries_of(row.save)) == 1


@contextmanager
def proxy_of_theirs() -> Iterator[Any]:
    """A site's own proxy of dj-stripe's customer, there when the app starts."""

    class Payer(Theirs):
        class Meta:
            proxy = True
            app_label = "testapp"

    customers.connect()
    try:
        yield Payer
    finally:
        del apps.all_models["testapp"]["payer"]
        apps.clear_cache()


def test_a_proxy_of_dj_stripe_s_customer_is_one(ada: Any) -> None:
    theirs(None)
    with proxy_of_theirs() as model:
        row = model.objects.get()
        row.subscriber = ada
        row.save()
        assert holder() == ada
        row.delete()
        assert holder() is None


def test_where_others_pay_at_dj_stripe_nobody_is_linked(ada: Any, settings: Any, told: Any) -> None:
    """The number of a user is never taken for that of an organisation."""
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "auth.User" if BY_ORGANISATION else "testapp.Organisation"
    theirs(ada)
    Theirs.objects.get().save()
    Theirs.objects.get().delete()
    assert not Customer.objects.exists()
    (line,) = told()
    assert "cus_acme is not linked: dj-stripe's subscribers are of" in line
    assert "only where both are the same" in line
    with pytest.raises(CommandError, match="only where both are the same"):
        run()


# Races


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_dj_stripe_s_saves_and_our_batches_do_not_wait_for_each_other_in_a_circle() -> None:
    """dj-stripe writes in its own order and holds its row; ours takes customers by key, then states."""
    people = [make_subscriber() for _ in range(12)]
    rows = [theirs(None, f"cus_{n}") for n in range(12)]
    pairs = [(subscriber, f"cus_{n}") for n, subscriber in enumerate(people)]

    def as_webhooks(order: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(12)[::order]:
                with transaction.atomic():
                    row = Theirs.objects.get(pk=rows[n].pk)
                    row.subscriber = people[n]
                    row.save()

        return work

    def in_bulk() -> None:
        for _ in range(4):
            linking.link_many(pairs)

    def events() -> None:
        for n in range(12):
            deliver_here(summary(f"cus_{n}", "sso"))

    together(as_webhooks(1), as_webhooks(-1), in_bulk, in_bulk, events)
    assert [holder(f"cus_{n}") for n in range(12)] == people
    assert all(keys(subscriber) == {"sso"} for subscriber in people)
    assert EntitlementChange.objects.filter(effective=True, kind="granted").count() == 12
    assert SubscriberState.objects.filter(announced=["sso"]).count() == 12


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_subscriber_is_deleted_while_dj_stripe_purges_its_customer(ada: Any) -> None:
    """The site deletes the account, and Stripe's event of it comes at once."""
    row = theirs(ada)
    deliver_here(summary("cus_acme", "sso"))
    has_saved = Event()

    def purge() -> None:
        with transaction.atomic():
            held = Theirs.objects.get(pk=row.pk)
            held.save()  # as dj-stripe does before, for the metadata
            has_saved.set()
            wait_for_backends(1)  # the deletion waits for that row
            held.subscriber = None
            held.save()

    crowd = Crowd().start(purge)
    assert has_saved.wait(60)
    crowd.start(ada.delete).join()
    assert (Theirs.objects.get().subscriber, holder()) == (None, None)
    assert not get_subscriber_model()._base_manager.exists() or not BY_ORGANISATION
    assert EntitlementChange.objects.undelivered().count() == 0


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_while_dj_stripe_holds_its_row_and_nothing_changes_nobody_waits_for_it(ada: Any) -> None:
    theirs(ada)
    with transaction.atomic():
        Theirs.objects.get().save()
        Crowd().start(lambda: deliver_here(summary("cus_acme", "sso"))).join()
    assert keys(ada) == {"sso"}


# All at once


def run(*args: str) -> str:
    out = StringIO()
    call_command("entitlements_link_djstripe", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def many(number: int) -> list[Any]:
    """As many customers that dj-stripe had before this app came."""
    model: Any = get_subscriber_model()
    name = "name" if BY_ORGANISATION else "username"
    people = model.objects.bulk_create(model(**{name: f"payer-{n}"}) for n in range(number))
    Theirs.objects.bulk_create(
        Theirs(id=f"cus_{n}", subscriber=subscriber, livemode=False) for n, subscriber in enumerate(people)
    )
    return list(people)


def test_an_existing_site_is_linked_by_one_command_as_often_as_it_likes() -> None:
    people = many(3)
    deliver_here(summary("cus_1", "sso"))
    out = run()
    assert "3 customer(s) to link in test mode, named by dj-stripe." in out
    assert "3 linked, 0 linked already." in out
    assert [holder(f"cus_{n}") for n in range(3)] == people
    assert keys(people[1]) == {"sso"}
    before = list(Customer.objects.order_by("pk").values())
    assert "0 linked, 3 linked already." in run()
    assert list(Customer.objects.order_by("pk").values()) == before


def test_what_is_not_to_be_linked_is_counted(ada: Any, two_accounts: dict[str, Any]) -> None:
    link(ada, "cus_kept")
    rows = [
        Theirs(id="cus_kept", livemode=False),
        Theirs(id="cus_nobody", livemode=False),
        Theirs(id="cus_live", livemode=True, subscriber=ada),
        Theirs(id="cus_unsaid", livemode=None, subscriber=ada, djstripe_owner_account=two_accounts["ours"]),
        Theirs(id="cus_elsewhere", livemode=False, subscriber=ada, djstripe_owner_account=two_accounts["theirs"]),
    ]
    Theirs.objects.bulk_create(rows)
    out = run()
    assert "1 customer(s) of live mode are passed over: this site is in test mode." in out
    assert "1 customer(s) of other Stripe accounts are passed over." in out
    assert "2 customer(s) without a subscriber at dj-stripe are passed over; 1 of them are linked here, and" in out
    assert "1 customer(s) to link" in out
    assert {row.stripe_id for row in Customer.objects.exclude(subscriber=None)} == {"cus_kept", "cus_unsaid"}


def test_a_dry_run_and_a_move(ada: Any) -> None:
    (bob,) = many(1)
    link(ada, "cus_0")
    with pytest.raises(CommandError, match="1 customer"):
        run()
    assert "1 would be linked (1 of them taken over from another subscriber)" in run("--move", "--dry-run")
    assert holder("cus_0") == ada
    run("--move")
    assert holder("cus_0") == bob


def test_a_malformed_setting_is_a_command_error(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "hello"
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY must be"):
        run()


@pytest.mark.django_db(transaction=True)
def test_killed_in_the_middle_the_command_goes_on_where_it_was() -> None:
    many(BATCH * 12)
    command = [sys.executable, "-m", "django", "entitlements_link_djstripe"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=quiet, stderr=quiet)
    wait_until(Customer.objects.exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = Customer.objects.exclude(subscriber=None).count()
    assert 0 < done < BATCH * 12
    assert f"{BATCH * 12 - done:,} linked, {done:,} linked already." in run()
    assert "0 linked, 6,000 linked already." in run()
