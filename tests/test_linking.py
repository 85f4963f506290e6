"""Tying customers to subscribers, before and after Stripe speaks of them."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app.access import get_entitlements, prefetch_entitlements
from entitlements_app.bulk_links import NotLinked, Why
from entitlements_app.exceptions import AlreadyLinked, CustomerDeleted
from entitlements_app.linking import link, link_many, unlink
from entitlements_app.models import Customer, EntitlementChange, EntitlementOverride, SubscriberState
from entitlements_app.overrides import bridge, deny, grant
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.testing import StripeSimulator
from tests.delivery import customer_deleted, deliver, summary
from tests.receivers import Listener, connected
from tests.rows import BY_ORGANISATION, customer, effective, held, log, make_subscriber
from tests.testapp.models import Organisation, Staffer
from tests.threads import Crowd, together, wait_for_backends

pytestmark = pytest.mark.django_db

NOW = 0


@pytest.fixture(autouse=True)
def _now() -> None:
    global NOW
    NOW = int(time.time())


def keys_of(subscriber: Any) -> set[str]:
    return set(get_entitlements(subscriber))


def test_a_link_before_the_first_event() -> None:
    subscriber = make_subscriber()
    row = link(subscriber, "cus_new")
    assert (row.subscriber, row.urgent, row.window_to, row.version) == (subscriber, True, None, 0)
    deliver(summary("cus_new", "sso"))
    assert keys_of(subscriber) == {"sso"}
    assert effective() == ["+sso"]


def test_a_link_after_the_first_event_counts_at_once() -> None:
    deliver(summary("cus_new", "sso", "audit"))
    subscriber = make_subscriber()
    link(subscriber, "cus_new")
    assert keys_of(subscriber) == {"sso", "audit"}
    assert log(effective=True) == [("granted", "audit", "link", True), ("granted", "sso", "link", True)]
    assert EntitlementChange.objects.filter(effective=True, subscriber=subscriber).count() == 2


@pytest.mark.django_db(transaction=True)  # in one of the test's own nothing would be cached
def test_a_subscriber_made_with_its_key_as_a_text_is_the_one_in_the_database(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "texts"}}
    settings.ENTITLEMENTS_CACHE = "default"
    somebody = Organisation.objects.create(pk=str(uuid4())) if BY_ORGANISATION else User.objects.create(pk="4711")
    assert keys_of(somebody) == set()
    link(somebody, "cus_new")
    link(somebody, "cus_new")
    deliver(summary("cus_new", "sso"))
    assert keys_of(somebody) == {"sso"}
    prefetch_entitlements([somebody])
    assert keys_of(somebody) == {"sso"}
    assert log() == [("granted", "sso", "event", True)]


def test_a_link_makes_no_call_and_marks_the_customer(stripe: StripeSimulator) -> None:
    link(make_subscriber(), "cus_new")
    assert stripe.requests == []
    assert customer("cus_new").urgent
    assert Customer.objects.marked().count() == 1


def test_linking_again_changes_nothing(acme: Any) -> None:
    before = Customer.objects.values().get()
    link(acme, "cus_acme")
    assert Customer.objects.values().get() == before


def test_two_customers_of_one_subscriber_count_together(acme: Any) -> None:
    link(acme, "cus_second")
    deliver(summary("cus_acme", "sso", created=NOW - 9))
    deliver(summary("cus_second", "sso", "audit", created=NOW - 8))
    assert keys_of(acme) == {"sso", "audit"}
    deliver(summary("cus_acme", created=NOW - 7))
    assert keys_of(acme) == {"sso", "audit"}
    assert effective() == ["+sso", "+audit"]
    deliver(summary("cus_second", created=NOW - 6))
    assert keys_of(acme) == set()
    assert effective() == ["+sso", "+audit", "-audit", "-sso"]


def test_a_customer_of_another_subscriber_is_taken_over_only_on_purpose(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    other = make_subscriber()
    with pytest.raises(AlreadyLinked, match="cus_acme is linked to another subscriber; move=True"):
        link(other, "cus_acme")
    assert (keys_of(acme), keys_of(other)) == ({"sso"}, set())
    link(other, "cus_acme", move=True)
    assert (keys_of(acme), keys_of(other)) == (set(), {"sso"})
    moved = EntitlementChange.objects.order_by("pk")[1:]
    assert [(row.subscriber, row.kind, row.cause) for row in moved] == [
        (acme, "revoked", "unlink"),
        (other, "granted", "link"),
    ]
    announced = SubscriberState.objects.values_list("subscriber", "announced")
    assert dict(announced) == {acme.pk: [], other.pk: ["sso"]}


def test_moving_between_subscribers_who_share_a_key_moves_only_what_changes(acme: Any) -> None:
    other = make_subscriber()
    link(other, "cus_other")
    deliver(summary("cus_acme", "sso", "audit"))
    deliver(summary("cus_other", "sso"))
    before = EntitlementChange.objects.count()
    link(other, "cus_acme", move=True)
    moved = EntitlementChange.objects.order_by("pk")[before:]
    assert [(row.subscriber, row.kind, row.lookup_key) for row in moved] == [
        (acme, "revoked", "audit"),
        (acme, "revoked", "sso"),
        (other, "granted", "audit"),
    ]


def test_unlinking_takes_the_answer_and_keeps_what_is_known(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    unlink("cus_acme")
    assert (keys_of(acme), held()) == (set(), {"sso"})
    assert log()[-1] == ("revoked", "sso", "unlink", True)
    link(acme, "cus_acme")
    assert keys_of(acme) == {"sso"}
    assert effective() == ["+sso", "-sso", "+sso"]


def test_unlinking_again_changes_nothing_and_a_stranger_is_an_error(acme: Any) -> None:
    unlink("cus_acme")
    before = Customer.objects.values().get()
    unlink("cus_acme")
    assert Customer.objects.values().get() == before
    with pytest.raises(Customer.DoesNotExist):
        unlink("cus_stranger")


def test_a_deleted_customer_cannot_be_linked_but_unlinked(acme: Any) -> None:
    deliver(customer_deleted("cus_acme"))
    with pytest.raises(CustomerDeleted):
        link(make_subscriber(), "cus_acme", move=True)
    assert unlink("cus_acme").subscriber is None


def test_modes_never_mix(acme: Any, settings: Any) -> None:
    link(acme, "cus_live", livemode=True)
    deliver(summary("cus_acme", "sso"))
    settings.ENTITLEMENTS_LIVEMODE = True
    assert keys_of(acme) == set()
    live = summary("cus_live", "audit") | {"livemode": True}
    live["data"]["object"]["livemode"] = True
    live["data"]["object"]["entitlements"]["data"][0]["livemode"] = True
    deliver(live)
    assert keys_of(acme) == {"audit"}
    settings.ENTITLEMENTS_LIVEMODE = False
    assert keys_of(acme) == {"sso"}
    assert SubscriberState.objects.filter(subscriber=acme).count() == 2


def test_a_customer_of_a_connected_account_can_be_linked_and_counts_for_nothing(acme: Any) -> None:
    link(acme, "cus_acme", account="acct_1")
    assert Customer.objects.filter(subscriber=acme).count() == 2
    assert keys_of(acme) == set()


@pytest.mark.parametrize("nobody", [None, AnonymousUser(), get_subscriber_model()()])
def test_nobody_cannot_be_linked(nobody: Any) -> None:
    """Nor an instance that is not saved yet, which with a UUID already has a key."""
    with pytest.raises(ValueError, match="saved subscriber"):
        link(nobody, "cus_new")


@pytest.mark.skipif(BY_ORGANISATION, reason="about a model that inherits from the subscriber's")
def test_an_inheriting_model_is_looked_up_by_the_subscriber_s_number(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    staffer = Staffer.objects.create(username="staffer", number=acme.pk)
    assert staffer.pk == acme.pk != staffer.user_ptr_id
    assert keys_of(staffer) == set()
    link(staffer, "cus_staff")
    assert customer("cus_staff").subscriber_id == staffer.user_ptr_id


def test_an_instance_of_another_model_is_an_error_and_never_looked_up_by_its_number(acme: Any) -> None:
    other = User(pk=acme.pk) if BY_ORGANISATION else Organisation(name="not a subscriber here")
    with pytest.raises(TypeError, match="ENTITLEMENTS_SUBSCRIBER_MODEL"):
        link(other, "cus_new")
    with pytest.raises(TypeError, match="ENTITLEMENTS_SUBSCRIBER_MODEL"):
        get_entitlements(other)
    with pytest.raises(TypeError):
        get_entitlements(acme.pk)


@pytest.mark.skipif(not BY_ORGANISATION, reason="where users are the subscribers, none is of another model")
def test_a_user_where_an_organisation_pays_is_told_of_the_setting_that_is_missing(acme: Any, settings: Any) -> None:
    with pytest.raises(TypeError, match=r"got User\.$"):
        get_entitlements(User(pk=acme.pk))
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = None
    with pytest.raises(TypeError, match="set ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST"):
        get_entitlements(User(pk=acme.pk))


@pytest.mark.parametrize("stripe_id", ["", "c" * 256, "cus_\x00", None, 5])
def test_what_cannot_be_an_id_is_an_error(acme: Any, stripe_id: Any) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        link(acme, stripe_id)
    with pytest.raises(ValueError, match="1 to 255"):
        unlink(stripe_id)


def test_a_link_goes_with_the_caller_s_transaction() -> None:
    subscriber = make_subscriber()
    with transaction.atomic():
        link(subscriber, "cus_new")
        assert Customer.objects.exists()
        transaction.set_rollback(True)
    assert not Customer.objects.exists()


def test_deleting_a_subscriber_keeps_customers_and_changes(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    acme.delete()
    assert (customer().subscriber, held()) == (None, {"sso"})
    assert EntitlementChange.objects.get().subscriber is None
    assert not SubscriberState.objects.exists()
    deliver(summary("cus_acme", created=int(time.time()) + 2))
    assert held() == set()


# Many at once: more of it by the command, in test_link_command.py


def test_many_links_are_told_and_counted(acme: Any) -> None:
    ada, bob = make_subscriber(), make_subscriber()
    link(bob, "cus_bob")
    deliver(summary("cus_ada", "sso"))
    report = link_many([(ada, "cus_ada"), (ada, "cus_acme"), (ada, ""), (bob, "cus_bob"), (ada, "cus_ada")])
    assert (report.linked, report.moved, report.already, report.pairs) == (1, 0, 2, 5)
    assert report.not_linked == [
        NotLinked(ada.pk, "", Why.UNUSABLE),
        NotLinked(ada.pk, "cus_acme", Why.OTHERS, acme.pk),
    ]
    assert keys_of(ada) == {"sso"}
    assert (link_many([(ada, "cus_acme")], move=True).moved, customer("cus_acme").subscriber) == (1, ada)
    assert link_many([]).pairs == 0


def test_many_are_refused_for_somebody_who_is_none_before_any_is_linked() -> None:
    ada = make_subscriber()
    other = User(pk=1) if BY_ORGANISATION else Organisation(name="not a subscriber here")
    for nobody, error in ((AnonymousUser(), ValueError), (other, TypeError)):
        with pytest.raises(error):
            link_many([(ada, "cus_ada"), (nobody, "cus_nobody")])
    assert not Customer.objects.exists()


def test_customers_that_change_places_move_only_what_changes(acme: Any) -> None:
    other = make_subscriber()
    link(other, "cus_other")
    deliver(summary("cus_acme", "sso", "audit"))
    deliver(summary("cus_other", "sso"))
    before = EntitlementChange.objects.count()
    assert link_many([(other, "cus_acme"), (acme, "cus_other")], move=True).moved == 2
    moved = EntitlementChange.objects.order_by("pk")[before:]
    assert {(row.subscriber, row.kind, row.lookup_key, row.cause) for row in moved} == {
        (acme, "revoked", "audit", "unlink"),
        (other, "granted", "audit", "link"),
    }
    assert (keys_of(acme), keys_of(other)) == ({"sso"}, {"sso", "audit"})


def test_many_links_end_the_bridges_of_what_they_bring() -> None:
    ada = make_subscriber()
    link(ada, "cus_first")
    deliver(summary("cus_ada", "sso"))
    bridge(ada, "sso", until=timezone.now() + timedelta(days=1))
    link_many([(ada, "cus_ada")])
    assert ada.entitlements_overrides.get().expires_at <= timezone.now()
    assert (keys_of(ada), effective()) == ({"sso"}, ["+sso"])


def test_many_links_go_with_the_caller_s_transaction() -> None:
    ada = make_subscriber()
    with transaction.atomic():
        link_many([(ada, "cus_ada")])
        assert keys_of(ada) == set()
        transaction.set_rollback(True)
    assert not Customer.objects.exists()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_subscriber_who_is_deleted_meanwhile_holds_up_nobody() -> None:
    model: Any = get_subscriber_model()
    name = "name" if BY_ORGANISATION else "username"
    gone, ada = model.objects.create(**{name: "gone"}), make_subscriber()
    Customer.objects.create(stripe_id="cus_ada", livemode=False)
    reports = []
    with transaction.atomic():
        list(Customer.objects.select_for_update())
        crowd = Crowd().start(lambda: reports.append(link_many([(gone, "cus_gone"), (ada, "cus_ada")])))
        wait_for_backends(1)  # after it has looked who is there
        model._base_manager.filter(pk=gone.pk)._raw_delete("default")
    crowd.join()
    assert (reports[0].linked, reports[0].not_linked) == (1, [NotLinked(gone.pk, "cus_gone", Why.GONE)])
    assert customer("cus_ada").subscriber == ada
    assert Customer.objects.count() == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_many_links_events_and_deletions_at_once_wait_in_one_order() -> None:
    people = [make_subscriber() for _ in range(20)]
    pairs = [(subscriber, f"cus_{n}") for n, subscriber in enumerate(people)]

    def events() -> None:
        for n in range(20):
            deliver(summary(f"cus_{n}", "sso"))

    def deletions() -> None:
        for subscriber in people[::5]:
            try:
                get_subscriber_model()._base_manager.get(pk=subscriber.pk).delete()
            except IntegrityError:  # somebody referred to it after Django had looked who does
                get_subscriber_model()._base_manager.get(pk=subscriber.pk).delete()

    together(lambda: link_many(pairs), lambda: link_many(pairs[::-1]), events, deletions)
    gone = [NotLinked(subscriber.pk, stripe_id, Why.GONE) for subscriber, stripe_id in pairs[::5]]
    assert link_many(pairs).not_linked == gone
    for n, subscriber in enumerate(people):
        if n % 5:
            assert (customer(f"cus_{n}").subscriber, keys_of(subscriber)) == (subscriber, {"sso"})
        else:
            assert customer(f"cus_{n}").subscriber is None
    assert EntitlementChange.objects.filter(effective=True, subscriber__isnull=False).count() == 16


@pytest.mark.postgresql
def test_as_many_statements_whatever_they_hold_and_take_away() -> None:
    def statements(number: int) -> int:
        before, after = make_subscriber(), make_subscriber()
        for n in range(number):
            link(before, f"cus_{number}_{n}")
            deliver(summary(f"cus_{number}_{n}", "sso", f"key_{n}"))
        with CaptureQueriesContext(connection) as queries:
            link_many([(after, f"cus_{number}_{n}") for n in range(number)], move=True)
        assert len(keys_of(after)) == number + 1
        return len(queries)

    assert statements(2) == statements(30)


@pytest.mark.django_db(transaction=True)
def test_two_subscribers_become_one_as_the_docs_have_it(settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    gone, kept, now = make_subscriber(), make_subscriber(), timezone.now()
    for stripe_id, key in (("cus_one", "sso"), ("cus_two", "audit"), ("cus_deleted", "seats")):
        link(gone, stripe_id)
        deliver(summary(stripe_id, key))
    deliver(customer_deleted("cus_deleted"))
    grant(gone, "beta", until=now + timedelta(days=1), reason="ticket 4711", force=True)
    deny(gone, "audit", starts=now + timedelta(days=1))
    bridge(gone, "seats", until=now + timedelta(days=1))
    assert (list(get_entitlements(gone)), list(get_entitlements(kept))) == (["audit", "beta", "seats", "sso"], [])
    listener = Listener()
    text = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    [recipe] = re.findall(r"## Two subscribers become one\n.*?```python\n(.*?)```", text, re.DOTALL)
    with connected(listener):
        exec(recipe, {"gone": gone, "kept": kept})
    assert list(get_entitlements(kept)) == ["audit", "beta", "sso"]
    told = ["+audit", "+beta", "+sso"]
    assert sorted(key for key in listener.heard if key in told) == told
    with time_machine.travel(now + timedelta(days=2)):
        assert list(get_entitlements(kept)) == ["sso"], "periods came along"
    assert EntitlementOverride.objects.get(lookup_key="beta").reason == "ticket 4711"
