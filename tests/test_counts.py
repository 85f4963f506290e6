"""What is counted for the overview: who holds each feature, and how much changed on each day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.conf import settings as site
from django.core.management import call_command
from django.utils import timezone

from entitlements_app import counts
from entitlements_app.counts import CountReport, Day, count_if_due
from entitlements_app.models import ChangeCount, EntitlementChange, Feature, FeatureCount, SyncRun
from entitlements_app.overrides import clear, grant
from entitlements_app.testing.factories import CustomerFactory, FeatureFactory
from tests.delivery import customer_deleted, deliver, summary
from tests.rows import broken_processing, make_subscriber

pytestmark = pytest.mark.django_db(transaction=True)

NEW_YORK = ZoneInfo("America/New_York")  # the site's own
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=NEW_YORK)
TODAY, YESTERDAY = date(2026, 6, 15), date(2026, 6, 14)


@pytest.fixture
def clock() -> Iterator[Any]:
    """It is noon of a day in June."""
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def count() -> CountReport:
    """As an hour later."""
    SyncRun.objects.filter(kind="count").delete()
    report = count_if_due(deadline=time.monotonic() + 30)
    assert report
    assert report.finished
    return report


def at(*moment: int, fold: int = 0) -> datetime:
    """A moment in the site's time zone, as its rows have it."""
    aware = datetime(*moment, tzinfo=NEW_YORK, fold=fold)  # type: ignore[misc,arg-type]
    return aware if site.USE_TZ else aware.replace(tzinfo=None)


def change(*made_at: datetime, kind: str = "granted", effective: bool = True) -> list[EntitlementChange]:
    """Changes that were made then, numbered in this order."""
    rows = [
        EntitlementChange(
            created_at=moment,
            delivered_at=moment,
            kind=kind,
            effective=effective,
            livemode=False,
            cause="event",
            lookup_key="sso",
        )
        for moment in made_at
    ]
    return EntitlementChange.objects.bulk_create(rows)


def days(livemode: bool = False) -> dict[date, tuple[int | None, int | None]]:
    return {day.day: (day.granted, day.revoked) for day in counts.by_day(livemode)[0]}


def customers(livemode: bool = False) -> dict[str, tuple[int, int]]:
    return {row["lookup_key"]: (row["customers"], row["of_customers"]) for row in counts.by_feature(livemode)}


# --- features


def test_each_feature_has_its_customers_and_a_count_of_zero_too() -> None:
    for number in range(3):
        deliver(summary(f"cus_{number}", "sso", *(["audit"] if number else [])))
    FeatureFactory(lookup_key="new")
    deliver(summary("cus_none"))
    count()
    assert customers() == {"sso": (3, 4), "audit": (2, 4), "new": (0, 4)}
    assert list(customers()) == ["sso", "audit", "new"], "the most first"


def test_deleted_customers_do_not_count() -> None:
    for number in range(2):
        deliver(summary(f"cus_{number}", "sso"))
    deliver(customer_deleted("cus_0"))
    count()
    assert customers() == {"sso": (1, 1)}


def test_modes_are_counted_together_and_told_apart(settings: Any) -> None:
    deliver(summary("cus_test", "sso"))
    change(timezone.now())
    settings.ENTITLEMENTS_LIVEMODE = True
    CustomerFactory(keys=["sso"])
    CustomerFactory(keys=["sso"])
    EntitlementChange.objects.filter(livemode=True).update(effective=True)
    count()
    assert (customers(False), customers(True)) == ({"sso": (1, 1)}, {"sso": (2, 2)})
    assert (counts.by_day(False)[0][-1].granted, counts.by_day(True)[0][-1].granted) == (1, 2)


def test_features_of_connected_accounts_are_not_the_site_s_own() -> None:
    CustomerFactory(keys=["sso"], account="acct_other")
    count()
    assert customers() == {}
    assert FeatureCount.objects.get().of_customers == 1


def test_a_feature_that_is_new_since_the_count_has_none_yet() -> None:
    deliver(summary("cus_acme", "sso"))
    count()
    FeatureFactory(lookup_key="new")
    assert [row["customers"] for row in counts.by_feature(livemode=False)] == [1, None]
    counted = FeatureCount.objects.get().counted_at
    count()
    assert FeatureCount.objects.count() == 2
    assert FeatureCount.objects.first().counted_at > counted


# --- days


def test_granted_and_revoked_are_counted_by_day(clock: Any) -> None:
    subscriber = make_subscriber()
    clock.move_to(NOON - timedelta(days=1))
    grant(subscriber, "sso", force=True)
    grant(subscriber, "audit", force=True)
    clock.move_to(NOON)
    clear(subscriber, "sso")
    count()
    told = days()
    assert (told[YESTERDAY], told[TODAY]) == ((2, 0), (0, 1))
    assert sorted(set(told.values()) - {(2, 0), (0, 1)}) == [(0, 0)], "a day without changes is a day"
    assert len(told) == counts.DAYS == 30


def test_what_changed_no_answer_does_not_count_and_is_among_the_rows_of_the_day(clock: Any) -> None:
    [first] = change(at(2026, 6, 14, 9), effective=False)
    change(at(2026, 6, 14, 10))
    [last] = change(at(2026, 6, 14, 11), kind="revoked", effective=False)
    count()
    row = ChangeCount.objects.get(day=YESTERDAY, livemode=False)
    assert (row.granted, row.revoked, row.first_change, row.last_change) == (1, 0, first.pk, last.pk)
    empty = ChangeCount.objects.get(day=TODAY, livemode=False)
    assert (empty.first_change, empty.last_change) == (0, 0)


def test_a_day_begins_and_ends_in_the_site_s_time_zone(clock: Any) -> None:
    change(at(2026, 6, 13, 23, 59, 59), at(2026, 6, 14), at(2026, 6, 14, 23, 59, 59), at(2026, 6, 15))
    count()
    told = days()
    assert [told[day][0] for day in (date(2026, 6, 13), YESTERDAY, TODAY)] == [1, 2, 1]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 8), 23), (date(2026, 11, 1), 25)], ids=["spring", "autumn"])
def test_the_days_on_which_clocks_are_set_have_all_their_hours(day: date, hours: int) -> None:
    """A change in each half hour, from the day before until the day after, in the order in which they were made."""
    start = datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)
    moments = [(start + timedelta(minutes=30 * half)).astimezone(NEW_YORK) for half in range(-48, 2 * hours + 48)]
    change(*[at(*made_at.timetuple()[:5], fold=made_at.fold) for made_at in moments])
    with time_machine.travel(start + timedelta(days=3), tick=False):
        count()
        told = days()
    around = [told[day + timedelta(days=number)][0] for number in (-1, 0, 1)]
    assert around == [48, 2 * hours, 48]


def test_changes_that_are_numbered_out_of_order_are_on_their_day(clock: Any) -> None:
    """A transaction of yesterday was committed after those of today had begun."""
    change(at(2026, 6, 15, 0, 1), at(2026, 6, 14, 23, 58), at(2026, 6, 15, 0, 2), at(2026, 6, 14, 23, 59))
    count()
    assert (days()[YESTERDAY][0], days()[TODAY][0]) == (2, 2)


def test_yesterday_and_today_are_counted_anew(clock: Any) -> None:
    change(at(2026, 6, 13, 12), at(2026, 6, 14, 12), at(2026, 6, 15, 11))
    assert count().days == 30
    change(at(2026, 6, 15, 11, 59), at(2026, 6, 15, 11, 58))
    assert count().days == 2
    assert [days()[day][0] for day in (date(2026, 6, 13), YESTERDAY, TODAY)] == [1, 1, 3]


def test_a_day_that_was_counted_before_it_was_over_is_counted_again_whenever_that_is(clock: Any) -> None:
    count()
    change(at(2026, 6, 15, 23))
    clock.move_to(NOON + timedelta(days=5))
    assert count().days == 7, "yesterday of then, and since"
    assert days()[TODAY] == (1, 0)


def test_old_counts_are_forgotten(clock: Any) -> None:
    for age in (401, 400):
        old = TODAY - timedelta(days=age)
        ChangeCount.objects.create(
            livemode=False, day=old, granted=1, revoked=1, first_change=1, last_change=2, counted_at=timezone.now()
        )
    count()
    assert ChangeCount.objects.order_by("day").first().day == TODAY - timedelta(days=400)


def test_before_the_first_count_nothing_is_told(clock: Any) -> None:
    told, counted_at = counts.by_day(livemode=False)
    assert (told[-1], counted_at) == (Day(TODAY, None, None), None)


# --- when


def test_a_run_counts_once_an_hour_also_without_a_key() -> None:
    deliver(summary("cus_acme", "sso"))
    assert "Counted for the overview: 1 feature(s), changes of 30 day(s)." in run()
    assert "Counted" not in run()
    (done,) = SyncRun.objects.filter(kind="count")
    assert (done.done, done.error) == (31, "")
    hour_ago = timezone.now() - timedelta(hours=1)
    SyncRun.objects.update(finished_at=hour_ago)
    assert "Counted for the overview: 1 feature(s), changes of 2 day(s)." in run()


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=StringIO())
    return out.getvalue()


def test_what_there_was_no_time_for_is_counted_by_the_next_pass(clock: Any) -> None:
    change(at(2026, 6, 1, 12))
    report = count_if_due(deadline=time.monotonic())
    assert report == CountReport(0, 1, finished=False)
    assert "There is more" in report.as_line()
    assert count_if_due(deadline=time.monotonic() + 30) is None, "in a minute"
    clock.move_to(NOON + timedelta(minutes=2))
    assert count_if_due(deadline=time.monotonic() + 30) == CountReport(0, 30, finished=True)
    assert days()[date(2026, 6, 1)] == (1, 0)


def test_a_count_that_fails_stands_in_its_run_and_stops_nothing_else() -> None:
    with broken_processing():
        said, warned = StringIO(), StringIO()
        call_command("entitlements_run", stdout=said, stderr=warned)
    assert "Nothing was counted for the overview. " in warned.getvalue()
    assert SyncRun.objects.get(kind="count").error.startswith(("OperationalError: ", "ProgrammingError: "))


def test_a_count_whose_process_was_killed_is_made_again(clock: Any) -> None:
    change(at(2026, 6, 14, 12))
    SyncRun.objects.create(kind="count", livemode=False)
    ChangeCount.objects.create(
        livemode=False, day=YESTERDAY, granted=0, revoked=0, first_change=0, last_change=0, counted_at=timezone.now()
    )
    assert count_if_due(deadline=time.monotonic() + 30) is None, "it may still be at work"
    clock.move_to(NOON + timedelta(minutes=6))
    assert count_if_due(deadline=time.monotonic() + 30) == CountReport(0, 30, finished=True)
    assert days()[YESTERDAY] == (1, 0)


def test_it_costs_a_few_queries_however_much_there_is(clock: Any, django_assert_max_num_queries: Any) -> None:
    Feature.objects.bulk_create(
        Feature(stripe_id=f"feat_{number}", lookup_key=f"key_{number}", livemode=False) for number in range(300)
    )
    change(*[at(2026, 6, 15, 11, number // 4) for number in range(200)])
    count()
    with django_assert_max_num_queries(120):  # more, the larger primary keys are: days are found by halving
        count()
