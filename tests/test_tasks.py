"""Celery's tasks and beat's schedule, in this process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from entitlements_app import dispatch, schedule, tasks
from entitlements_app.inbox import process_due
from entitlements_app.linking import link
from entitlements_app.models import EntitlementChange, Feature, SyncRun, WebhookEvent
from entitlements_app.overrides import grant
from tests.celery_app import app
from tests.delivery import deliver, store_only, summary
from tests.receivers import Listener, connected
from tests.rows import customer, held, make_subscriber
from tests.server import ROOT
from tests.shop import Shop
from tests.threads import Crowd, closed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.once
def test_each_entry_of_beat_is_a_task_with_a_rhythm_and_an_end() -> None:
    for entry in schedule.BEAT_SCHEDULE.values():
        task = app.tasks[entry["task"]]
        assert (task.ignore_result, task.acks_late, task.reject_on_worker_lost) == (True, False, False)
        assert 0 < entry["schedule"] <= entry["options"]["expires"] == 60
    scheduled = {entry["task"] for entry in schedule.BEAT_SCHEDULE.values()}
    assert scheduled == {name for name in app.tasks if name.startswith("entitlements_app.")}
    assert {f"entitlements_app.tasks.{name}" for name in dispatch.Work.__args__} <= scheduled


@pytest.mark.once
def test_the_schedule_can_be_imported_by_settings() -> None:
    code = "import sys, entitlements_app.schedule; sys.exit('celery' in sys.modules or 'django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_worker_counts_for_the_overview_once_an_hour() -> None:
    for _ in range(2):
        tasks.count_for_overview()
    assert SyncRun.objects.filter(kind="count", error="", finished_at__isnull=False).count() == 1


# --- with task_always_eager, as in a site's own tests


@pytest.fixture
def eager(queue: Any) -> Iterator[None]:
    app.conf.task_always_eager = True
    try:
        yield
    finally:
        app.conf.task_always_eager = False


@pytest.mark.parametrize("atomic_requests", [False, True])
def test_eager_tasks_do_all_within_the_request(
    atomic_requests: bool, acme: Any, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)
    listener = Listener()
    with connected(listener):
        assert deliver(summary("cus_acme", "sso")).status_code == 200
    assert (held(), listener.heard) == ({"sso"}, ["+sso"])


def test_eager_tasks_wait_for_the_commit(acme: Any, eager: None) -> None:
    listener = Listener()
    with connected(listener):
        with transaction.atomic():
            grant(acme, "sso", force=True)
            assert listener.heard == []
        assert listener.heard == ["+sso"]
        with transaction.atomic():
            grant(acme, "audit", force=True)
            transaction.set_rollback(True)
    assert listener.heard == ["+sso"]


# --- passes


@pytest.mark.once
def test_a_pass_that_was_cut_short_wakes_its_kind_again(queue: Any) -> None:
    subscribers = [make_subscriber(), make_subscriber()]
    for subscriber in subscribers:
        grant(subscriber, "sso", force=True)
    queue.delete("celery")
    with connected(lambda **_: time.sleep(tasks.PASS_SECONDS)):
        tasks.deliver_changes()
    assert EntitlementChange.objects.filter(delivered_at=None).count() == 1
    assert queue.llen("celery") == 1


def test_a_pass_that_did_all_wakes_nobody(queue: Any) -> None:
    grant(make_subscriber(), "sso", force=True)
    queue.delete("celery")
    tasks.deliver_changes()
    tasks.process_events()
    tasks.expire_overrides()
    assert queue.llen("celery") == 0


def test_a_batch_with_an_urgent_customer_wakes_for_it_and_another_does_not(acme: Any, queue: Any) -> None:
    tasks.confirm_customers()  # what the link has asked for; Stripe is out of reach
    customers = type(customer()).objects
    customers.update(urgent=False)
    queue.delete("celery")
    deliver(summary("cus_acme", "sso"))
    tasks.process_events()
    assert [b"confirm_customers" in message for message in queue.lrange("celery", 0, -1)].count(True) == 0
    deliver(summary("cus_acme", "sso", has_more=True, created=int(time.time()) + 1))
    tasks.process_events()
    assert customer().urgent
    assert [b"confirm_customers" in message for message in queue.lrange("celery", 0, -1)].count(True) == 1


def test_the_question_that_a_link_asks_is_answered_by_the_task(queue: Any, shop: Shop) -> None:
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    link(make_subscriber(), stripe_id)
    assert queue.llen("celery") == 1
    tasks.confirm_customers()
    assert held(stripe_id) == {"sso", "export"}


def test_a_lost_event_is_found_and_has_its_customer_asked_about(queue: Any, shop: Shop) -> None:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    shop.stripe.clock.advance(200)
    queue.delete("celery")
    tasks.backfill_events()
    assert queue.llen("celery") == 1
    tasks.process_events()
    tasks.confirm_customers()
    assert held(stripe_id) == {"sso", "export"}
    shop.calls()
    tasks.backfill_events()
    assert shop.calls() == [], "it is not due"


def test_the_catalogue_is_read_once_a_day(queue: Any, shop: Shop) -> None:
    tasks.sync_catalog()
    assert Feature.objects.filter(lookup_key="sso").exists()
    shop.calls()
    tasks.sync_catalog()
    assert shop.calls() == []


@pytest.mark.postgresql
def test_two_workers_take_different_events() -> None:
    events = [summary(f"cus_{number}", "sso") for number in range(510)]
    store_only(*events)
    taken: list[int] = []
    counting = threading.Lock()

    def worker() -> None:
        number = process_due(deadline=time.monotonic() + 60)
        with counting:
            taken.append(number)

    with closed("customer") as wait_for:
        crowd = Crowd().start(worker, worker)
        wait_for(2)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relation::regclass::text FROM pg_locks JOIN pg_stat_activity USING (pid) "
                "WHERE NOT granted AND datname = current_database()"
            )
            assert cursor.fetchall() == [("entitlements_app_customer",)] * 2, "neither waits for the other's events"
    crowd.join()
    assert sum(taken) == 510
    assert min(taken) > 0
    assert set(WebhookEvent.objects.values_list("status", "attempts")) == {("processed", 0)}
