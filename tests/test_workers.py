"""Celery workers in processes of their own, woken over a real broker; killed, doubled, and with nothing to do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from django.db import connection

from entitlements_app import dispatch
from entitlements_app.linking import link
from entitlements_app.models import Customer, EntitlementChange, WebhookEvent
from entitlements_app.overrides import grant
from tests import valkey
from tests.celery_app import app
from tests.delivery import deliver, store_only, summary
from tests.receivers import Listener, connected
from tests.rows import customer, effective, held, make_subscriber
from tests.threads import closed
from tests.workers import Worker, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue")]

Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts workers, and ends them with the test."""
    workers: list[Worker] = []

    def starting(*options: str, **variables: str) -> Worker:
        workers.append(Worker(valkey.broker_url(), *options, TEST_SERVER_CACHE=valkey.url(), **variables))
        return workers[-1].start()

    yield starting
    for worker in workers:
        worker.stop()


def pending() -> int:
    return WebhookEvent.objects.pending().count()


def test_an_event_is_stored_by_the_view_and_processed_by_a_worker(acme: Any, queue: Any, start: Start) -> None:
    deliver(summary("cus_acme", "sso"))
    assert (pending(), held(), queue.llen("celery")) == (1, set(), 2), "the link has had a customer to confirm"
    start("--pool=prefork", "--concurrency=2")
    wait_until(lambda: not pending())
    assert held() == {"sso"}
    wait_until(lambda: EntitlementChange.objects.get().delivered_at)
    deliver(summary("cus_acme", "audit", created=int(time.time()) + 1))
    wait_until(lambda: held() == {"audit"})
    assert effective() == ["+sso", "+audit", "-sso"]


def test_a_burst_is_a_few_messages_and_each_event_is_processed_once(queue: Any, start: Start) -> None:
    workers = [start(), start()]
    number = 300 if connection.vendor == "postgresql" else 60
    with workers_are_busy():
        for name in range(number):
            assert deliver(summary(f"cus_{name}", "sso")).status_code == 200
    wait_until(lambda: not pending())
    if connection.vendor == "postgresql":
        # One for each worker, one that waits, and one after a pass that lasted as long as all this.
        assert 3 <= queue.info("commandstats")["cmdstat_lpush"]["calls"] <= 6
    assert Counter(Customer.objects.values_list("version", flat=True)) == {1: number}
    assert Counter(WebhookEvent.objects.values_list("status", "attempts")) == {("processed", 0): number}
    assert EntitlementChange.objects.count() == number
    assert all("process_events" in worker.log for worker in workers)


def workers_are_busy() -> AbstractContextManager[object]:
    """Each with the first batch that it gets, where that can be and events be stored meanwhile."""
    return closed("customer") if connection.vendor == "postgresql" else nullcontext()


def test_without_a_worker_a_burst_is_one_message(queue: Any) -> None:
    for number in range(30):
        deliver(summary(f"cus_{number}", "sso"))
    assert queue.llen("celery") == 1


def test_without_a_cache_each_event_is_a_message(queue: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_CACHE = None
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso"))
    assert queue.llen("celery") == 5


@pytest.mark.parametrize("location", ["down", "here"])
def test_a_cache_that_cannot_hold_a_flag_for_all_is_no_cache(location: str, queue: Any, settings: Any) -> None:
    backend = "locmem.LocMemCache" if location == "here" else "redis.RedisCache"
    settings.CACHES = {
        "default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "redis://127.0.0.1:1"}
    }
    for number in range(5):
        assert deliver(summary(f"cus_{number}", "sso")).status_code == 200
    assert queue.llen("celery") == 5


def test_a_redelivery_of_an_event_that_waits_wakes_and_one_of_another_does_not(queue: Any) -> None:
    event = summary("cus_acme", "sso")
    deliver(event)
    dispatch.heard("process_events")
    deliver(event)
    assert queue.llen("celery") == 2
    WebhookEvent.objects.update(status="processed")
    dispatch.heard("process_events")
    deliver(event)
    assert queue.llen("celery") == 2


def test_a_worker_killed_in_the_middle_of_a_batch_leaves_it_to_another(queue: Any, start: Start) -> None:
    victim = start()
    store_only(*[summary(f"cus_{number}", "sso") for number in range(20)])
    with closed("customer") as wait_for:
        dispatch.wake("process_events")
        wait_until(lambda: not queue.llen("celery"))
        wait_for(1)
        victim.kill()
    start()
    assert pending() == 20, "the message died with the worker"
    dispatch.wake("process_events")
    wait_until(lambda: not pending())
    assert set(WebhookEvent.objects.values_list("status", "attempts")) == {("processed", 0)}
    assert set(Customer.objects.values_list("version", flat=True)) == {1}


def test_a_flag_that_nobody_lowers_ends_and_beat_comes_anyway(queue: Any, start: Start) -> None:
    deliver(summary("cus_acme", "sso"))
    queue.delete("celery")
    deliver(summary("cus_other", "sso"))
    assert queue.llen("celery") == 0, "somebody is believed to be on the way"
    [flag] = [key for key in queue.scan_iter() if b"wake:process_events" in key]
    assert 0 < queue.ttl(flag) <= dispatch.FLAG_SECONDS
    start("--pool=solo", "-B", TEST_SERVER_BEAT="0.5")
    wait_until(lambda: not pending())
    assert held("cus_acme") == held("cus_other") == {"sso"}
    assert not queue.exists(flag)


def test_an_event_that_cannot_be_processed_fails_alone(acme: Any, queue: Any, start: Start) -> None:
    deliver(summary("cus_acme", "sso"))
    deliver(summary("cus_bad", "sso"))
    WebhookEvent.objects.filter(customer_stripe_id="cus_bad").update(payload={"entitlements": "not a list"})
    start()
    wait_until(lambda: WebhookEvent.objects.filter(attempts=1).count() == 2)
    wait_until(lambda: WebhookEvent.objects.get(customer_stripe_id="cus_bad").error)
    assert held() == {"sso"}
    assert pending() == 1


# --- who wakes whom, seen in the queue


def test_no_receiver_runs_in_a_request_but_a_worker_is_woken_after_the_commit(acme: Any, queue: Any) -> None:
    queue.delete("celery")
    listener = Listener()
    with connected(listener):
        grant(acme, "sso", force=True)
    assert listener.heard == []
    assert tasks_in(queue) == ["deliver_changes"]
    assert EntitlementChange.objects.get().delivered_at is None


def test_a_link_has_a_worker_ask_stripe(queue: Any) -> None:
    link(make_subscriber(), "cus_new")
    assert tasks_in(queue) == ["confirm_customers"]
    assert customer("cus_new").urgent


def tasks_in(queue: Any) -> list[str]:
    """The names of the tasks that wait, in order."""
    with app.connection_for_read() as broker, broker.SimpleQueue("celery") as waiting:
        return [waiting.get_nowait().headers["task"].rpartition(".")[2] for _ in range(queue.llen("celery"))]
