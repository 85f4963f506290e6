"""dj-stripe fails, or a receiver of the site, or our database, or the process ends: nothing is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.dispatch import Signal
from django.test import override_settings
from djstripe import signals
from djstripe.models import Event as DjstripeEvent
from djstripe.models import WebhookEndpoint, WebhookEventTrigger
from djstripe.signals import WEBHOOK_SIGNALS

from entitlements_app.contrib.djstripe import webhooks
from entitlements_app.models import WebhookEvent
from entitlements_app.testing import StripeSimulator
from tests.delivery import SUMMARY, deliver, envelope_of, payload, signature, summary
from tests.receivers import Listener, connected
from tests.rows import broken_processing, effective, held
from tests.server import Server
from tests.threads import Crowd
from tests.workers import SilentBroker, wait_until

from .deliveries import SECRET, djstripe_asks, known_to_djstripe, to_djstripe, url_of

pytestmark = pytest.mark.django_db(transaction=True)

TABLE = "entitlements_app_webhookevent"


def trigger() -> WebhookEventTrigger:
    return WebhookEventTrigger.objects.latest("id")


@contextmanager
def our_table_is_gone() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} RENAME TO out_of_the_way")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE out_of_the_way RENAME TO {TABLE}")


class Raises:
    """A receiver of the site with a mistake in it."""

    def __call__(self, **_: Any) -> None:
        raise RuntimeError("the site's mistake")


@contextmanager
def received_by(receiver: Any, *listened: Signal) -> Iterator[None]:
    for signal in listened:
        signal.connect(receiver)
    try:
        yield
    finally:
        for signal in listened:
            signal.disconnect(receiver)


# --- dj-stripe fails


def test_an_event_that_djstripe_fails_on_is_kept_and_processed_once(endpoint: WebhookEndpoint, acme: Any) -> None:
    known_to_djstripe()
    event, listener = summary("cus_acme", "sso"), Listener()
    with connected(listener):
        for _ in range(2):
            assert to_djstripe(endpoint, event).status_code == 500
            assert (trigger().valid, trigger().processed) == (True, False)
            assert trigger().exception
            assert "APIConnectionError" in trigger().traceback
    assert not DjstripeEvent.objects.exists()
    assert WebhookEvent.objects.get().status == "processed"
    assert listener.heard == ["+sso"]
    assert held() == {"sso"}


def test_while_stripe_never_answers_djstripe_the_gate_opens(
    endpoint: WebhookEndpoint, acme: Any, monkeypatch: Any
) -> None:
    never_answers = SilentBroker()
    djstripe_asks(monkeypatch, f"http://{never_answers.address}")
    known_to_djstripe()
    answers: list[int] = []
    event = summary("cus_acme", "sso")
    crowd = Crowd().start(lambda: answers.append(to_djstripe(endpoint, event).status_code))
    wait_until(lambda: never_answers.connections)
    assert held() == {"sso"}
    assert WebhookEvent.objects.get().status == "processed"
    if connection.vendor == "postgresql":  # in SQLite dj-stripe keeps everybody waiting
        assert deliver(event).status_code == 200, "this app's own endpoint does not wait for it"
    assert answers == []
    never_answers.close()
    crowd.join()
    assert answers == [500]


def test_killed_while_djstripe_asks_stripe_nothing_is_lost(
    endpoint: WebhookEndpoint, acme: Any, stripe: StripeSimulator
) -> None:
    known_to_djstripe()
    never_answers = SilentBroker()
    base = f"http://{never_answers.address}"
    server = Server(stripe, TEST_SERVER_API_KEY="", TEST_SERVER_DJSTRIPE_BASE=base).start()
    body = json.dumps(summary("cus_acme", "sso")).encode()
    url = server.webhook_url.replace("/stripe/webhook/", url_of(endpoint))
    request = Request(url, data=body, headers={"Stripe-Signature": signature(body, secret=SECRET)})
    try:
        crowd = Crowd().start(lambda: urlopen(request, timeout=60))
        wait_until(lambda: never_answers.connections)
        server.kill()
        with pytest.raises(ConnectionError):
            crowd.join()
    finally:
        server.stop()
        never_answers.close()
    assert held() == {"sso"}
    assert not DjstripeEvent.objects.exists()


# --- the site's receivers fail


@pytest.mark.parametrize(
    "name", ["webhook_pre_validate", "webhook_post_validate", "webhook_pre_process", "webhook_post_process"]
)
def test_a_receiver_of_the_site_that_raises_loses_nothing(name: str, endpoint: WebhookEndpoint, acme: Any) -> None:
    event = summary("cus_acme", "sso")
    with received_by(Raises(), getattr(signals, name), signals.webhook_processing_error):
        assert to_djstripe(endpoint, event).status_code == 500
    assert held() == {"sso"}
    assert to_djstripe(endpoint, event).status_code == 200
    assert WebhookEvent.objects.get().status == "processed"


def test_a_handler_of_the_site_that_raises_loses_nothing(endpoint: WebhookEndpoint, acme: Any) -> None:
    with received_by(Raises(), WEBHOOK_SIGNALS[SUMMARY]):
        assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 500
    assert "the site's mistake" in trigger().exception
    assert effective() == ["+sso"]


# --- we fail


def test_while_we_cannot_store_djstripe_does_its_work_and_stripe_sends_again(
    endpoint: WebhookEndpoint, acme: Any
) -> None:
    event, done = summary("cus_acme", "sso"), Listener()

    def handler(**kwargs: Any) -> None:
        transaction.on_commit(lambda: done.calls.append(kwargs))

    with received_by(handler, WEBHOOK_SIGNALS[SUMMARY]):
        with our_table_is_gone():
            for _ in range(2):
                assert to_djstripe(endpoint, event).status_code == 500
                assert "webhookevent" in trigger().exception
        assert DjstripeEvent.objects.count() == 1
        assert to_djstripe(endpoint, event).status_code == 200
    assert len(done.calls) == 1, "what a handler does after the commit is done, once"
    assert held() == {"sso"}


@pytest.mark.postgresql
def test_in_a_transaction_of_the_site_we_do_not_break_what_djstripe_does(endpoint: WebhookEndpoint, acme: Any) -> None:
    """As in a view of the site's around dj-stripe's, with ATOMIC_REQUESTS."""
    event = summary("cus_acme", "sso")

    @transaction.atomic
    def delivered() -> int:
        assert to_djstripe(endpoint, event).status_code == 200
        return DjstripeEvent.objects.count()

    with our_table_is_gone(), pytest.raises(DatabaseError, match="webhookevent"):
        delivered()  # dj-stripe is done; the error is that of the commit
    assert delivered() == 1
    assert held() == {"sso"}


def test_what_could_not_be_stored_at_first_is_stored_when_djstripe_is_done(
    endpoint: WebhookEndpoint, acme: Any
) -> None:
    mended: list[bool] = []

    def mend(**_: Any) -> None:
        if not mended:
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE out_of_the_way RENAME TO {TABLE}")
            mended.append(True)

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} RENAME TO out_of_the_way")
    try:
        with received_by(mend, signals.webhook_pre_validate):
            assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 200
    finally:
        mend()
    assert held() == {"sso"}


def test_if_both_fail_djstripe_s_error_is_the_one_that_is_told(
    endpoint: WebhookEndpoint, acme: Any, caplog: Any
) -> None:
    known_to_djstripe()
    with our_table_is_gone():
        assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 500
    assert "APIConnectionError" in trigger().traceback
    assert "An event that dj-stripe failed on could not be stored." in caplog.text


def test_processing_that_fails_is_tried_again_later_and_the_answer_is_200(endpoint: WebhookEndpoint, acme: Any) -> None:
    with broken_processing():
        assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 200
    event = WebhookEvent.objects.get()
    assert (event.status, event.attempts) == ("pending", 1)


@pytest.mark.parametrize(
    ("name", "value"), [("ENTITLEMENTS_WEBHOOK_SECRETS", SECRET), ("ENTITLEMENTS_LIVEMODE", "yes")]
)
def test_a_malformed_setting_keeps_djstripe_from_nothing_and_no_event_from_coming_again(
    name: str, value: Any, endpoint: WebhookEndpoint, acme: Any, settings: Any
) -> None:
    event = summary("cus_acme", "sso")
    before = getattr(settings, name, None)
    setattr(settings, name, value)
    assert to_djstripe(endpoint, event).status_code == 500
    assert name in trigger().exception
    assert SECRET not in trigger().exception
    assert DjstripeEvent.objects.count() == 1
    assert to_djstripe(endpoint, envelope_of("invoice.paid", {"id": "", "object": "invoice"})).status_code == 200
    setattr(settings, name, before)
    assert to_djstripe(endpoint, event).status_code == 200
    assert held() == {"sso"}


def test_no_secrets_of_this_app_s_endpoint_are_needed(endpoint: WebhookEndpoint, acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = []
    assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 200
    assert held() == {"sso"}


# --- strange bodies


def test_a_thin_notification_is_told(endpoint: WebhookEndpoint, caplog: Any) -> None:
    to_djstripe(endpoint, payload("thin_notification_summary_updated"))
    assert WebhookEvent.objects.get().status == "ignored"
    assert "Configure the webhook endpoint to receive snapshot events" in caplog.text


STRANGE = {
    "no type": {"id": "evt_1", "object": "event", "livemode": False, "created": 1, "data": {"object": {}}},
    "no event": {"id": "evt_1", "object": "customer", "livemode": False, "type": SUMMARY, "data": {"object": {}}},
    "a strange date": envelope_of(SUMMARY, {"id": ""}, created="yesterday"),
    "a list": [],
    "null": None,
}


@pytest.mark.parametrize("body", STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_event_is_told_in_a_line(body: Any, endpoint: WebhookEndpoint, caplog: Any) -> None:
    """What dj-stripe makes of it is its own matter."""
    answer = to_djstripe(endpoint, json.dumps(body).encode())
    assert not WebhookEvent.objects.exists()
    ours = [record for record in caplog.records if record.name.startswith("entitlements_app")]
    assert [record.levelno for record in ours] == [logging.WARNING]
    assert "not an event" in ours[0].getMessage()
    assert "entitlements_app" not in trigger().traceback, answer.content


def test_a_strange_object_is_recorded_as_failed(endpoint: WebhookEndpoint, acme: Any) -> None:
    to_djstripe(endpoint, envelope_of(SUMMARY, {"id": "", "object": "other", "customer": "cus_acme"}))
    assert WebhookEvent.objects.get().status == "failed"


def test_a_body_over_the_limit_is_refused_in_a_line(endpoint: WebhookEndpoint, caplog: Any) -> None:
    assert to_djstripe(endpoint, summary("cus_acme", "sso") | {"padding": "x" * 2**20}).status_code == 200
    assert "the body is too large" in caplog.text
    assert not WebhookEvent.objects.exists()


def test_a_body_that_cannot_be_decoded_is_nothing(endpoint: WebhookEndpoint) -> None:
    assert to_djstripe(endpoint, b"\xff\xfe{}").status_code == 400
    assert not WebhookEvent.objects.exists()


def test_no_log_line_and_no_trigger_holds_a_secret(endpoint: WebhookEndpoint, acme: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    known_to_djstripe()
    with our_table_is_gone():
        to_djstripe(endpoint, summary("cus_acme", "sso"))
    ours = "\n".join(
        record.getMessage() + str(record.exc_text) for record in caplog.records if "entitlements" in record.name
    )
    assert ours
    assert SECRET not in ours + trigger().exception + trigger().traceback


# --- two databases


class OursElsewhere:
    """dj-stripe's tables are in the default database, ours in another, together with the subscribers."""

    apps = {"entitlements_app", "auth", "contenttypes", "testapp"}

    def db_for_read(self, model: Any, **_: Any) -> str:
        return "other" if model._meta.app_label in self.apps else "default"

    db_for_write = db_for_read

    def allow_relation(self, one: Any, two: Any, **_: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool:
        return (db == "other") == (app_label in self.apps)


@pytest.fixture
def other_database(settings: Any, tmp_path: Path) -> Iterator[None]:
    """With ATOMIC_REQUESTS, from which dj-stripe has its view exempt in the default database alone."""
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "other.sqlite3"), "ATOMIC_REQUESTS": True}
    connections.settings["other"] = connections.configure_settings({"default": {}, "other": sqlite})["other"]
    settings.DATABASE_ROUTERS = ["tests.contrib.djstripe.test_webhook_troubles.OursElsewhere"]
    try:
        connections["other"].connect()  # Django's test case knows of the default database only, and would refuse
        modules = settings.MIGRATION_MODULES | dict.fromkeys(OursElsewhere.apps)  # the tables as they are now
        with override_settings(MIGRATION_MODULES=modules):
            call_command("migrate", database="other", verbosity=0, run_syncdb=True)
        webhooks.connect()
        yield
    finally:
        connections["other"].close()
        del connections["other"]
        del connections.settings["other"]


def test_with_our_tables_in_another_database_an_event_outlives_a_failure_of_djstripe(
    endpoint: WebhookEndpoint, other_database: None
) -> None:
    assert to_djstripe(endpoint, summary("cus_acme", "sso")).status_code == 200
    known_to_djstripe()
    later = summary("cus_acme", "sso", "export")
    assert to_djstripe(endpoint, later | {"created": later["created"] + 1}).status_code == 500
    assert held() == {"sso", "export"}
    assert WebhookEvent.objects.using("other").count() == 2
    assert not WebhookEvent.objects.using("default").exists()
