"""Grant and deny by hand: counted when a gate asks, deny wins, each change of an answer is logged with its cause."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from entitlements_app.access import get_entitlements, has_entitlement
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.linking import link, unlink
from entitlements_app.models import (
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    SubscriberState,
)
from entitlements_app.overrides import clear, deny, grant
from tests.delivery import deliver, summary
from tests.rows import effective, log, make_subscriber, visitor_of
from tests.threads import Crowd, closed, meeting_at, together

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def whole_second() -> datetime:
    """Now, or a moment ago: to travel in time is exact to the second only."""
    return timezone.now().replace(microsecond=0)


def keys(subscriber: Any) -> set[str]:
    return set(get_entitlements(subscriber))


def feature(key: str, **fields: Any) -> Feature:
    return Feature.objects.create(stripe_id=f"feat_test_{key}", lookup_key=key, **({"livemode": False} | fields))


# --- what counts


def test_a_subscriber_without_a_customer_can_be_granted_a_key() -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    assert keys(somebody) == {"sso"}
    assert not Customer.objects.exists()


def test_deny_wins_over_stripe_and_over_every_grant(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    deny(acme, "sso")
    grant(acme, "sso")
    assert keys(acme) == {"audit"}


def test_what_is_denied_by_nobody_comes_back(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    deny(acme, "sso")
    assert clear(acme, "sso") == 1
    assert keys(acme) == {"sso"}


def test_it_counts_from_its_start_and_no_longer_at_its_end() -> None:
    somebody, now = make_subscriber(), whole_second()
    grant(somebody, "sso", starts=now + HOUR, until=now + 2 * HOUR, force=True)
    for at, held in (
        (now, False),
        (now + HOUR - SECOND, False),
        (now + HOUR, True),
        (now + 2 * HOUR - SECOND, True),
        (now + 2 * HOUR, False),
    ):
        with time_machine.travel(at.timestamp(), tick=False):
            assert has_entitlement(somebody, "sso") is held, at


def test_periods_of_one_key_add_up() -> None:
    somebody, now = make_subscriber(), whole_second()
    grant(somebody, "sso", until=now + 2 * HOUR, force=True)
    grant(somebody, "sso", until=now + HOUR, force=True)
    with time_machine.travel((now + HOUR).timestamp(), tick=False):
        assert keys(somebody) == {"sso"}


def test_it_counts_in_both_modes(settings: Any) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    settings.ENTITLEMENTS_LIVEMODE = True
    assert keys(somebody) == {"sso"}


def test_it_is_the_subscriber_s_and_nobody_else_s(acme: Any) -> None:
    other = make_subscriber()
    grant(acme, "sso", force=True)
    deny(other, "sso", force=True)
    assert (keys(acme), keys(other)) == ({"sso"}, set())


def test_one_query_with_and_without_overrides(acme: Any, django_assert_num_queries: Any) -> None:
    deliver(summary("cus_acme", "audit"))
    grant(acme, "sso", until=timezone.now() + HOUR, force=True)
    with django_assert_num_queries(1):
        assert keys(acme) == {"audit", "sso"}


def test_it_opens_and_closes_a_page(acme: Any) -> None:
    client = Client()
    client.force_login(visitor_of(acme), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/guarding/decorated/").status_code == 403
    grant(acme, "premium_support", force=True)
    assert client.get("/guarding/decorated/").status_code == 200
    deny(acme, "premium_support", force=True)
    assert client.get("/guarding/decorated/").status_code == 403


# --- what is told of it


def test_who_why_and_until_when_stand_in_the_row(acme: Any) -> None:
    staff, end = User.objects.create_user("staff"), timezone.now() + HOUR
    row = grant(acme, "sso", until=end, reason="pilot", by=staff, force=True)
    row.refresh_from_db()
    assert (row.subscriber, row.lookup_key, row.effect) == (acme, "sso", "grant")
    assert (row.reason, row.author, row.expires_at) == ("pilot", staff, end)
    staff.delete()
    row.refresh_from_db()
    assert (row.author, row.reason) == (None, "pilot")


def test_what_changes_the_answer_is_a_change_and_nothing_else_is(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    EntitlementChange.objects.all().delete()
    grant(acme, "sso")  # held already
    deny(acme, "audit", force=True)  # not held anyway
    assert log() == []
    grant(acme, "reports", force=True)
    deny(acme, "sso")
    clear(acme, "sso")
    assert log() == [
        ("granted", "reports", "override", True),
        ("revoked", "sso", "override", True),
        ("granted", "sso", "override", True),
    ]
    change = EntitlementChange.objects.latest("pk")
    assert (change.subscriber, change.customer, change.livemode) == (acme, None, False)


def test_stripe_s_own_news_of_a_granted_key_change_no_answer(acme: Any) -> None:
    grant(acme, "sso", force=True)
    deliver(summary("cus_acme", "sso", created=int(time.time()) - 9))
    deliver(summary("cus_acme", created=int(time.time())))
    assert log() == [
        ("granted", "sso", "override", True),
        ("granted", "sso", "event", False),
        ("revoked", "sso", "event", False),
    ]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda who, at: grant(who, "sso", until=at, force=True), ("revoked", "sso", "expiry", True)),
        (lambda who, at: grant(who, "sso", starts=at, force=True), ("granted", "sso", "override", True)),
        (
            lambda who, at: [grant(who, "sso", force=True), deny(who, "sso", starts=at, force=True)],
            ("revoked", "sso", "override", True),
        ),
        (
            lambda who, at: [grant(who, "sso", force=True), deny(who, "sso", until=at, force=True)],
            ("granted", "sso", "expiry", True),
        ),
    ],
    ids=["a grant ends", "a grant starts", "a denial starts", "a denial ends"],
)
def test_a_boundary_that_has_passed_is_told_with_its_cause(
    make: Callable[[Any, datetime], Any], told: tuple[Any, ...]
) -> None:
    somebody, at = make_subscriber(), whole_second() + HOUR
    make(somebody, at)
    before = log()
    with time_machine.travel((at + SECOND).timestamp()):
        grant(somebody, "audit", force=True)  # the next write of any kind
    assert log()[len(before) :] == [told, ("granted", "audit", "override", True)]


def test_the_next_boundary_stands_in_the_state(acme: Any) -> None:
    now = whole_second()
    grant(acme, "sso", starts=now + 2 * HOUR, force=True)
    deny(acme, "audit", until=now + HOUR, force=True)
    state = SubscriberState.objects.get(subscriber=acme)
    assert state.next_boundary_at == now + HOUR
    with time_machine.travel((now + HOUR).timestamp()):
        deliver(summary("cus_acme", "reports"))
        state.refresh_from_db()
        assert state.next_boundary_at == now + 2 * HOUR
        clear(acme, "sso")
        state.refresh_from_db()
        assert state.next_boundary_at is None


def test_a_mode_that_has_announced_an_answer_hears_of_it_too(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    link(acme, "cus_live")
    grant(acme, "sso", force=True)
    rows = EntitlementChange.objects.filter(lookup_key="sso")
    assert sorted(rows.values_list("livemode", "effective")) == [(False, True), (True, True)]


# --- clearing


def test_clear_ends_what_is_in_force_and_deletes_what_is_to_come(acme: Any) -> None:
    now = whole_second()
    with time_machine.travel((now - 3 * HOUR).timestamp()):
        over = grant(acme, "sso", until=now - HOUR, force=True)
    running = grant(acme, "sso", force=True)
    grant(acme, "sso", starts=now + HOUR, force=True)
    other = grant(acme, "audit", force=True)
    assert clear(acme, "sso") == 2
    assert clear(acme, "sso") == 0
    rows = {row.pk: row for row in EntitlementOverride.objects.all()}
    assert rows.keys() == {over.pk, running.pk, other.pk}
    assert rows[over.pk].expires_at == now - HOUR
    assert rows[running.pk].starts_at <= rows[running.pk].expires_at <= timezone.now()
    assert rows[other.pk].expires_at is None
    assert keys(acme) == {"audit"}


def test_clear_of_one_effect_leaves_the_other(acme: Any) -> None:
    grant(acme, "sso", force=True)
    deny(acme, "sso", force=True)
    assert clear(acme, "sso", effect="deny") == 1
    assert keys(acme) == {"sso"}


# --- mistakes


def test_a_mistyped_key_is_refused_and_nothing_is_written(acme: Any) -> None:
    feature("sso")
    feature("live_only", livemode=True)
    grant(acme, "sso")
    for key in ("ss0", "SSO", "live_only"):
        for write in (grant, deny):
            with pytest.raises(UnknownFeature, match=key):
                write(acme, key)
    assert EntitlementOverride.objects.count() == 1
    deny(acme, "ss0", force=True)


@pytest.mark.parametrize("bad", ["", None, 7, ["sso"], ("sso",), b"sso", True])
def test_what_is_no_key_is_a_type_error(acme: Any, bad: Any) -> None:
    for write in (grant, deny, clear):
        with pytest.raises(TypeError):
            write(acme, bad)


def test_who_is_no_subscriber_is_an_error(acme: Any) -> None:
    other = Group.objects.create(name="a group")
    for write in (grant, deny, clear):
        with pytest.raises(TypeError):
            write(other, "sso")
        for nobody in (None, AnonymousUser(), type(acme)()):
            with pytest.raises(ValueError, match="saved"):
                write(nobody, "sso")


def test_a_period_that_cannot_count_is_an_error(acme: Any, settings: Any) -> None:
    now = timezone.now()
    for period in (
        {"until": now - HOUR},
        {"starts": now + HOUR, "until": now + HOUR},
        {"starts": now + 2 * HOUR, "until": now + HOUR},
    ):
        with pytest.raises(ValueError, match="until"):
            grant(acme, "sso", force=True, **period)
    wrong_kind = (
        datetime(2100, 1, 1) if settings.USE_TZ else datetime(2100, 1, 1, tzinfo=timezone.get_current_timezone())
    )
    for name in ("starts", "until"):
        with pytest.raises(ValueError, match=f"{name} needs"):
            grant(acme, "sso", force=True, **{name: wrong_kind})
        for no_moment in (date(2100, 1, 1), "2100-01-01"):
            with pytest.raises(TypeError, match=f"{name} is a datetime, not "):
                grant(acme, "sso", force=True, **{name: no_moment})
    never = datetime.max if not settings.USE_TZ else datetime.max.replace(tzinfo=timezone.get_default_timezone())
    with pytest.raises(ValueError, match="leave until out"):
        grant(acme, "sso", until=never, force=True)
    with pytest.raises(ValueError, match="effect"):
        clear(acme, "sso", effect="revoke")
    with pytest.raises(ValueError, match="characters"):
        grant(acme, "x" * 256, force=True)


def test_the_table_guards_itself(acme: Any) -> None:
    now = timezone.now()
    for fields in ({"effect": "grant", "expires_at": now - HOUR}, {"effect": "maybe"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            EntitlementOverride.objects.create(subscriber=acme, lookup_key="sso", starts_at=now, **fields)


def test_an_overridden_key_is_known_to_the_gates(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    feature("sso")
    grant(acme, "beta", force=True)
    assert not has_entitlement(make_subscriber(), "beta")
    with pytest.raises(UnknownFeature):
        has_entitlement(acme, "bета")


# --- transactions, deletion, races


def test_inside_a_transaction_it_counts_with_the_commit(acme: Any) -> None:
    with transaction.atomic():
        grant(acme, "sso", force=True)
        transaction.set_rollback(True)
    assert keys(acme) == set()
    assert log() == []


def test_a_deleted_subscriber_takes_its_overrides_along(acme: Any) -> None:
    grant(acme, "sso", force=True)
    acme.delete()
    assert not EntitlementOverride.objects.exists()
    assert not SubscriberState.objects.exists()
    assert effective() == ["+sso"]


def test_an_unlinked_customer_leaves_the_overrides(acme: Any) -> None:
    deliver(summary("cus_acme", "audit"))
    grant(acme, "sso", force=True)
    unlink("cus_acme")
    assert keys(acme) == {"sso"}
    assert effective() == ["+audit", "+sso", "-audit"]


@pytest.mark.django_db(transaction=True)
def test_a_grant_and_a_revoking_event_at_once_are_told_once_each(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", created=int(time.time()) - 5))
    meeting_at(
        "subscriberstate",
        lambda: deliver(summary("cus_acme", created=int(time.time()))),
        lambda: grant(acme, "sso"),
    )
    assert keys(acme) == {"sso"}
    replayed: set[str] = set()
    for row in EntitlementChange.objects.filter(effective=True).order_by("pk"):
        assert (row.kind == "granted") != (row.lookup_key in replayed)
        replayed ^= {row.lookup_key}
    assert replayed == {"sso"}


@pytest.mark.django_db(transaction=True)
def test_a_grant_whose_end_has_passed_when_its_turn_comes_would_never_count(acme: Any) -> None:
    until = timezone.now() + timedelta(seconds=2)
    with closed("subscriberstate") as wait_for:
        crowd = Crowd().start(lambda: grant(acme, "sso", until=until, force=True))
        wait_for(1)
        time.sleep(2.1)
    with pytest.raises(ValueError, match="never count"):
        crowd.join()
    assert not EntitlementOverride.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_many_writers_of_one_subscriber(acme: Any) -> None:
    together(*[lambda: grant(acme, "sso", force=True)] * 4, lambda: deny(acme, "audit", force=True))
    assert EntitlementOverride.objects.count() == 5
    assert effective() == ["+sso"]
    assert connection.in_atomic_block is False
