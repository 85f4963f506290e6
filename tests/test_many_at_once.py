"""Lists of subscribers and customers: constant queries, and the same answers as the gates."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.template import Context, Template
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitlements_app.access import get_entitlements, has_entitlement, prefetch_entitlements, subscribers_with
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementOverride, Feature
from entitlements_app.overrides import deny, grant
from tests.delivery import customer_deleted, deliver, summary
from tests.rows import customer, make_subscriber

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def team(db: None) -> list[Any]:
    """Three subscribers: the first has a customer with `sso`, the second a grant of it, the third nothing."""
    paying, granted, nobody = make_subscriber(), make_subscriber(), make_subscriber()
    link(paying, "cus_paying")
    deliver(summary("cus_paying", "sso", "audit"))
    grant(granted, "sso")
    return [paying, granted, nobody]


# --- prefetch_entitlements


def test_a_list_costs_two_queries_however_long(team: list[Any], django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        prefetch_entitlements(team)
    with django_assert_num_queries(0):
        assert [has_entitlement(each, "sso") for each in team[:2]] == [True, True]
        assert [list(get_entitlements(each)) for each in team] == [["audit", "sso"], ["sso"], []]
        template = Template('{% load entitlements %}{% for each in team %}{{ each|entitled_to:"sso" }} {% endfor %}')
        assert template.render(Context({"team": team[:2]})) == "True True "


def test_instances_of_a_queryset_keep_it(team: list[Any], django_assert_num_queries: Any) -> None:
    rows = type(team[0])._default_manager.order_by("pk")
    prefetch_entitlements(rows)
    with django_assert_num_queries(0):
        assert sum("sso" in get_entitlements(each) for each in rows if len(get_entitlements(each))) == 2


def test_an_answer_belongs_to_its_instance_alone(team: list[Any]) -> None:
    prefetch_entitlements(team)
    grant(team[2], "sso")
    twin = type(team[2])._default_manager.get(pk=team[2].pk)
    assert not has_entitlement(team[2], "sso"), "as it was"
    assert has_entitlement(twin, "sso")
    prefetch_entitlements([team[2]])
    assert has_entitlement(team[2], "sso")


def test_what_is_pickled_or_copied_does_not_carry_it(team: list[Any]) -> None:
    prefetch_entitlements(team)
    deny(team[0], "sso")
    for stored in (pickle.loads(pickle.dumps(team[0])), copy.deepcopy(team[0]), copy.copy(team[0])):
        assert not has_entitlement(stored, "sso")
    assert b"sso" not in pickle.dumps(team[0])


def test_an_instance_that_is_saved_as_another_row_is_asked_about_anew(team: list[Any]) -> None:
    prefetch_entitlements(team)
    copied = team[0]
    assert has_entitlement(copied, "sso")
    copied.pk, copied._state.adding = None, True
    copied.username = "copied"  # what an organisation does not mind
    copied.save()
    assert not has_entitlement(copied, "sso")


def test_the_other_mode_is_asked_about_anew(team: list[Any], settings: Any) -> None:
    prefetch_entitlements(team)
    settings.ENTITLEMENTS_LIVEMODE = True
    assert not has_entitlement(team[0], "audit")


def test_nobody_among_them_is_passed_over_and_a_stranger_is_an_error(team: list[Any]) -> None:
    prefetch_entitlements([None, AnonymousUser(), type(team[0])(), *team])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        prefetch_entitlements([*team, Group(name="a group")])
    prefetch_entitlements([])


# --- subscribers_with and entitled_to


def test_who_has_a_feature(team: list[Any], django_assert_num_queries: Any) -> None:
    assert set(subscribers_with("sso")) == set(team[:2])
    assert set(subscribers_with("audit")) == {team[0]}
    deny(team[0], "sso")
    with django_assert_num_queries(1):
        assert list(subscribers_with("sso")) == [team[1]]


def test_it_is_a_queryset_of_subscribers(team: list[Any]) -> None:
    rows = subscribers_with("sso").order_by("-pk")
    assert rows.count() == 2
    assert rows.filter(pk=team[1].pk).get() == team[1]
    assert list(rows[:1]) == sorted(team[:2], key=lambda each: each.pk)[1:]
    assert rows.exclude(pk=team[0].pk).exists()


def test_only_what_counts_now(team: list[Any]) -> None:
    now = timezone.now()
    EntitlementOverride.objects.update(expires_at=now)
    grant(team[2], "sso", starts=now + HOUR)
    deny(team[0], "audit", starts=now + HOUR)
    assert set(subscribers_with("sso")) == set(subscribers_with("audit")) == {team[0]}
    deliver(customer_deleted("cus_paying"))
    assert not subscribers_with("sso").exists()


def test_customers_who_hold_a_key(team: list[Any], settings: Any) -> None:
    deliver(summary("cus_unlinked", "sso"))
    assert set(Customer.objects.entitled_to("sso")) == {customer("cus_paying"), customer("cus_unlinked")}
    assert Customer.objects.entitled_to("sso").filter(subscriber=team[0]).get() == customer("cus_paying")
    deliver(customer_deleted("cus_unlinked"))
    assert list(Customer.objects.entitled_to("sso")) == [customer("cus_paying")]
    settings.ENTITLEMENTS_LIVEMODE = True
    assert not Customer.objects.entitled_to("sso").exists()


@pytest.mark.parametrize("bad", ["", None, 7, ["sso"], b"sso"])
def test_what_is_no_key_is_a_type_error(bad: Any) -> None:
    for ask in (subscribers_with, Customer.objects.entitled_to):
        with pytest.raises(TypeError):
            ask(bad)


def test_an_unknown_key_is_told(team: list[Any], settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    with pytest.raises(UnknownFeature):
        subscribers_with("ss0")


# --- one truth

KEYS = ["sso", "audit"]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    held=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KEYS)), max_size=5),
    overrides=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(KEYS),
            st.sampled_from(["grant", "deny"]),
            st.integers(-2, 2),
            st.integers(0, 3),
        ),
        max_size=5,
    ),
)
def test_every_way_to_ask_gives_the_same_answer(held: list[Any], overrides: list[Any]) -> None:
    for model in (ActiveEntitlement, EntitlementOverride, Customer, Feature):
        model.objects.all().delete()
    people = [make_subscriber() for _ in range(3)]
    now = timezone.now()
    for number, key in held:
        customer, _ = Customer.objects.get_or_create(
            stripe_id=f"cus_{number}", livemode=False, defaults={"subscriber": people[number]}
        )
        feature, _ = Feature.objects.get_or_create(stripe_id=f"feat_{key}", livemode=False, lookup_key=key)
        ActiveEntitlement.objects.get_or_create(customer=customer, feature=feature, lookup_key=key)
    for number, key, effect, start, length in overrides:
        EntitlementOverride.objects.create(
            subscriber=people[number],
            lookup_key=key,
            effect=effect,
            starts_at=now + start * HOUR,
            expires_at=now + (start + length) * HOUR if length else None,
        )
    answers = [set(get_entitlements(each)) for each in people]
    prefetch_entitlements(people)
    assert [set(get_entitlements(each)) for each in people] == answers
    for key in KEYS:
        assert set(subscribers_with(key)) == {each for each, keys in zip(people, answers, strict=True) if key in keys}
