"""Signals: each change of an answer reaches each receiver, in order, at least once, and what fails is tried again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from io import StringIO
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import time_machine
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.test import Client, TestCase
from django.utils import timezone

from entitlements_app import provisioning
from entitlements_app.access import get_entitlements, has_entitlement
from entitlements_app.linking import link, unlink
from entitlements_app.models import EntitlementChange, SubscriberState
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.provisioning import resend
from entitlements_app.signals import entitlement_granted, entitlement_revoked
from tests.delivery import deliver, signature, summary
from tests.receivers import Listener, connected
from tests.rows import customer, effective, make_subscriber, visitor_of
from tests.server import Server
from tests.shop import Shop
from tests.threads import Crowd, closed, together

pytestmark = pytest.mark.django_db(transaction=True)

NOW = 1_700_000_000
MINUTE = 60.0


@pytest.fixture
def listener() -> Iterator[Listener]:
    """One receiver of both signals."""
    listener = Listener()
    with connected(listener):
        yield listener


@pytest.fixture
def clock() -> Iterator[Any]:
    """Stands still, and is moved by the test; to the second."""
    with time_machine.travel(int(time.time()), tick=False) as traveller:
        yield traveller


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=StringIO())
    return next(line for line in out.getvalue().splitlines() if line.startswith("Changes that waited"))


def changes(**filters: Any) -> list[EntitlementChange]:
    return list(EntitlementChange.objects.filter(effective=True, **filters).order_by("pk"))


def died_before_delivery() -> None:
    """As if the process that wrote the changes had died right after its commit."""
    for change in changes():
        EntitlementChange.objects.filter(pk=change.pk).update(delivered_at=None, attempts=0, receivers_done=[])


# --- what is told


def test_a_receiver_is_told_who_gained_what_and_through_which_customer(acme: Any, listener: Listener) -> None:
    deliver(summary("cus_acme", "sso", created=NOW))
    [call] = listener.calls
    [change] = changes()
    assert call == {
        "signal": entitlement_granted,
        "sender": EntitlementChange,
        "subscriber": acme,
        "customer": customer(),
        "lookup_key": "sso",
        "change": change,
    }
    deliver(summary("cus_acme", created=NOW + 1))
    assert listener.calls[1]["signal"] is entitlement_revoked
    assert listener.heard == ["+sso", "-sso"]


def test_an_override_has_no_customer(listener: Listener) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", force=True)
    clear(somebody, "sso")
    assert listener.heard == ["+sso", "-sso"]
    assert [(call["subscriber"], call["customer"]) for call in listener.calls] == [(somebody, None)] * 2


def test_what_changes_no_answer_is_not_told(acme: Any, listener: Listener) -> None:
    link(acme, "cus_second")
    deliver(summary("cus_nobody", "sso"))
    deliver(summary("cus_acme", "sso", created=NOW))
    deliver(summary("cus_second", "sso"))
    again = summary("cus_acme", "sso", created=NOW + 1)
    again["data"]["object"]["entitlements"]["data"][0]["id"] = "ent_test_another"
    deliver(again)
    deliver(summary("cus_acme", created=NOW + 2))
    assert listener.heard == ["+sso"]
    assert not EntitlementChange.objects.undelivered().exists()


def test_what_a_customer_held_before_its_link_is_told_with_the_link(listener: Listener) -> None:
    deliver(summary("cus_new", "audit", "sso"))
    assert listener.calls == []
    link(somebody := make_subscriber(), "cus_new")
    assert listener.heard == ["+audit", "+sso"]
    assert {call["subscriber"] for call in listener.calls} == {somebody}


def test_a_signal_goes_to_whom_the_change_is_about_and_not_to_today_s_subscriber(clock: Any, acme: Any) -> None:
    other, listener = make_subscriber(), Listener()
    listener.fails = 1
    with connected(listener):
        deliver(summary("cus_acme", "sso"))  # fails, and is told when the customer is somebody else's
        link(other, "cus_acme", move=True)
        clock.shift(MINUTE)
        run()
        unlink("cus_acme")
    told = [(call["subscriber"], heard) for call, heard in zip(listener.calls, listener.heard, strict=True)]
    assert told == [(acme, "+sso"), (other, "+sso"), (acme, "+sso"), (acme, "-sso"), (other, "-sso")]


@pytest.mark.parametrize("kind", ["granted", "revoked"])
def test_a_signal_that_nobody_listens_to_is_delivered(kind: str, acme: Any) -> None:
    signal = {"granted": entitlement_granted, "revoked": entitlement_revoked}[kind]
    signal.connect(listener := Listener(), weak=False)
    try:
        deliver(summary("cus_acme", "sso", created=NOW))
        deliver(summary("cus_acme", created=NOW + 1))
    finally:
        signal.disconnect(listener)
    assert [change.kind for change in listener.changes] == [kind]
    assert not EntitlementChange.objects.undelivered().exists()


def test_without_any_receiver_all_are_marked_at_once(django_assert_num_queries: Any) -> None:
    crowd = [make_subscriber() for _ in range(20)]
    for somebody in crowd:
        grant(somebody, "sso", force=True)
    died_before_delivery()
    with django_assert_num_queries(4):  # what is about nobody, what is due, all of that marked, what is due
        report = provisioning.deliver_due(deadline=time.monotonic() + 30)
    assert report.delivered == 20
    assert not EntitlementChange.objects.undelivered().exists()


def test_an_async_receiver_is_awaited(acme: Any) -> None:
    heard = []

    async def receiver(*, lookup_key: str, **_: Any) -> None:
        heard.append(lookup_key)

    with connected(receiver):
        deliver(summary("cus_acme", "sso"))
    assert heard == ["sso"]
    [change] = changes()
    assert change.receivers_done == [f"{__name__}.{receiver.__qualname__}"]


def test_an_async_receiver_that_is_cancelled_has_failed_as_one_that_raises(clock: Any, acme: Any) -> None:
    """As one that awaits a task that somebody cancelled, or whose request is given up by an ASGI server."""
    heard, is_cancelled = [], True

    async def receiver(*, subscriber: Any, **_: Any) -> None:
        if is_cancelled and subscriber == acme:
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task
        heard.append(subscriber)

    other = make_subscriber()
    with connected(receiver):
        assert deliver(summary("cus_acme", "sso")).status_code == 200
        died_before_delivery()
        grant(other, "sso", force=True)
        died_before_delivery()
        run()
        assert heard[-1:] == [other], "the others are told"
        change = EntitlementChange.objects.get(subscriber=acme)
        assert "CancelledError" in change.error
        assert change.delivered_at is None
        is_cancelled = False
        clock.shift(MINUTE)
        run()
    assert heard[-1] == acme
    assert not EntitlementChange.objects.undelivered().exists()


# --- when it is told


def test_an_event_is_told_within_its_request(acme: Any, listener: Listener) -> None:
    assert deliver(summary("cus_acme", "sso")).status_code == 200
    assert listener.heard == ["+sso"]


def test_it_is_told_after_the_commit_outside_of_any_transaction_and_out_of_any_cache(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_CACHE = "default"
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    seen = []

    def receiver(*, subscriber: Any, lookup_key: str, **_: Any) -> None:
        seen.append((connection.in_atomic_block, connection.get_autocommit(), has_entitlement(subscriber, lookup_key)))

    assert not has_entitlement(acme, "sso")
    with connected(receiver), transaction.atomic():
        grant(acme, "sso", force=True)
        assert seen == []
    assert seen == [(False, True, True)]


def test_what_is_rolled_back_is_not_told(acme: Any, listener: Listener) -> None:
    with transaction.atomic():
        grant(acme, "sso", force=True)
        transaction.set_rollback(True)
    run()
    assert listener.calls == []


def test_atomic_requests_put_it_after_the_response_was_made(
    acme: Any, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    in_a_transaction = []
    with connected(lambda **_: in_a_transaction.append(connection.in_atomic_block)):
        client = Client()
        client.force_login(visitor_of(acme), backend="django.contrib.auth.backends.ModelBackend")
        assert client.get("/grant-me/").content == b"deliveries so far: 0"
        deliver(summary("cus_acme", "audit"))
    assert listener.heard == ["+sso", "+audit"]
    assert in_a_transaction == [False, False]


class TestInATestCase(TestCase):
    """As a user's tests are, in which nothing is ever committed."""

    def setUp(self) -> None:
        self.listener = Listener()
        self.enterContext(connected(self.listener))

    def test_nothing_is_told_unless_callbacks_run(self) -> None:
        somebody = make_subscriber()
        grant(somebody, "sso", force=True)
        assert self.listener.heard == []
        with self.captureOnCommitCallbacks(execute=True):
            grant(somebody, "audit", force=True)
        assert self.listener.heard == ["+sso", "+audit"]


# --- what fails


def test_a_receiver_that_raises_reaches_neither_stripe_nor_who_called(
    acme: Any, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    listener.fails = 9
    assert deliver(summary("cus_acme", "sso")).status_code == 200
    link(other := make_subscriber(), "cus_new")
    grant(other, "audit", force=True)
    assert set(get_entitlements(acme)) == {"sso"}
    assert set(get_entitlements(other)) == {"audit"}
    errors = [record for record in caplog.records if record.name == "entitlements_app.provisioning"]
    assert [record.levelname for record in errors] == ["ERROR", "ERROR"]
    assert "tests.receivers.Listener" in errors[0].getMessage()
    assert "the other service is down" in caplog.text


def test_it_is_tried_again_with_growing_delay_then_parked_and_the_others_are_not_called_again(
    clock: Any, acme: Any, listener: Listener
) -> None:
    broken = Listener()
    broken.fails = 99
    with connected(broken):
        deliver(summary("cus_acme", "sso"))
        for wait in (60, 120, 240, 480, 960, 1920, 3600):
            made = len(broken.calls)
            clock.shift(wait - 1)
            assert run() == "Changes that waited: 0 delivered, 0 failed, 0 parked."
            clock.shift(1)
            last = run()
            assert len(broken.calls) == made + 1
        assert last == "Changes that waited: 0 delivered, 0 failed, 1 parked."
        clock.shift(24 * 3600)
        run()
    assert len(broken.calls) == provisioning.ATTEMPTS
    assert listener.heard == ["+sso"]
    [change] = changes()
    assert (change.attempts, change.parked_at is None, change.delivered_at) == (8, False, None)
    assert change.receivers_done == ["tests.receivers.Listener"]
    assert change.error == "tests.receivers.Listener #2: RuntimeError: the other service is down"


def test_its_successors_wait_and_others_do_not(clock: Any, acme: Any, listener: Listener) -> None:
    other = make_subscriber()
    listener.fails = 1
    deliver(summary("cus_acme", "audit", "sso"))
    grant(acme, "export", force=True)
    grant(other, "export", force=True)
    assert listener.heard == ["+audit", "+export"]
    clock.shift(MINUTE)
    assert run() == "Changes that waited: 3 delivered, 0 failed, 0 parked."
    assert listener.heard == ["+audit", "+export", "+audit", "+sso", "+export"]
    assert [change.error for change in changes()] == [""] * 4


def test_a_parked_one_lets_them_pass_and_is_sent_again_when_asked_to_those_not_done(
    clock: Any, acme: Any, listener: Listener
) -> None:
    broken = Listener()
    broken.fails = 8
    with connected(broken):
        grant(acme, "sso", force=True)
        deny(acme, "sso", force=True)
        for _ in range(8):
            clock.shift(3600)
            run()
        parked, newer = changes()
        assert parked.parked_at is not None
        assert newer.delivered_at is not None
        assert broken.heard == ["+sso"] * 8 + ["-sso"]
        resend(parked)
        assert broken.heard == ["+sso"] * 8 + ["-sso", "+sso"]
        assert listener.heard == ["+sso", "-sso"]
        parked.refresh_from_db()
        assert (parked.parked_at, parked.attempts, parked.error) == (None, 1, "")
        assert parked.delivered_at is not None


def test_what_was_delivered_is_sent_to_all_again_when_asked(acme: Any, listener: Listener) -> None:
    grant(acme, "sso", force=True)
    [change] = changes()
    with transaction.atomic():
        resend(change)
        transaction.set_rollback(True)
    assert len(listener.calls) == 1
    resend(change)
    assert listener.changes == [change, change]


def test_what_waits_is_tried_at_once_when_asked(acme: Any, listener: Listener) -> None:
    listener.fails = 1
    grant(acme, "sso", force=True)
    resend(*changes())
    assert listener.heard == ["+sso", "+sso"]
    assert changes()[0].delivered_at is not None


def test_what_is_about_nobody_s_answer_is_not_sent_again() -> None:
    deliver(summary("cus_nobody", "sso"))
    with pytest.raises(ValueError, match="nobody to tell"):
        resend(EntitlementChange.objects.get())
    grant(somebody := make_subscriber(), "sso", force=True)
    [change] = changes()
    somebody.delete()
    with pytest.raises(ValueError, match="nobody to tell"):
        resend(change)


def test_the_names_of_receivers_tell_them_apart(clock: Any, acme: Any) -> None:
    """Functions without a name of their own, too: one that is done is not called for another that is not."""
    heard: list[str] = []
    attempts = iter([1 / 2, None])

    def tell(who: str, **_: Any) -> None:
        heard.append(who)
        if who == "second" and next(attempts):
            raise RuntimeError

    with connected(lambda **_: tell("first"), lambda **_: tell("second"), partial(tell, "third")):
        deliver(summary("cus_acme", "sso"))
        clock.shift(MINUTE)
        run()
    assert heard == ["first", "second", "third", "second"]


def test_a_receiver_that_ends_the_process_each_time_is_parked_as_well(clock: Any, acme: Any) -> None:
    listener = Listener()
    with connected(listener):
        deliver(summary("cus_acme", "sso"))
        EntitlementChange.objects.update(delivered_at=None, attempts=8, next_attempt_at=timezone.now())
        assert run().endswith("1 parked.")
    assert len(listener.calls) == 1
    assert changes()[0].error == "The process ended while a receiver ran."


def test_a_worker_that_is_told_to_stop_gives_back_the_lease(clock: Any, acme: Any, listener: Listener) -> None:
    def stop(**_: Any) -> None:
        raise SystemExit(1)

    with connected(stop), pytest.raises(SystemExit):
        grant(acme, "sso", force=True)
    clock.shift(MINUTE)
    assert run().startswith("Changes that waited: 1 delivered")
    assert listener.heard == ["+sso"]  # done before the other one was told to stop


def test_a_delivery_ends_an_answer_whose_invalidation_was_lost(
    clock: Any, acme: Any, listener: Listener, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENTITLEMENTS_CACHE = "default"
    settings.ENTITLEMENTS_CACHE_SECONDS = 3600
    assert not has_entitlement(acme, "sso")
    listener.fails = 1
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:9"}
    }
    grant(acme, "sso", force=True)
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert not has_entitlement(acme, "sso"), "the cache was not told"
    clock.shift(MINUTE)
    run()
    assert has_entitlement(acme, "sso")


# --- receivers that change something themselves


def test_a_receiver_that_grants_ends_and_keeps_the_order(acme: Any, listener: Listener) -> None:
    depth = [0, 0]

    def pass_on(*, subscriber: Any, lookup_key: str, **_: Any) -> None:
        depth[0] += 1
        depth[1] = max(depth)
        if lookup_key == "sso":
            grant(subscriber, "export", force=True)
            link(subscriber, "cus_more")
            clear(subscriber, "export")
        depth[0] -= 1

    deliver(summary("cus_more", "audit"))
    with connected(pass_on):
        deliver(summary("cus_acme", "sso"))
    assert listener.heard == ["+sso", "+export", "+audit", "-export"]
    assert listener.of(acme) == [change.pk for change in changes()]
    assert depth[1] == 1, "none is called inside another"


def test_receivers_that_grant_to_one_another_do_not_nest(listener: Listener) -> None:
    crowd = [make_subscriber() for _ in range(12)]

    def pass_on(*, subscriber: Any, **_: Any) -> None:
        after = crowd[crowd.index(subscriber) + 1 :]
        if after:
            grant(after[0], "sso", force=True)
            assert len(listener.calls) <= len(crowd) - len(after)

    with connected(pass_on):
        grant(crowd[0], "sso", force=True)
        run()  # on a busy machine the five seconds may not be enough
    assert [call["subscriber"] for call in listener.calls] == crowd


def test_a_receiver_that_deletes_its_subscriber(acme: Any, listener: Listener) -> None:
    with connected(lambda subscriber, **_: subscriber.delete()):
        deliver(summary("cus_acme", "audit", "sso"))
    assert listener.heard == ["+audit"]
    assert not EntitlementChange.objects.undelivered().exists()
    assert not SubscriberState.objects.exists()


# --- a subscriber that is gone


def test_what_waits_is_marked_and_not_sent_when_its_subscriber_is_deleted(
    clock: Any, acme: Any, listener: Listener
) -> None:
    listener.fails = 1
    deliver(summary("cus_acme", "audit", "sso"))
    acme.delete()
    assert not EntitlementChange.objects.undelivered().exists()
    clock.shift(MINUTE)
    run()
    assert listener.heard == ["+audit"]
    for change in changes():
        assert change.subscriber is None
        assert change.delivered_at is not None
        assert change.error == "Not sent: the subscriber was deleted."


def test_a_subscriber_that_was_deleted_behind_django_s_back_holds_up_nobody(acme: Any, listener: Listener) -> None:
    grant(acme, "sso", force=True)
    died_before_delivery()
    EntitlementChange.objects.update(subscriber=None)
    run()
    assert not EntitlementChange.objects.undelivered().exists()
    assert len(listener.calls) == 1


@pytest.mark.postgresql
def test_a_grant_that_meets_the_deletion_leaves_nothing_undelivered(acme: Any, listener: Listener) -> None:
    grant(acme, "sso", force=True)
    listener.calls.clear()
    with closed("entitlementchange") as wait_for:
        crowd = Crowd().start(lambda: grant(acme, "audit", force=True))
        wait_for(1)
        crowd.start(acme.delete)
        wait_for(2)
    crowd.join()
    run()
    assert not EntitlementChange.objects.undelivered().exists()


# --- the mode


def test_changes_of_the_other_mode_wait_until_it_is_configured(acme: Any, listener: Listener, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    grant(acme, "sso", force=True)
    assert [change.livemode for change in listener.changes] == [True]
    run()
    assert len(listener.calls) == 1
    settings.ENTITLEMENTS_LIVEMODE = False
    run()
    assert [change.livemode for change in listener.changes] == [True, False]


# --- several workers


def test_two_workers_keep_the_order_and_send_once(clock: Any) -> None:
    crowd = [make_subscriber() for _ in range(4)]
    for key in "abcde":
        for somebody in crowd:
            grant(somebody, key, force=True)
    died_before_delivery()
    listener = Listener()

    def slow(**_: Any) -> None:
        time.sleep(0.002)

    def work() -> None:
        provisioning.deliver_due(deadline=time.monotonic() + 30)

    with connected(listener, slow):
        together(*[work] * 4)
    for somebody in crowd:
        assert listener.of(somebody) == [change.pk for change in changes(subscriber=somebody)]


def test_two_processes_keep_the_order_and_send_once(shop: Shop, tmp_path: Any) -> None:
    crowd = [make_subscriber() for _ in range(3)]
    for key in "abcdefgh":
        for somebody in crowd:
            grant(somebody, key, force=True)
    died_before_delivery()
    told = tmp_path / "told"
    server = Server(shop.stripe, TEST_SERVER_RECEIVER="note_slowly", TEST_SERVER_TOLD=str(told))
    together(*[lambda: server.command("entitlements_run")] * 2)
    lines = [line.split() for line in told.read_text().splitlines()]
    for somebody in crowd:
        heard = [int(pk) for _, whose, pk in lines if whose == str(somebody.pk)]
        assert heard == [change.pk for change in changes(subscriber=somebody)]
    assert not EntitlementChange.objects.undelivered().exists()


def test_writers_in_a_crowd_are_told_of_in_order_and_once(listener: Listener) -> None:
    """Whoever finds another one delivering leaves, and nothing is left over."""
    somebody = make_subscriber()

    def write(key: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(3):
                grant(somebody, key, force=True)
                clear(somebody, key)

        return work

    together(*map(write, "abcd"))
    assert listener.of(somebody) == [change.pk for change in changes()]
    assert len(listener.calls) == 24
    assert not EntitlementChange.objects.undelivered().exists()
    assert SubscriberState.objects.get().delivery_until is None


def test_a_lease_keeps_others_away_until_it_runs_out(clock: Any, acme: Any) -> None:
    entered, go_on, heard = threading.Event(), threading.Event(), []

    def stuck(*, change: EntitlementChange, **_: Any) -> None:
        heard.append(change.pk)
        if len(heard) == 1:
            entered.set()
            assert go_on.wait(timeout=30)

    with connected(stuck):
        crowd = Crowd().start(lambda: grant(acme, "sso", force=True))
        assert entered.wait(timeout=30)
        grant(acme, "audit", force=True)
        clock.shift(299)
        assert run() == "Changes that waited: 0 delivered, 0 failed, 0 parked."
        clock.shift(2)
        assert run() == "Changes that waited: 2 delivered, 0 failed, 0 parked."
        go_on.set()
        crowd.join()
    sso, audit = changes()
    assert heard == [sso.pk, sso.pk, audit.pk], "at least once, and the late one sends no more"
    assert not EntitlementChange.objects.undelivered().exists()


def test_who_has_lost_the_lease_leaves_the_rest_to_who_has_it(clock: Any, acme: Any) -> None:
    entered, go_on, heard = threading.Event(), threading.Event(), []

    def slow(*, change: EntitlementChange, **_: Any) -> None:
        heard.append((change.pk, threading.current_thread() is threading.main_thread()))
        if len(heard) == 1:
            entered.set()
            assert go_on.wait(timeout=30)
        elif len(heard) == 2:  # now the first one comes back
            go_on.set()
            crowd.join()

    with connected(slow):
        crowd = Crowd().start(lambda: grant(acme, "sso", force=True))
        assert entered.wait(timeout=30)
        grant(acme, "audit", force=True)
        clock.shift(301)
        run()
    sso, audit = changes()
    assert heard == [(sso.pk, False), (sso.pk, True), (audit.pk, True)]
    assert audit.attempts == 1
    assert not EntitlementChange.objects.undelivered().exists()


@pytest.mark.parametrize("again", ["entitlements_run", "another change"])
def test_killed_between_a_receiver_and_the_mark_the_same_change_is_sent_again(
    shop: Shop, acme: Any, tmp_path: Any, again: str, settings: Any
) -> None:
    told = tmp_path / "told"
    server = Server(shop.stripe, TEST_SERVER_RECEIVER="note_and_die", TEST_SERVER_TOLD=str(told)).start()
    try:
        body = json.dumps(summary("cus_acme", "sso")).encode()
        request = Request(server.webhook_url, data=body, headers={"Stripe-Signature": signature(body)})
        with pytest.raises((URLError, ConnectionError)):
            urlopen(request, timeout=20)
    finally:
        server.stop()
    [change] = changes()
    assert (change.delivered_at, change.attempts) == (None, 1)
    settings.ENTITLEMENTS_STRIPE_API_KEY = None  # the simulated Stripe does not know this customer
    listener = Listener()
    with connected(listener):
        assert run() == "Changes that waited: 0 delivered, 0 failed, 0 parked."
        with time_machine.travel(int(time.time()) + 302):
            if again == "entitlements_run":
                assert run() == "Changes that waited: 1 delivered, 0 failed, 0 parked."
            else:
                grant(acme, "audit", force=True)
    noted = [int(line.split()[2]) for line in told.read_text().splitlines()]
    assert noted == [change.pk]
    assert listener.of(acme)[0] == change.pk


# --- rows


def test_only_what_is_effective_may_be_undelivered(acme: Any) -> None:
    deliver(summary("cus_nobody", "sso"))
    with pytest.raises(IntegrityError):
        EntitlementChange.objects.update(delivered_at=None)


def test_changes_from_before_signals_count_as_delivered() -> None:
    somebody = make_subscriber()
    executor = MigrationExecutor(connection)
    old = executor.migrate([("entitlements_app", "0003_failed_events")]).apps
    try:
        old.get_model("entitlements_app", "EntitlementChange").objects.create(
            subscriber_id=somebody.pk,
            lookup_key="sso",
            kind="granted",
            cause="override",
            effective=True,
            livemode=False,
        )
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes("entitlements_app"))
    assert EntitlementChange.objects.get().delivered_at is not None
    listener = Listener()
    with connected(listener):
        run()
    assert listener.calls == []


def test_one_receiver_costs_a_few_queries(acme: Any, listener: Listener, django_assert_max_num_queries: Any) -> None:
    grant(acme, "sso", force=True)
    died_before_delivery()
    with django_assert_max_num_queries(17):
        provisioning.deliver_due(deadline=time.monotonic() + 30)
    assert listener.heard == ["+sso", "+sso"]
    assert effective() == ["+sso"]


def test_many_that_wait_are_all_delivered_in_one_pass(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provisioning, "BATCH", 10)
    crowd = [make_subscriber() for _ in range(13)]
    for somebody in crowd:
        grant(somebody, "sso", force=True)
    died_before_delivery()
    listener.calls.clear()
    assert run() == f"Changes that waited: {len(crowd)} delivered, 0 failed, 0 parked."
    assert sorted(call["subscriber"].pk for call in listener.calls) == sorted(somebody.pk for somebody in crowd)


def test_a_slow_receiver_holds_up_its_caller_for_seconds_only(
    acme: Any, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """What is left after five seconds is for `entitlements_run`."""
    monkeypatch.setattr(provisioning, "INLINE_SECONDS", 1.0)
    listener = Listener()
    with connected(listener, lambda **_: time.sleep(1.1)):
        deliver(summary("cus_acme", "audit", "sso"))
        assert listener.heard == ["+audit"]
        assert run().startswith("Changes that waited: 1 delivered")
    assert listener.heard == ["+audit", "+sso"]


def test_a_reader_of_the_log_sees_when_the_next_attempt_is(clock: Any, acme: Any, listener: Listener) -> None:
    listener.fails = 1
    grant(acme, "sso", force=True)
    assert changes()[0].next_attempt_at == timezone.now() + timedelta(seconds=60)
