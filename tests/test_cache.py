"""The cache is never behind: no question that begins after an answer has changed gets the old one."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from entitlements_app import cache
from entitlements_app.access import aget_entitlements, get_entitlements, has_entitlement
from entitlements_app.linking import link, unlink
from entitlements_app.models import ActiveEntitlement, EntitlementOverride
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator
from tests import valkey
from tests.delivery import customer_deleted, deliver, signature, summary
from tests.rows import BY_ORGANISATION, customer, make_subscriber, visitor_of
from tests.server import Server
from tests.testapp import caches as held_caches
from tests.testapp.caches import Hold
from tests.testapp.models import Member
from tests.threads import Crowd, together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["locmem", "valkey"])
def shared(request: pytest.FixtureRequest, settings: Any) -> Iterator[Any]:
    """A cache that the app shares answers in."""
    if request.param == "locmem":
        backend = {"BACKEND": "tests.testapp.caches.HeldLocMem", "LOCATION": "entitlements"}
    else:
        backend = {"BACKEND": "tests.testapp.caches.HeldRedis", "LOCATION": valkey.url()}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, "answers": backend}
    settings.ENTITLEMENTS_CACHE = "answers"
    caches["answers"].clear()
    held_caches.calls.clear()
    yield caches["answers"]
    for hold in (*held_caches.before.values(), *held_caches.after.values()):
        hold.open()
    caches["answers"].clear()


@contextmanager
def closed(hold: Hold) -> Iterator[Hold]:
    try:
        yield hold.close()
    finally:
        hold.open()


def keys(subscriber: Any) -> list[str]:
    return list(get_entitlements(subscriber))


class HeldAfterRead:
    """An `execute_wrapper`: the first question of entitlements has its rows, and waits."""

    def __init__(self) -> None:
        self.hold = Hold().close()

    def __call__(self, execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        result = execute(sql, *args)
        if "UNION ALL" in sql:
            self.hold.pass_by()
        return result


# --- what it is for


def test_a_warm_answer_costs_no_query_and_one_operation(acme: Any, shared: Any, django_assert_num_queries: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    with django_assert_num_queries(1):
        assert keys(acme) == ["sso"]
    held_caches.calls.clear()
    with django_assert_num_queries(0):
        assert keys(acme) == ["sso"]
        assert has_entitlement(acme, "sso")
    assert held_caches.calls == {"get_many": 2}


def test_a_warm_answer_is_one_command_of_the_protocol(acme: Any, settings: Any) -> None:
    redis = pytest.importorskip("redis")
    url = valkey.url()
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}
    settings.ENTITLEMENTS_CACHE = "default"
    server = redis.Redis.from_url(url)
    keys(acme)
    server.config_resetstat()
    keys(acme)
    commands = {name: row["calls"] for name, row in server.info("commandstats").items() if "config" not in name}
    assert commands == {"cmdstat_mget": 1}


def test_a_cached_answer_says_when_it_was_read(acme: Any, shared: Any) -> None:
    read_at = get_entitlements(acme).as_of
    assert get_entitlements(acme).as_of == read_at


def test_only_texts_are_stored(acme: Any, shared: Any) -> None:
    grant(acme, "sso", until=timezone.now() + timedelta(days=1), force=True)
    keys(acme)
    stored = shared.get_many([f"entitlements:{entry}:test:{acme.pk}" for entry in "vd"])
    assert len(stored) == 2
    assert {type(value) for value in stored.values()} == {str}


@pytest.mark.parametrize("strange", [b"\x80", "no json", "[]", "{}", "[1,2,3]", 7, ["x"]])
def test_what_we_did_not_store_is_no_answer(acme: Any, shared: Any, strange: Any) -> None:
    keys(acme)
    shared.set(f"entitlements:d:test:{acme.pk}", strange)
    assert keys(acme) == []


def test_modes_and_subscribers_have_entries_of_their_own(acme: Any, shared: Any, settings: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    assert keys(acme) == ["sso"]
    settings.ENTITLEMENTS_LIVEMODE = True
    assert keys(acme) == []
    assert keys(make_subscriber()) == []


def test_an_override_is_heard_in_both_modes(shared: Any, settings: Any) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    settings.ENTITLEMENTS_LIVEMODE = True  # as in other processes of the site: this mode has announced nothing yet
    assert keys(somebody) == ["sso"]
    settings.ENTITLEMENTS_LIVEMODE = False
    deny(somebody, "sso", force=True)
    settings.ENTITLEMENTS_LIVEMODE = True
    assert keys(somebody) == []


def test_async_code_is_answered_from_it(acme: Any, shared: Any, django_assert_num_queries: Any) -> None:
    async_to_sync(aget_entitlements)(acme)  # also reads which keys exist, once a minute
    with django_assert_num_queries(0):
        assert list(async_to_sync(aget_entitlements)(acme)) == []


# --- every writer is heard


def deliver_newer(*keys: str) -> None:
    later = int(time.time()) + 10
    deliver(summary("cus_acme", *keys, created=later), t=later)


WRITERS: dict[str, Callable[[Any], Any]] = {
    "event": lambda acme: deliver_newer("audit"),
    "deletion": lambda acme: deliver(customer_deleted("cus_acme")),
    "grant": lambda acme: grant(acme, "audit", force=True),
    "deny": lambda acme: deny(acme, "sso", force=True),
    "grant to come": lambda acme: grant(acme, "audit", starts=timezone.now() + timedelta(seconds=0.1), force=True),
    "unlink": lambda acme: unlink("cus_acme"),
    "moved away": lambda acme: link(make_subscriber(), "cus_acme", move=True),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_is_heard(acme: Any, shared: Any, writer: str) -> None:
    deliver(summary("cus_acme", "sso"))
    assert keys(acme) == ["sso"]
    WRITERS[writer](acme)
    time.sleep(0.15 if writer == "grant to come" else 0)
    assert set(keys(acme)) == {
        "event": {"audit"},
        "grant": {"audit", "sso"},
        "grant to come": {"audit", "sso"},
    }.get(writer, set())


def test_a_link_is_heard(shared: Any) -> None:
    deliver(summary("cus_new", "sso"))
    somebody = make_subscriber()
    assert keys(somebody) == []
    link(somebody, "cus_new")
    assert keys(somebody) == ["sso"]


def test_a_fetch_is_heard(acme: Any, shop: Any, shared: Any) -> None:
    stripe_id = shop.customer()
    link(acme, stripe_id)
    assert keys(acme) == []
    shop.subscribe(stripe_id, "pro")
    assert sync_customer(customer(stripe_id)).changed
    assert keys(acme) == ["export", "sso"]


def test_clearing_is_heard(acme: Any, shared: Any) -> None:
    grant(acme, "sso", force=True)
    assert keys(acme) == ["sso"]
    assert clear(acme, "sso") == 1
    assert keys(acme) == []


def test_an_override_ends_to_the_second_though_nobody_tells_the_cache(acme: Any, shared: Any) -> None:
    end = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    grant(acme, "sso", until=end, force=True)
    deny(acme, "audit", starts=end, force=True)
    grant(acme, "audit", force=True)
    for _ in range(2):
        assert keys(acme) == ["audit", "sso"]
    with time_machine.travel((end - timedelta(seconds=1)).timestamp(), tick=False):
        assert keys(acme) == ["audit", "sso"]
    with time_machine.travel(end.timestamp(), tick=False):
        assert keys(acme) == []


# --- races


def test_a_reader_held_after_its_read_does_not_bring_back_the_old_answer(acme: Any, shared: Any) -> None:
    reading = HeldAfterRead()

    def read() -> None:
        with connection.execute_wrapper(reading):
            assert keys(acme) == []

    crowd = Crowd().start(read)
    reading.hold.wait()
    deliver(summary("cus_acme", "sso"))
    assert keys(acme) == ["sso"]
    reading.hold.open()
    crowd.join()
    assert keys(acme) == ["sso"]


@pytest.mark.parametrize("at", ["before get_many", "after get_many", "before add", "after add", "before set"])
def test_a_reader_held_in_a_call_of_the_cache_does_not_either(acme: Any, shared: Any, at: str) -> None:
    when, call = at.split()
    with closed(getattr(held_caches, when)[call]) as hold:
        crowd = Crowd().start(lambda: keys(acme))
        hold.wait()
        deliver(summary("cus_acme", "sso"))
        hold.open()
        crowd.join()
    assert keys(acme) == ["sso"]
    assert keys(acme) == ["sso"]


def test_two_readers_and_two_writers(acme: Any, shared: Any) -> None:
    """One reader has read before both writes, the other between them; both store after them."""
    with closed(held_caches.before["set"]) as hold:
        crowd = Crowd().start(lambda: keys(acme))
        hold.wait()
        grant(acme, "sso", force=True)
        crowd.start(lambda: keys(acme))
        deadline = time.monotonic() + 60
        while held_caches.calls["set"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        clear(acme, "sso")
        hold.open()
        crowd.join()
    assert keys(acme) == []
    assert keys(acme) == []


@pytest.mark.parametrize("evicted", ["v", "d", "both"])
@pytest.mark.parametrize("when", ["before the write", "after the write"])
def test_an_eviction_brings_back_nothing_old(acme: Any, shared: Any, evicted: str, when: str) -> None:
    reading = HeldAfterRead()

    def read() -> None:
        with connection.execute_wrapper(reading):
            keys(acme)

    def evict() -> None:
        for entry in "vd" if evicted == "both" else evicted:
            shared.delete(f"entitlements:{entry}:test:{acme.pk}")

    keys(acme)
    shared.delete(f"entitlements:d:test:{acme.pk}")
    crowd = Crowd().start(read)
    reading.hold.wait()
    if when == "before the write":
        evict()
    deliver(summary("cus_acme", "sso"))
    if when == "after the write":
        evict()
    reading.hold.open()
    crowd.join()
    assert keys(acme) == ["sso"]
    assert keys(acme) == ["sso"]


def test_many_at_once_and_after_each_commit_everybody_sees_it(acme: Any, shared: Any) -> None:
    state: dict[str, Any] = {"wanted": [], "going": True}
    wrong: list[Any] = []

    def write() -> None:
        for number in range(12):
            state["wanted"] = None  # anything goes while it changes
            grant(acme, "sso", force=True) if number % 2 == 0 else clear(acme, "sso")
            state["wanted"] = ["sso"] if number % 2 == 0 else []
            time.sleep(0.01)
        state["going"] = False

    def read() -> None:
        while state["going"]:
            before = state["wanted"]
            answer = keys(acme)
            if before is not None and before is state["wanted"] and answer != before:
                wrong.append((answer, before))

    together(read, read, write)
    assert wrong == []


# --- transactions


def test_a_transaction_sees_what_it_wrote_and_nobody_else_does(acme: Any, shared: Any) -> None:
    keys(acme)
    others: list[Any] = []
    with transaction.atomic():
        grant(acme, "sso", force=True)
        assert keys(acme) == ["sso"]
        together(lambda: others.append(keys(acme)))
    assert others == [[]]
    assert keys(acme) == ["sso"]


def test_a_rollback_leaves_no_trace(acme: Any, shared: Any) -> None:
    keys(acme)
    with transaction.atomic():
        grant(acme, "sso", force=True)
        assert keys(acme) == ["sso"]
        transaction.set_rollback(True)
    assert keys(acme) == []
    held_caches.calls.clear()
    assert keys(acme) == []
    assert held_caches.calls == {"get_many": 1}


def test_a_savepoint_that_is_rolled_back_leaves_no_trace(acme: Any, shared: Any) -> None:
    with transaction.atomic():
        with transaction.atomic():
            grant(acme, "sso", force=True)
            transaction.set_rollback(True)
        assert keys(acme) == []
    assert keys(acme) == []


def test_rows_of_the_site_s_own_that_are_rolled_back_are_not_stored(acme: Any, shared: Any) -> None:
    with transaction.atomic():
        EntitlementOverride.objects.create(subscriber=acme, lookup_key="sso", effect="grant")
        assert keys(acme) == ["sso"]
        transaction.set_rollback(True)
    assert keys(acme) == []


@pytest.fixture
def old_snapshots() -> Iterator[None]:
    """Transactions see what was true when they began: PostgreSQL's REPEATABLE READ, SQLite's write-ahead log."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
    yield
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=DELETE")


def begin_snapshot() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM entitlements_app_customer")
        cursor.fetchall()


@pytest.mark.usefixtures("old_snapshots")
def test_what_an_old_transaction_saw_is_not_stored(acme: Any, shared: Any) -> None:
    began, written = threading.Event(), threading.Event()
    saw: list[Any] = []

    def read() -> None:
        with transaction.atomic():
            begin_snapshot()
            began.set()
            assert written.wait(timeout=20)
            saw.append(keys(acme))

    crowd = Crowd().start(read)
    assert began.wait(timeout=20)
    deliver(summary("cus_acme", "sso"))
    written.set()
    crowd.join()
    assert saw == [[]], "the database really showed the past"
    assert keys(acme) == ["sso"]


@pytest.mark.usefixtures("old_snapshots")
def test_atomic_requests(acme: Any, shared: Any, django_assert_num_queries: Any) -> None:
    client = Client()
    client.force_login(visitor_of(acme), backend="django.contrib.auth.backends.ModelBackend")
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert client.get("/saying/attribute/").content == b"closed"
        grant(acme, "premium_support", force=True)
        assert client.get("/saying/attribute/").content == b"open"
        held_caches.calls.clear()
        assert client.get("/saying/attribute/").content == b"open"
        assert held_caches.calls == {"get_many": 1}, "what the request read was stored after its commit"
        clear(acme, "premium_support")
        assert client.get("/saying/attribute/").content == b"closed"
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_a_callback_of_the_site_that_runs_before_ours_sees_the_new_answer(acme: Any, shared: Any) -> None:
    keys(acme)
    saw: list[Any] = []
    with transaction.atomic():
        transaction.on_commit(lambda: saw.append(keys(acme)))
        grant(acme, "sso", force=True)
    assert saw == [["sso"]]


def test_manual_commits(acme: Any, shared: Any) -> None:
    """Nothing is stored that was read where nobody says when it is committed."""
    transaction.set_autocommit(False)
    try:
        assert keys(acme) == []
        assert "set" not in held_caches.calls
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


# --- the cache is down


@pytest.fixture
def down(settings: Any, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """A cache whose server does not answer."""
    pytest.importorskip("redis")
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": backend}
    settings.ENTITLEMENTS_CACHE = "default"
    caplog.set_level(logging.WARNING, logger="entitlements_app.cache")
    return caplog


def test_the_database_answers_and_the_log_has_one_line_a_minute(
    acme: Any, down: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deliver(summary("cus_acme", "sso")).status_code == 200
    for _ in range(3):
        assert keys(acme) == ["sso"]
    assert [record.levelname for record in down.records] == ["WARNING"]
    monkeypatch.setattr("entitlements_app.cache.LOG_EVERY", 0)
    keys(acme)
    assert len(down.records) == 2


def test_what_changed_while_it_was_down_is_wrong_for_cache_seconds_at_most(
    acme: Any, shared: Any, settings: Any
) -> None:
    settings.ENTITLEMENTS_CACHE_SECONDS = 1
    keys(acme)
    with override_cache(settings, {"BACKEND": "django.core.cache.backends.redis.RedisCache"}, "redis://127.0.0.1:1"):
        grant(acme, "sso", force=True)
        assert keys(acme) == ["sso"]
    time.sleep(1.1)
    assert keys(acme) == ["sso"]


def test_a_cache_that_refuses_without_raising_is_told_too(acme: Any, settings: Any, caplog: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.testapp.caches.RefusingLocMem", "LOCATION": "refusing"}}
    settings.ENTITLEMENTS_CACHE = "default"
    grant(acme, "sso", force=True)
    assert [record.levelname for record in caplog.records if record.name == "entitlements_app.cache"] == ["WARNING"]


@contextmanager
def override_cache(settings: Any, backend: dict[str, str], location: str) -> Iterator[None]:
    before = settings.CACHES
    settings.CACHES = before | {"answers": backend | {"LOCATION": location}}
    try:
        yield
    finally:
        settings.CACHES = before


# --- several processes


def test_what_one_process_writes_the_others_see(acme: Any, stripe: StripeSimulator, settings: Any) -> None:
    """Two sites and this process, on one Valkey: one of the sites keeps answers for a second by itself."""
    url = valkey.url()
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}
    settings.ENTITLEMENTS_CACHE = "default"
    client = Client()
    client.force_login(visitor_of(acme), backend="django.contrib.auth.backends.ModelBackend")
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    environment = {"TEST_SERVER_CACHE": url, "TEST_SERVER_API_KEY": ""}  # this Stripe would deny what is posted
    quick = Server(stripe, **environment)
    patient = Server(stripe, **environment, TEST_SERVER_LOCAL_SECONDS="1")

    def seen(server: Server) -> bytes:
        request = Request(f"http://127.0.0.1:{server.port}/saying/attribute/", headers={"Cookie": cookie})
        with urlopen(request, timeout=20) as response:
            return response.read()

    try:
        for server in (quick, patient):
            assert seen(server.start()) == b"closed"
        for change, answer in (
            (lambda: grant(acme, "premium_support", force=True), b"open"),
            (lambda: clear(acme, "premium_support"), b"closed"),
            (lambda: post_to(quick, summary("cus_acme", "premium_support")), b"open"),
            (lambda: deny(acme, "premium_support", force=True), b"closed"),
        ):
            change()
            assert seen(quick) == answer
            assert has_entitlement(acme, "premium_support") is (answer == b"open")
            time.sleep(1.05)
            assert seen(patient) == answer
    finally:
        quick.stop()
        patient.stop()


def post_to(server: Server, event: dict[str, Any]) -> None:
    body = json.dumps(event).encode()
    request = Request(server.webhook_url, data=body, headers={"Stripe-Signature": signature(body)})
    with urlopen(request, timeout=20) as response:
        assert response.status == 200


# --- in the process


def test_an_answer_in_the_process_is_exactly_that_old(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 2
    reading = HeldAfterRead()
    answers: list[Any] = []

    def read() -> None:
        with connection.execute_wrapper(reading):
            answers.append(keys(acme))

    crowd = Crowd().start(read)
    reading.hold.wait()
    read_by = time.monotonic()
    EntitlementOverride.objects.create(subscriber=acme, lookup_key="sso", effect="grant")  # as another process would
    time.sleep(0.5)
    reading.hold.open()
    crowd.join()
    assert answers == [[]]
    assert keys(acme) == [] or time.monotonic() - read_by > 2, "held"
    time.sleep(max(0, read_by + 2.05 - time.monotonic()))  # since before the read, not since the answer came
    assert keys(acme) == ["sso"]


def test_an_answer_in_the_process_costs_nothing(acme: Any, settings: Any, django_assert_num_queries: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    keys(acme)
    with django_assert_num_queries(0):
        assert keys(acme) == []


@pytest.mark.parametrize("writer", [writer for writer in WRITERS if writer != "grant to come"])
def test_the_process_that_writes_forgets_what_it_held(acme: Any, settings: Any, writer: str) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    deliver(summary("cus_acme", "sso"))
    assert keys(acme) == ["sso"]
    WRITERS[writer](acme)
    assert keys(acme) != ["sso"]


def test_a_thread_that_had_read_before_does_not_bring_the_old_answer_back(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    reading = HeldAfterRead()

    def read() -> None:
        with connection.execute_wrapper(reading):
            assert keys(acme) == []

    crowd = Crowd().start(read)
    reading.hold.wait()
    grant(acme, "sso", force=True)
    reading.hold.open()
    crowd.join()
    assert keys(acme) == ["sso"]


def test_in_front_of_a_shared_cache(acme: Any, shared: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    keys(acme)
    held_caches.calls.clear()
    assert keys(acme) == []
    assert not held_caches.calls
    grant(acme, "sso", force=True)
    assert keys(acme) == ["sso"]


def test_an_override_that_ends_is_not_held_in_the_process_either(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 7 * 24 * 3600
    end = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    grant(acme, "sso", until=end, force=True)
    assert keys(acme) == ["sso"]
    with time_machine.travel(end.timestamp(), tick=False):
        assert keys(acme) == []


def test_nothing_read_in_a_transaction_is_held_in_the_process(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    with transaction.atomic():
        EntitlementOverride.objects.create(subscriber=acme, lookup_key="sso", effect="grant")
        assert keys(acme) == ["sso"]
        transaction.set_rollback(True)
    assert keys(acme) == []


def test_a_process_holds_no_more_than_it_may(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entitlements_app.cache._MOST_HELD", 2)
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    for _ in range(5):
        keys(make_subscriber())
        assert len(cache._held) <= 2


def test_a_deleted_subscriber_leaves_nothing_behind(shared: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    assert keys(somebody) == ["sso"]
    twin = type(somebody).objects.get(pk=somebody.pk)
    somebody.delete()
    assert keys(twin) == []
    assert not ActiveEntitlement.objects.exists()


@pytest.mark.skipif(BY_ORGANISATION, reason="about a proxy of the subscriber's model")
def test_nor_does_one_that_is_deleted_by_another_name(shared: Any) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    assert keys(somebody) == ["sso"]
    Member.objects.get(pk=somebody.pk).delete()
    assert keys(somebody) == []
