"""Stripe's API answers, but not what it documents: nothing changes, and the next customer is asked about."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from entitlements_app.exceptions import StripeUnavailable
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Customer
from entitlements_app.sync import sync_customer
from tests.delivery import deliver, grants, summary
from tests.rows import customer, held, make_subscriber

pytestmark = pytest.mark.django_db

Answer = tuple[int, bytes]


class StrangeStripe:
    """A server on this machine that answers each call as the test says, told the call's number and path."""

    def __init__(self) -> None:
        self.answer: Callable[[int, str], Answer] = lambda number, path: page()
        self.paths: list[str] = []
        strange = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                strange.paths.append(self.path)
                status, body = strange.answer(len(strange.paths), self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def strange(settings: Any) -> Iterator[StrangeStripe]:
    stripe = StrangeStripe()
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    link(make_subscriber(), "cus_acme")
    deliver(summary("cus_acme", "sso"))
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_strange"
    settings.ENTITLEMENTS_STRIPE_API_BASE = f"http://127.0.0.1:{stripe.server.server_port}"
    settings.ENTITLEMENTS_STRIPE_RATE = 10_000
    yield stripe
    stripe.server.shutdown()
    stripe.server.server_close()


def page(rows: list[Any] | None = None, **changed: Any) -> Answer:
    listing = {"object": "list", "data": rows or [], "has_more": False, "url": "/v1/entitlements/active_entitlements"}
    return 200, json.dumps(listing | changed).encode()


def row(**changed: Any) -> dict[str, Any]:
    return grants("audit")[0] | changed


GONE = 400, json.dumps({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": ""}}).encode()

STRANGE: dict[str, Answer] = {
    "not JSON": (200, b"<html>"),
    "nothing": (200, b""),
    "a list": (200, b"[]"),
    "another object": page(object="customer"),
    "no has_more": page([row()], has_more=None),
    "no data": page(data=None),
    "a row that is none": page(["ent_1"]),
    "no feature": page([row(feature=None)]),
    "an empty key": page([row(lookup_key="")]),
    "NUL in the key": page([row(lookup_key="a\x00")]),
    "a key of 5,000 letters": page([row(lookup_key="k" * 5000)]),
    "the other mode": page([row(livemode=True)]),
    "more, and an empty page": page(has_more=True),
    "the same page for ever": page([row(id="ent_same")], has_more=True),
    "not modified": (304, b""),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE.keys())
def test_what_cannot_be_used_changes_nothing(strange: StrangeStripe, answer: Answer) -> None:
    strange.answer = lambda number, path: answer
    before = Customer.objects.values().get()
    with pytest.raises(StripeUnavailable):
        sync_customer(customer())
    assert (held(), Customer.objects.values().get()) == ({"sso"}, before)


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE.keys())
def test_what_cannot_be_used_holds_up_nobody_else(strange: StrangeStripe, answer: Answer) -> None:
    link(make_subscriber(), "cus_next")
    Customer.objects.filter(stripe_id="cus_acme").update(urgent=True, next_fetch_at=timezone.now())
    strange.answer = lambda number, path: page([row()]) if "cus_next" in path else answer
    call_command("entitlements_run", stdout=StringIO(), stderr=StringIO())
    assert held("cus_next") == {"audit"}
    assert customer().fetch_failures == 1


def test_an_unreadable_customer_does_not_confirm_that_all_is_lost(strange: StrangeStripe) -> None:
    strange.answer = lambda number, path: page() if "active_entitlements" in path else (200, b"{}")
    with pytest.raises(StripeUnavailable):
        sync_customer(customer())
    assert held() == {"sso"}


def test_a_list_without_end_is_given_up(strange: StrangeStripe) -> None:
    strange.answer = lambda number, path: page([row(id=f"ent_{number}")], has_more=True)
    with pytest.raises(StripeUnavailable, match="100 pages"):
        sync_customer(customer())
    assert len(strange.paths) == 100


def test_when_the_last_row_of_a_page_is_gone_the_list_is_read_anew(strange: StrangeStripe) -> None:
    pages = [page([row(id="ent_old", feature="feat_old")], has_more=True), GONE, page([row()])]
    strange.answer = lambda number, path: pages[number - 1]
    sync_customer(customer())
    assert held() == {"audit"}
    assert ActiveEntitlement.objects.get().feature.stripe_id == "feat_test_audit", "nothing of the first reading"


def test_a_list_that_keeps_changing_is_given_up_and_revokes_nothing(strange: StrangeStripe) -> None:
    strange.answer = lambda number, path: GONE if number % 2 == 0 else page([row()], has_more=True)
    with pytest.raises(StripeUnavailable, match="kept changing"):
        sync_customer(customer())
    assert (held(), len(strange.paths)) == ({"sso"}, 6)
