"""How the app is doing, as a person at a terminal and a monitor see it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings as site
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from entitlements_app import budget, inbox, runs, status
from entitlements_app.linking import link
from entitlements_app.models import AccountState, Customer, EntitlementChange, SubscriberState, SyncRun, WebhookEvent
from entitlements_app.overrides import grant
from entitlements_app.runs import Drift, Kind
from tests.delivery import SECRET, deliver, summary
from tests.receivers import Listener, connected
from tests.rows import broken_processing, make_subscriber
from tests.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)

QUERIES = 4  # what waits, what ran, drift, calls

HOURS = timedelta(hours=1)


def look(*args: str) -> tuple[str, int]:
    """What the command says, and its exit code."""
    out = StringIO()
    try:
        call_command("entitlements_status", *args, stdout=out)
    except SystemExit as ended:
        return out.getvalue(), int(str(ended.code))
    return out.getvalue(), 0


def data() -> dict[str, Any]:
    said, code = look("--json")
    told: dict[str, Any] = json.loads(said)
    assert told["well"] is (code == 0) is (not told["problems"])
    return told


def problems() -> set[str]:
    return {problem["code"] for problem in data()["problems"]}


def line(label: str) -> str:
    (found,) = [line for line in look()[0].splitlines() if line.strip().startswith(label)]
    return found.strip().removeprefix(label).strip()


def ran(kind: Kind, *, ago: timedelta = timedelta(0), error: str = "") -> None:
    run = runs.start(kind)
    assert run
    runs.finish(run, error=error)
    times = ("started_at", "seen_at", "finished_at")
    SyncRun.objects.filter(pk=run.pk).update(**{name: F(name) - ago for name in times})


@pytest.fixture
def polled(stripe: Any) -> None:
    """A site with a key, whose events are polled."""
    ran(Kind.BACKFILL)


# --- all is well


def test_a_site_that_is_well_says_so_in_its_last_line(shop: Shop, polled: None) -> None:
    link(make_subscriber(), cus := shop.customer())
    shop.subscribe(cus, "pro")
    shop.deliver()
    call_command("entitlements_run", stdout=StringIO())
    said, code = look()
    assert (code, said.splitlines()[-1]) == (0, "All is well.")
    assert line("Customers") == "1; 1 marked: there is news that no fetch has settled yet"
    theirs = " and dj-stripe's webhook endpoint" if site.DJSTRIPE else ""
    assert line("Mode") == f"test; an API key is set; 1 webhook secret(s){theirs}; processing: inline"
    assert line("Webhook events") == "0 pending; 0 failed"
    assert "this month (UTC); at most 1000 a second" in line("Calls to Stripe")


def test_the_columns_are_aligned(polled: None) -> None:
    table, last_runs = look()[0].split("\n\n")[:2]
    for lines in (table.splitlines(), last_runs.splitlines()[1:]):
        width = max(len(line.strip().split("  ")[0]) for line in lines) + (lines[0].startswith("  ") and 2)
        assert all(line[width : width + 2] == "  " and line[width + 2] != " " for line in lines)


def test_a_site_without_a_key_can_be_well() -> None:
    call_command("entitlements_run", stdout=StringIO(), stderr=StringIO())
    said, code = look()
    assert code == 0
    assert "no API key is set, so nothing is fetched" in said
    assert line("poll the Events API") == "none: no API key is set"


def test_a_new_site_is_told_what_is_missing(stripe: Any) -> None:
    assert look()[1] == 1
    assert line("sync the catalogue") == "no run yet: is entitlements_run in your crontab?"
    assert line("sync all customers").startswith("never: it is started by hand")
    assert line("Events API") == "not polled yet"
    assert problems() == {"poll_silent"}


def test_nothing_has_run_on_a_site_without_a_key() -> None:
    assert problems() == {"run_silent"}
    ran(Kind.PURGE, ago=24 * HOURS)
    assert problems() == set()
    SyncRun.objects.update(seen_at=timezone.now() - 49 * HOURS)
    assert problems() == {"run_silent"}


# --- what monitoring reads


def test_the_fields_are_those_that_are_documented(polled: None) -> None:
    def shape(value: Any) -> Any:
        return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None

    drift = dict.fromkeys(["event_lost", "catalog", "unknown"])
    of_run = ["started_at", "seen_at", "finished_at", "succeeded_at", "error", "total", "done", "changed"]
    run = dict.fromkeys([*of_run, "failed", "calls"])
    assert shape(data()) == {
        "well": None,
        "problems": None,
        "as_of": None,
        "configuration": dict.fromkeys(
            [
                "livemode",
                "api_key",
                "webhook_secrets",
                "djstripe_endpoint",
                "processing",
                "rate",
                "confirm_every_seconds",
            ]
        ),
        "events": dict.fromkeys(["pending", "overdue", "oldest_pending_seconds", "failed"]),
        "customers": dict.fromkeys(
            [
                *("total", "estimated", "marked", "due"),
                *("longest_due_seconds", "urgent", "longest_urgent_seconds"),
            ]
        ),
        "changes": dict.fromkeys(["undelivered", "oldest_undelivered_seconds", "parked"]),
        "overrides": dict.fromkeys(["untold", "longest_untold_seconds"]),
        "drift_day": drift,
        "drift_week": drift,
        "runs": {"confirm": None, "backfill": run, "catalog": None, "all": None, "purge": None, "count": None},
        "poll_lag_seconds": None,
        "calls": dict.fromkeys(["this_month", "stopped_at", "stopped_reason", "paused_until"]),
    }


def test_no_secret_is_shown(shop: Shop, polled: None) -> None:
    said = look()[0] + look("--json")[0]
    assert shop.stripe.api_key not in said
    assert SECRET not in said


def test_a_malformed_setting_is_a_command_error(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "hello"
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY"):
        look("--json")


def test_it_costs_a_constant_number_of_queries(acme: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(QUERIES):
        status.get_status()
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso"))
        grant(make_subscriber(), f"key{number}", force=True)
    for kind in Kind:
        ran(kind)
    with django_assert_num_queries(QUERIES):
        status.get_status()


# --- problems


def with_a_pending_event() -> None:
    with broken_processing():
        deliver(summary("cus_acme", "sso"))
    WebhookEvent.objects.update(received_at=F("received_at") - HOURS)


def with_a_failed_event() -> None:
    with_a_pending_event()
    WebhookEvent.objects.update(attempts=7, next_attempt_at=timezone.now())
    with broken_processing():
        inbox.process_due(deadline=time.monotonic() + 30)


def with_a_parked_change() -> None:
    with_a_waiting_change()
    EntitlementChange.objects.undelivered().update(attempts=8, next_attempt_at=timezone.now())
    with connected(Listener()):
        call_command("entitlements_run", stdout=StringIO(), stderr=StringIO())


def with_a_waiting_change() -> None:
    listener = Listener()
    listener.fails = 1
    with connected(listener):
        grant(make_subscriber(), "sso", force=True)
    EntitlementChange.objects.update(created_at=F("created_at") - 2 * HOURS)


def with_an_override_that_ended() -> None:
    grant(make_subscriber(), "sso", until=timezone.now() + HOURS, force=True)
    SubscriberState.objects.update(next_boundary_at=timezone.now() - 2 * HOURS)


def with_an_urgent_customer() -> None:
    link(make_subscriber(), "cus_new")
    Customer.objects.update(next_fetch_at=timezone.now() - HOURS)


def with_customers_nobody_confirms() -> None:
    link(make_subscriber(), "cus_old")
    Customer.objects.update(next_fetch_at=timezone.now() - 25 * HOURS, urgent=False, hinted_at=None)


def with_a_silent_poll() -> None:
    SyncRun.objects.update(seen_at=timezone.now() - 2 * HOURS)


def with_a_failing_poll() -> None:
    SyncRun.objects.update(finished_at=timezone.now() - 2 * HOURS)
    ran(Kind.BACKFILL, error="Stripe answered HTTP 500")


def with_a_refused_key() -> None:
    budget.Allowance(seconds=1).prepay()
    budget.stop(budget.Stopped("Stripe refused it.", reason="HTTP 401"))


def with_a_key_that_lacks_permissions() -> None:
    budget.Allowance(seconds=1).prepay()
    budget.stop(budget.Stopped("Stripe refused it.", reason="HTTP 403"))


def with_a_failing_catalogue() -> None:
    ran(Kind.CATALOG, ago=49 * HOURS)
    ran(Kind.CATALOG, error="Stripe answered HTTP 500")


def with_a_failing_count() -> None:
    ran(Kind.COUNT, ago=49 * HOURS)
    ran(Kind.COUNT, error="DatabaseError: disk full")


@pytest.mark.parametrize(
    ("go_wrong", "code", "remedy"),
    [
        (with_a_pending_event, "events_wait", "Is `manage.py entitlements_run` in your crontab"),
        (with_a_failed_event, "events_failed", "Try failed events again"),
        (with_a_parked_change, "changes_parked", "Send parked changes again"),
        (with_a_waiting_change, "changes_wait", "entitlements_app.provisioning says what fails"),
        (with_an_override_that_ended, "overrides_wait", "Is `manage.py entitlements_run` in your crontab"),
        (with_an_urgent_customer, "urgent_fetches_wait", "Is `manage.py entitlements_run` in your crontab"),
        (with_customers_nobody_confirms, "fetches_wait", "the longest for 25 h"),
        (with_a_silent_poll, "poll_silent", "last polled 2 h ago"),
        (with_a_failing_poll, "poll_fails", "Stripe answered HTTP 500."),
        (with_a_refused_key, "calls_stopped", "entitlements_run --resume"),
        (with_a_key_that_lacks_permissions, "calls_stopped", "must be allowed to read Entitlements and Customers"),
        (with_a_failing_catalogue, "catalog_fails", "Stripe answered HTTP 500."),
        (with_a_failing_count, "count_fails", "disk full."),
    ],
)
def test_what_needs_a_person_is_said_with_what_to_do(
    shop: Shop, polled: None, go_wrong: Callable[[], None], code: str, remedy: str
) -> None:
    assert problems() == set()
    go_wrong()
    assert code in problems()
    said, exit_code = look()
    assert exit_code == 1
    [message] = [line for line in said.partition("Problems:\n")[2].splitlines() if remedy in line]
    assert message.startswith("  - ")


def test_what_is_normal_is_no_problem(shop: Shop, polled: None) -> None:
    """Just arrived, just due, just failed once, and tried again by itself."""
    with broken_processing():
        deliver(summary("cus_acme", "sso"))
    listener = Listener()
    listener.fails = 1
    with connected(listener):
        grant(make_subscriber(), "sso", force=True)
    link(make_subscriber(), "cus_new")
    ran(Kind.CATALOG)
    ran(Kind.CATALOG, error="Stripe answered HTTP 500")
    told = data()
    assert told["well"]
    assert (told["events"]["pending"], told["changes"]["undelivered"], told["customers"]["urgent"]) == (1, 1, 1)
    assert line("sync the catalogue") == "0 s ago: 0 rows read; FAILED: Stripe answered HTTP 500"


def test_fetches_that_fail_are_not_blamed_on_cron(shop: Shop, polled: None) -> None:
    with_an_urgent_customer()
    runs.count_fetches(done=0, changed=0, failed=3, calls=3, drift={})
    assert "Of the last fetches 3 failed" in look()[0]


def test_nor_are_fetches_that_are_too_many(shop: Shop, polled: None) -> None:
    with_customers_nobody_confirms()
    runs.count_fetches(done=100, changed=0, failed=0, calls=100, drift={})
    assert "raise ENTITLEMENTS_STRIPE_RATE" in look()[0]


def test_without_a_key_waiting_customers_are_no_problem() -> None:
    ran(Kind.PURGE)
    with_an_urgent_customer()
    assert problems() == set()


# --- numbers


def test_drift_is_told_by_cause_and_time(polled: None) -> None:
    runs.count_fetches(done=9, changed=3, failed=0, calls=9, drift={Drift.EVENT_LOST: 2, Drift.UNKNOWN: 1})
    SyncRun.objects.filter(kind="confirm").update(started_at=timezone.now() - 48 * HOURS)
    runs.count_fetches(done=9, changed=1, failed=0, calls=9, drift={Drift.CATALOG: 1})
    told = data()
    assert told["drift_day"] == {"event_lost": 0, "catalog": 1, "unknown": 0}
    assert told["drift_week"] == {"event_lost": 2, "catalog": 1, "unknown": 1}
    assert line("Drift").startswith("in 24 hours 1 (1 catalogue changed); in 7 days 4 (2 event lost, 1 ")


def test_a_run_at_work_shows_its_progress(polled: None) -> None:
    run = runs.start(Kind.ALL, total=12_000)
    assert run
    runs.count(run, done=1234, changed=5, failed=1)
    assert line("sync all customers") == "at work for 0 s: 1,234 of 12,000 asked about, 5 changed something, 1 failed"
    SyncRun.objects.filter(pk=run.pk).update(seen_at=timezone.now() - HOURS)
    assert line("sync all customers").startswith("broke off 60 min ago: 1,234 of 12,000")


def test_the_last_success_is_told_beside_the_last_run(polled: None) -> None:
    ran(Kind.CATALOG, ago=5 * HOURS)
    ran(Kind.CATALOG, error="no")
    told = data()["runs"]["catalog"]
    assert told["error"] == "no"
    assert told["succeeded_at"] < told["started_at"]


def test_the_poll_s_lag_and_a_pause_are_about_now(stripe: Any) -> None:
    AccountState.objects.create(livemode=False, polled_to=int(time.time()) - 200)
    budget.pause()
    assert line("Events API") == "polled up to about 3 min ago"
    assert "; paused for 4 s more" in line("Calls to Stripe") or "; paused for 3 s more" in line("Calls to Stripe")
    AccountState.objects.update(paused_at=timezone.now() - HOURS, next_call_at=timezone.now() - HOURS)
    assert "paused" not in look()[0]


def test_the_other_mode_does_not_count(settings: Any, acme: Any) -> None:
    with_a_pending_event()
    with_a_waiting_change()
    ran(Kind.CATALOG, error="no")
    settings.ENTITLEMENTS_LIVEMODE = True
    told = data()
    assert told["configuration"]["livemode"] is True
    assert (told["events"]["pending"], told["changes"]["undelivered"], told["customers"]["total"]) == (0, 0, 0)
    assert not any(told["runs"].values())
