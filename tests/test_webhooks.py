"""The webhook view from outside: who gets in, and what a stranger or a strange body can do."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest
import time_machine
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from django.views.debug import ExceptionReporter

from entitlements_app.models import ActiveEntitlement, Customer, WebhookEvent
from entitlements_app.testing import StripeSimulator
from tests.delivery import (
    SECRET,
    SUMMARY,
    URL,
    customer_deleted,
    deliver,
    envelope_of,
    payload,
    post,
    signature,
    subscription_updated,
    summary,
)
from tests.rows import held

pytestmark = pytest.mark.django_db

VECTORS = payload("signature_vectors")["vectors"]


def nothing_is_stored() -> bool:
    return not (WebhookEvent.objects.exists() or Customer.objects.exists() or ActiveEntitlement.objects.exists())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_each_signature_vector_gets_its_stated_answer(vector: dict[str, Any], settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = vector["secrets"]
    event = json.loads(vector["body"]) if vector["valid"] else {}
    is_whole = {"type", "created", "livemode"} <= event.keys()
    with time_machine.travel(vector["now"], tick=False):
        response = post(vector["body"].encode(), vector["header"])
    # A vector whose body is signed well but is no whole event is refused for that, and says so.
    assert response.status_code == (200 if is_whole else 400)
    assert response.content.startswith(b"Not an event") == (vector["valid"] and not is_whole)
    assert WebhookEvent.objects.count() == is_whole


def test_the_url_works_with_and_without_the_trailing_slash() -> None:
    assert reverse("entitlements:webhook") == URL
    assert deliver(summary("cus_a", "x")).status_code == 200
    assert deliver(summary("cus_b", "x"), url=URL.rstrip("/")).status_code == 200
    assert WebhookEvent.objects.count() == 2


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_only_post_is_allowed(method: str) -> None:
    response = getattr(Client(), method)(URL)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


def test_a_site_that_demands_login_everywhere_still_lets_stripe_in(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert deliver(summary("cus_a", "x")).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_an_event_outlives_the_end_of_its_process(monkeypatch: Any) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    def stop(execute: Any, sql: str, *args: Any) -> Any:
        if "activeentitlement" in sql:
            raise SystemExit
        return execute(sql, *args)

    with connection.execute_wrapper(stop), pytest.raises(SystemExit):
        deliver(summary("cus_a", "x"))
    assert WebhookEvent.objects.get().status == "pending"


# --- strangers


STRANGE_BODIES = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe{}",
    "not JSON": b"hello",
    "no object": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "deep nesting": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "NaN": b"NaN",
    "a huge number": b"9" * 10_000,
    "a thin notification": json.dumps(payload("thin_notification_summary_updated")).encode(),
    "an event": json.dumps(payload("event_summary_granted_two")).encode(),
}

FORGED_HEADERS = {
    "none": None,
    "empty": "",
    "garbage": "hello",
    "non-ASCII": "t=1770000000,v1=ü☕",
    "commas": "," * 5000,
    "equals": "=" * 5000,
    "a huge t": f"t={'9' * 5000},v1=00",
    "a negative t": "t=-1,v1=00",
    "no t": "v1=00",
    "wrong": f"t={int(time.time())},v1={'0' * 64}",
    "very long": f"t={int(time.time())}," + ",".join(["v1=" + "0" * 64] * 500),
}


@pytest.mark.parametrize("header", FORGED_HEADERS.values(), ids=FORGED_HEADERS.keys())
@pytest.mark.parametrize("body", STRANGE_BODIES.values(), ids=STRANGE_BODIES.keys())
def test_a_stranger_is_refused_and_leaves_nothing(body: bytes, header: str | None) -> None:
    response = post(body, header)
    assert response.status_code == 400
    assert nothing_is_stored()


@pytest.mark.parametrize("body", STRANGE_BODIES.values(), ids=STRANGE_BODIES.keys())
def test_an_empty_secret_verifies_nothing(body: bytes, settings: Any, caplog: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = [SECRET, " "]
    assert post(body, None).status_code == 400
    forged = f"t=1770000000,v1={'0' * 64}"
    assert post(body, forged).status_code == 400
    if body:
        assert deliver(body, secret=" ").status_code == 400
        assert deliver(body, secret=SECRET).status_code == 400
    assert nothing_is_stored()


@pytest.mark.parametrize("malformed", ["", SECRET, [""], ["\n"], [None], [b"whsec_x"], None, {SECRET: 1}, 5])
def test_malformed_secrets_refuse_all_and_log_one_error(malformed: Any, settings: Any, caplog: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = malformed
    assert deliver(summary("cus_a", "x")).status_code == 400
    assert nothing_is_stored()
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "ENTITLEMENTS_WEBHOOK_SECRETS" in errors[0]
    assert SECRET not in errors[0]


@pytest.mark.parametrize("setting", ["ENTITLEMENTS_LIVEMODE", "ENTITLEMENTS_STRIPE_API_KEY"])
def test_an_unknown_mode_refuses_all(setting: str, settings: Any) -> None:
    setattr(settings, setting, "yes")
    assert deliver(summary("cus_a", "x")).status_code == 400
    assert nothing_is_stored()


def test_without_secrets_the_endpoint_refuses_all_and_says_why(settings: Any, caplog: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = []
    response = deliver(summary("cus_a", "x"))
    assert (response.status_code, response.content) == (400, b"This endpoint is not configured.")
    assert "ENTITLEMENTS_WEBHOOK_SECRETS is empty" in caplog.text
    assert nothing_is_stored()


def test_the_simulator_s_secret_which_everybody_knows_opens_nothing_at_stripe(settings: Any, caplog: Any) -> None:
    """A site that was set up as in the quick start, and whose host lacks STRIPE_WEBHOOK_SECRET alone."""
    secret = StripeSimulator().webhook_secret
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_1"
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = [SECRET, f" {secret}\n"]
    assert deliver(summary("cus_a", "x"), secret=secret).status_code == 400
    assert nothing_is_stored()
    assert "the simulator's" in caplog.text
    settings.ENTITLEMENTS_STRIPE_API_BASE = "http://127.0.0.1:1"  # the simulator is asked, and believed
    assert deliver(summary("cus_a", "x"), secret=secret).status_code == 200


def test_secrets_are_stripped_and_each_of_them_counts(settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = ["whsec_new\n", f" {SECRET} "]
    assert deliver(summary("cus_a", "x"), secret="whsec_new").status_code == 200
    assert deliver(summary("cus_b", "x"), secret=SECRET).status_code == 200
    assert deliver(summary("cus_c", "x"), secret="whsec_other").status_code == 400


def test_a_signed_time_cannot_be_replaced_by_another() -> None:
    """Whoever caught a delivery can add to its header; the time that was signed is the one that is kept."""
    body = json.dumps(summary("cus_a", "x")).encode()
    caught = signature(body, t=int(time.time()))
    t, v1 = caught.split(",")
    for header in (f"{t},t=9999999999,{v1}", f"{t}=9999999999,{v1}", f"{t},{v1},t=1"):
        assert post(body, header).status_code == 200
    assert WebhookEvent.objects.get().sent_at == int(t[2:])
    assert post(body, f"t=9999999999,{caught}").status_code == 400


def test_a_body_over_the_limit_is_refused_unread() -> None:
    event = summary("cus_a", "x")
    fits = json.dumps(event | {"padding": ""}).encode()
    padding = "x" * (2**20 - len(fits))
    assert deliver(json.dumps(event | {"padding": padding}).encode()).status_code == 200
    assert deliver(json.dumps(event | {"padding": padding + "x"}).encode()).status_code == 413
    assert post(b"x" * (3 * 2**20), None).status_code == 413


def test_the_site_s_own_limit_for_uploads_does_not_lose_events(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert deliver(summary("cus_a", "x")).status_code == 200


def test_under_debug_a_refusal_shows_no_secret(settings: Any) -> None:
    settings.DEBUG = True
    response = post(b"{}", "t=1,v1=0")
    assert response.status_code == 400
    assert SECRET not in response.content.decode()
    assert len(response.content) < 100


class Reporter(logging.Handler):
    """Makes the report that Django mails to the admins, frames and their variables included."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reports: list[str] = []

    def emit(self, record: Any) -> None:
        reporter = ExceptionReporter(record.request, *record.exc_info, is_email=True)
        self.reports += [reporter.get_traceback_html(), reporter.get_traceback_text()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("debug", [True, False])
def test_an_error_report_shows_neither_secret_nor_body(settings: Any, debug: bool) -> None:
    """The table is gone, so that storing fails: Django shows a page with frames, or mails it to the admins."""
    settings.DEBUG = debug
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_private"
    event = envelope_of("customer.deleted", {"id": "cus_a", "object": "customer", "email": "ann@example.com"})
    body = json.dumps(event).encode()
    reporter = Reporter()
    logging.getLogger("django.request").addHandler(reporter)
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE entitlements_app_webhookevent RENAME TO out_of_the_way")
        response = post(body, signature(body), client=Client(raise_request_exception=False))
    finally:
        logging.getLogger("django.request").removeHandler(reporter)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE out_of_the_way RENAME TO entitlements_app_webhookevent")
    assert response.status_code == 500
    shown = [response.content.decode(), *reporter.reports]
    assert len(shown) == 3
    assert "entitlements_app" in shown[1]
    for private in (SECRET, "sk_test_private", "ann@example.com"):
        assert not [text for text in shown if private in text]


def test_no_log_line_holds_a_secret_or_a_body(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    post(b'{"id": "evt_private"}', "t=1,v1=0")
    deliver(summary("cus_a", "x"), secret="whsec_other")
    deliver(envelope_of(SUMMARY, {"customer": 5}))
    assert SECRET not in caplog.text
    assert "whsec_other" not in caplog.text
    assert "evt_private" not in caplog.text


# --- signed, but strange


BAD_ENVELOPES: dict[str, dict[str, Any]] = {
    "no id": {"id": None},
    "a number as id": {"id": 5},
    "an empty id": {"id": ""},
    "an id of 5,000 letters": {"id": "e" * 5000},
    "NUL in the id": {"id": "evt_\x00"},
    "a lone surrogate": {"id": "evt_\ud800"},
    "no type": {"type": None},
    "a type of 5,000 letters": {"type": "t" * 5000},
    "no created": {"created": None},
    "a text as created": {"created": "1770000000"},
    "true as created": {"created": True},
    "a fraction as created": {"created": 1.5},
    "created beyond any database": {"created": 10**30},
    "created before all": {"created": -1},
    "no livemode": {"livemode": None},
    "a text as livemode": {"livemode": "false"},
    "a list as account": {"account": []},
    "another object": {"object": "customer"},
}


@pytest.mark.parametrize("changed", BAD_ENVELOPES.values(), ids=BAD_ENVELOPES.keys())
def test_a_signed_body_without_a_usable_envelope_is_refused(changed: dict[str, Any]) -> None:
    assert deliver(summary("cus_a", "x") | changed).status_code == 400
    assert nothing_is_stored()


@pytest.mark.parametrize(
    "body", [body for name, body in STRANGE_BODIES.items() if " event" not in name and "thin" not in name]
)
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    assert deliver(body).status_code == 400
    assert nothing_is_stored()


def with_row(**changed: Any) -> dict[str, Any]:
    event = summary("cus_a", "x", "y")
    event["data"]["object"]["entitlements"]["data"][1].update(changed)
    return event


def with_list(**changed: Any) -> dict[str, Any]:
    event = summary("cus_a", "x")
    event["data"]["object"]["entitlements"].update(changed)
    return event


def with_object(**changed: Any) -> dict[str, Any]:
    event = summary("cus_a", "x")
    event["data"]["object"].update(changed)
    return event


STRANGE_OBJECTS: dict[str, dict[str, Any]] = {
    "no data": summary("cus_a", "x") | {"data": None},
    "a list as data": summary("cus_a", "x") | {"data": []},
    "no object": summary("cus_a", "x") | {"data": {}},
    "no customer": with_object(customer=None),
    "a number as customer": with_object(customer=5),
    "a customer of 5,000 letters": with_object(customer="c" * 5000),
    "NUL in the customer": with_object(customer="cus_\x00"),
    "the other mode inside": with_object(livemode=True),
    "a row of the other mode": with_row(livemode=True),
    "no entitlements": with_object(entitlements=None),
    "entitlements as a list": with_object(entitlements=[]),
    "no rows": with_list(data=None),
    "rows as an object": with_list(data={}),
    "no has_more": with_list(has_more=None),
    "a text as has_more": with_list(has_more="false"),
    "a row that is none": with_list(data=["ent_1"]),
    "no feature": with_row(feature=None),
    "a number as feature": with_row(feature=7),
    "a feature of 5,000 letters": with_row(feature="f" * 5000),
    "NUL in the feature": with_row(feature="feat_\x00"),
    "no lookup key": with_row(lookup_key=None),
    "an empty lookup key": with_row(lookup_key=""),
    "NUL in the lookup key": with_row(lookup_key="\x00"),
    "a lookup key of 5,000 letters": with_row(lookup_key="k" * 5000),
    "no entitlement id": with_row(id=None),
    "customer.deleted without one": envelope_of("customer.deleted", {"object": "customer"}),
    "a subscription without a customer": envelope_of("customer.subscription.updated", {"id": "sub_1"}),
    "a subscription with a list as customer": envelope_of("customer.subscription.updated", {"customer": []}),
}


@pytest.mark.parametrize("event", STRANGE_OBJECTS.values(), ids=STRANGE_OBJECTS.keys())
def test_a_strange_object_is_recorded_as_failed_and_grants_nothing(event: dict[str, Any]) -> None:
    assert deliver(event).status_code == 200
    stored = WebhookEvent.objects.get()
    assert stored.status == "failed"
    assert "expected" in stored.error or "differs" in stored.error
    assert not ActiveEntitlement.objects.exists()


def test_a_summary_that_cannot_be_read_has_its_customer_fetched_instead() -> None:
    deliver(with_list(data=None))
    customer = Customer.objects.marked().get()
    assert (customer.stripe_id, customer.urgent) == ("cus_a", True)


def test_a_thin_notification_is_ignored_and_the_remedy_logged(caplog: Any) -> None:
    event = payload("thin_notification_summary_updated")
    assert deliver(event).status_code == 200
    assert WebhookEvent.objects.get().status == "ignored"
    assert "snapshot" in caplog.text


@pytest.mark.parametrize(
    "elsewhere",
    [{"livemode": True}, {"account": "acct_1Other"}, {"context": "org_1/acct_2"}, {"type": "invoice.paid"}],
    ids=["live mode", "a connected account", "an organisation's context", "another type"],
)
def test_what_is_not_for_us_is_stored_as_ignored(elsewhere: dict[str, Any]) -> None:
    event = summary("cus_a", "x") | elsewhere
    assert deliver(event).status_code == 200
    stored = WebhookEvent.objects.get()
    assert (stored.status, stored.payload) == ("ignored", None)
    assert not Customer.objects.exists()


def test_one_id_in_two_modes_is_two_events() -> None:
    event = summary("cus_a", "x")
    deliver(event | {"livemode": True})
    deliver(event)
    assert held("cus_a") == {"x"}


@pytest.mark.parametrize("days", [-40_000, -30, -1, 1, 400, 3_000_000])
def test_a_date_far_off_is_no_error_and_grants_nothing_from_the_future(days: int) -> None:
    created = max(0, int(time.time()) + days * 86_400)
    assert deliver(summary("cus_a", "x", created=created)).status_code == 200
    assert WebhookEvent.objects.get().status == "processed"
    assert held("cus_a") == ({"x"} if days < 0 else set())


def test_expanded_features_and_unknown_fields_are_understood() -> None:
    deliver(payload("event_summary_with_unknown_extra_fields"))
    event = summary("cus_b", "x")
    row = event["data"]["object"]["entitlements"]["data"][0]
    row["feature"] = {"id": row["feature"], "object": "entitlements.feature"}
    deliver(event)
    assert held("cus_b") == {"x"}
    assert ActiveEntitlement.objects.get(customer__stripe_id="cus_b").feature.stripe_id == "feat_test_x"


def test_nothing_personal_is_stored() -> None:
    deliver(
        envelope_of(
            "customer.deleted",
            {"id": "cus_a", "object": "customer", "email": "ann@example.com", "name": "Ann Example"},
        )
    )
    deliver(subscription_updated("cus_a"))
    deliver(customer_deleted("cus_b"))
    text = str(list(WebhookEvent.objects.values())) + str(list(Customer.objects.values()))
    assert "ann@example.com" not in text
    assert "Ann Example" not in text


def test_the_captured_upgrade_gives_the_right_rows() -> None:
    deliver(payload("event_summary_upgraded.capture"))
    assert held("cus_nVXsK46GpjLB1s") == {"team-features", "individual-features"}
    ids = set(ActiveEntitlement.objects.values_list("feature__stripe_id", flat=True))
    rows = payload("event_summary_upgraded.capture")["data"]["object"]["entitlements"]["data"]
    assert ids == {row["feature"] for row in rows}
