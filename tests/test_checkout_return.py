"""The page that waits after a checkout: for the event, for Stripe's answer, and not for ever."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.staticfiles import finders
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app import reconcile
from entitlements_app.budget import Allowance
from entitlements_app.linking import link
from entitlements_app.models import AccountState, Customer
from entitlements_app.views import CheckoutReturnView
from tests.rows import BY_ORGANISATION, customer, held, make_subscriber, visitor_of
from tests.shop import Shop
from tests.threads import Crowd
from tests.visitors import entitled, over_both, stranger, subscriber_with, unlinked

pytestmark = pytest.mark.django_db

PAGE = "/welcome/"  # waits for sso, goes on to /plans/
LIST = "/v1/entitlements/active_entitlements"
REFRESH = re.compile(r'<meta http-equiv="refresh" content="(\d+); url=([^"]*)">')


class Buyer:
    """Who comes back from a checkout, and whose browser does what the page says."""

    def __init__(self, clock: Any, user: User, page: str = PAGE) -> None:
        self._clock, self._client, self._address = clock, Client(), page
        self._client.force_login(user)
        self.response: Any = None

    def look(self) -> Buyer:
        self.response = self._client.get(self._address)
        return self

    def look_again(self) -> Buyer:
        """When and where the page says."""
        seconds, query = self.refresh
        self._clock.shift(seconds)
        self._address = self._address.partition("?")[0] + query
        return self.look()

    def wait(self) -> int:
        """Until the page goes on, or stops. Returns how often it was loaded again."""
        self.look()
        looks = 0
        while self.response.status_code == 200 and self.refresh[0]:
            self.look_again()
            looks += 1
        return looks

    @property
    def refresh(self) -> tuple[int, str]:
        """After how many seconds, and where to; no seconds: never."""
        found = REFRESH.search(self.text)
        return (int(found[1]), unescape(found[2])) if found else (0, "")

    @property
    def text(self) -> str:
        return self.response.content.decode()

    @property
    def went_to(self) -> str:
        assert self.response.status_code == 302, self.text
        return self.response.headers["Location"]


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(time.time(), tick=False) as clock:
        yield clock


@pytest.fixture
def cus(shop: Shop) -> str:
    """The customer of a subscriber, in Stripe and here, of whom Stripe has been asked long ago."""
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.new_events()
    Customer.objects.update(
        hinted_at=None,
        urgent=False,
        fetched_at=timezone.now() - timedelta(days=1),
        next_fetch_at=timezone.now() + timedelta(days=6),
    )
    shop.calls()
    return stripe_id


@pytest.fixture
def ada(cus: str) -> User:
    """Who pays as that customer."""
    return visitor_of(customer(cus).subscriber)


@pytest.fixture
def buyer(clock: Any, ada: User) -> Buyer:
    return Buyer(clock, ada)


def buy(shop: Shop, stripe_id: str, plan: str = "pro") -> None:
    """Nobody delivers the event unless the test does."""
    shop.subscribe(stripe_id, plan)
    shop.calls()


def waiting_for(seconds: float) -> str:
    """The address of the page for who has been waiting so long."""
    return f"{PAGE}?waiting_since={int(time.time() - seconds)}"


# --- going on


@over_both
def test_who_is_entitled_goes_on_at_once_and_stripe_is_not_asked(
    shop: Shop, cus: str, ada: User, served_by: Any
) -> None:
    buy(shop, cus)
    shop.deliver()
    shop.calls()
    response = served_by.get(waiting_for(3), ada)
    assert (response.status_code, response.headers["Location"]) == (302, "/plans/")
    assert "no-store" in response.headers["Cache-Control"]
    assert shop.calls() == []


def test_the_page_goes_on_when_the_event_arrives(shop: Shop, cus: str, buyer: Buyer) -> None:
    buy(shop, cus)
    assert buyer.look().response.status_code == 200
    shop.deliver()
    shop.calls()
    assert buyer.look_again().went_to == "/plans/"
    assert shop.calls() == []


def test_a_lost_event_costs_one_question_and_the_page_goes_on(shop: Shop, cus: str, buyer: Buyer) -> None:
    buy(shop, cus)
    assert buyer.look().response.status_code == 200
    assert shop.calls() == [], "Stripe needs some seconds itself"
    assert buyer.look_again().went_to == "/plans/"
    assert shop.calls() == [LIST]
    assert held(cus) == {"sso", "export"}


@over_both
def test_stripe_is_asked_over_both(shop: Shop, cus: str, ada: User, served_by: Any) -> None:
    buy(shop, cus)
    assert served_by.get(waiting_for(3), ada).headers["Location"] == "/plans/"
    assert shop.calls() == [LIST]


def test_who_was_never_seen_by_stripe_is_asked_about_too(shop: Shop, clock: Any) -> None:
    subscriber, stripe_id = make_subscriber(), shop.customer()
    link(subscriber, stripe_id)
    buy(shop, stripe_id)
    assert Buyer(clock, visitor_of(subscriber)).wait() == 1
    assert shop.calls() == [LIST]


def test_all_keys_of_a_tuple_are_waited_for_or_any_of_them() -> None:
    some = visitor_of(subscriber_with("sso"))
    both = visitor_of(subscriber_with("sso", "audit"))

    def statuses(**declared: Any) -> list[int]:
        view = CheckoutReturnView.as_view(entitlement_required=("sso", "audit"), next_page="/", **declared)
        return [view(request_of(user)).status_code for user in (some, both)]

    assert statuses() == [200, 302]
    assert statuses(entitlement_any=True) == [302, 302]


def test_what_is_waited_for_can_depend_on_the_request() -> None:
    class Welcome(CheckoutReturnView):
        next_page = "/"

        def get_entitlement_required(self) -> str:
            return self.request.GET["feature"]

    user = visitor_of(subscriber_with("sso"))
    assert Welcome.as_view()(request_of(user, "/?feature=sso")).status_code == 302
    assert Welcome.as_view()(request_of(user, "/?feature=audit")).status_code == 200


def request_of(user: Any, path: str = "/") -> HttpRequest:
    request = RequestFactory().get(path)
    request.user = user
    return request


# --- where to


def test_next_of_this_site_wins_and_is_kept_while_waiting(shop: Shop, cus: str, ada: User, clock: Any) -> None:
    buy(shop, cus)
    buyer = Buyer(clock, ada, f"{PAGE}?session_id=cs_test_1&next=/plain/%3Fa%3D1%26b%3D2")
    buyer.look()
    assert "session_id=cs_test_1&" in buyer.refresh[1]
    assert buyer.look_again().went_to == "/plain/?a=1&b=2"


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "///evil.example", "javascript:alert(1)", "\\\\evil.example"],
)
def test_next_of_another_site_is_not_followed(elsewhere: str) -> None:
    client = Client()
    client.force_login(visitor_of(subscriber_with("sso")))
    assert client.get(PAGE, {"next": elsewhere}).headers["Location"] == "/plans/"


def test_a_query_is_quoted_in_the_page() -> None:
    client = Client()
    client.force_login(unlinked())
    text = client.get(PAGE, {"x": '"><script>alert(1)</script>; url=https://evil.example'}).content.decode()
    assert "<script" not in text
    assert REFRESH.search(text)[2].startswith("?x=%22%3E%3Cscript")


# --- who


@over_both
def test_an_anonymous_visitor_signs_in_first_and_comes_back(shop: Shop, served_by: Any) -> None:
    shop.calls()
    response = served_by.get(f"{waiting_for(9)}&next=/plain/", None)
    assert response.status_code == 302
    assert re.fullmatch(r"/login/\?next=/welcome/%3Fwaiting_since%3D\d+%26next%3D/plain/", response.headers["Location"])
    assert shop.calls() == []


def test_the_hooks_of_access_mixin_work() -> None:
    view = CheckoutReturnView.as_view(entitlement_required="sso", next_page="/", login_url="/in/")
    assert view(request_of(AnonymousUser())).headers["Location"] == "/in/?next=/"
    view = CheckoutReturnView.as_view(entitlement_required="sso", next_page="/", raise_exception=True)
    with pytest.raises(PermissionDenied):
        view(request_of(AnonymousUser()))


def test_a_site_without_sign_in_sends_to_login_as_the_gates_do() -> None:
    view = CheckoutReturnView.as_view(entitlement_required="sso", next_page="/")
    request = RequestFactory().get("/w/")
    if not BY_ORGANISATION:
        assert view(request).headers["Location"] == "/login/?next=/w/"


@pytest.mark.parametrize("who", [unlinked, stranger, entitled])
def test_who_has_no_customer_or_bought_something_else_waits_and_is_told_to_the_end(
    stripe: Any, clock: Any, who: Any
) -> None:
    buyer = Buyer(clock, who())
    looks = buyer.wait()
    assert 25 < looks < 40
    assert "This takes longer than usual" in buyer.text


def test_a_customer_that_is_linked_meanwhile_is_asked_about(shop: Shop, clock: Any) -> None:
    subscriber, stripe_id = make_subscriber(), shop.customer()
    buy(shop, stripe_id)
    buyer = Buyer(clock, visitor_of(subscriber)).look().look_again()
    assert shop.calls() == []
    link(subscriber, stripe_id)
    assert buyer.look_again().went_to == "/plans/"


def test_a_subscriber_whom_the_site_knows_without_a_sign_in_can_wait(shop: Shop, cus: str, settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.of_the_tenant"
    assert Client().get(PAGE).status_code == 200
    buy(shop, cus)
    assert Client().get(waiting_for(3)).headers["Location"] == "/plans/"


def of_the_tenant(request: HttpRequest) -> Any:
    return Customer.objects.get().subscriber


# --- the page


def test_the_page_looks_often_then_seldom_then_stops(buyer: Buyer) -> None:
    buyer.look()
    every = []
    while buyer.refresh[0]:
        every.append(buyer.refresh[0])
        buyer.look_again()
    assert every == [2] * 10 + [5] * 20


def test_a_page_that_has_stopped_begins_again_when_asked_to(shop: Shop, cus: str, buyer: Buyer) -> None:
    buyer.wait()
    again = re.search(r'<a class="button" href="([^"]*)">', buyer.text)[1]
    assert again == "?"
    buy(shop, cus)
    assert buyer.wait() == 0
    buyer._address = PAGE + again
    assert buyer.wait() == 1
    assert buyer.went_to == "/plans/"


def test_the_page_says_what_it_does_and_has_nothing_inline(buyer: Buyer) -> None:
    buyer.look()
    assert '<p role="status">Waiting for Stripe to confirm' in buyer.text
    assert '<link rel="stylesheet" href="/static/entitlements_app/checkout_return.css">' in buyer.text
    assert not re.search(r"<script|<style|\bstyle=|\bon\w+=", buyer.text)
    assert "no-store" in buyer.response.headers["Cache-Control"]
    assert "private" in buyer.response.headers["Cache-Control"]


def test_the_stylesheet_is_where_the_page_looks_for_it(settings: Any) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    finders.get_finder.cache_clear()
    assert finders.find("entitlements_app/checkout_return.css")


def test_a_site_s_own_template_takes_its_place(buyer: Buyer, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "entitlements_app").mkdir()
    (tmp_path / "entitlements_app" / "checkout_return.html").write_text(
        "{{ refresh_after }} {{ refresh_url }} {{ again_url }} {{ next_url }} {{ request.entitlements.sso }}"
    )
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}, *settings.TEMPLATES[1:]]
    assert buyer.look().text == f"2 ?waiting_since={int(time.time())} ? /plans/ False"


def test_only_get_is_allowed(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    assert [getattr(client, method)(PAGE).status_code for method in ("post", "put", "delete")] == [405] * 3
    assert client.head(PAGE).status_code == 200
    assert client.options(PAGE).headers["Allow"] == "GET, HEAD, OPTIONS"


def test_a_look_costs_one_query_besides_the_sign_in(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    client.get(PAGE)
    with CaptureQueriesContext(connection) as queries:
        client.get(PAGE)
    assert len([query for query in queries if "entitlements_app" in query["sql"]]) == 1


# --- asking Stripe: once, briefly, and not at every visitor's pleasure


def test_one_who_waits_in_vain_costs_one_call(shop: Shop, buyer: Buyer) -> None:
    assert buyer.wait() == 30
    assert shop.calls() == [LIST]


def test_reloading_costs_no_call(shop: Shop, ada: User, clock: Any) -> None:
    for _ in range(10):
        Buyer(clock, ada, waiting_for(5)).look()
        clock.shift(1)
    assert shop.calls() == [LIST]


def test_whatever_the_address_says_there_is_a_quarter_of_a_minute_between_two_calls(
    shop: Shop, ada: User, clock: Any
) -> None:
    for second in range(60):
        Buyer(clock, ada, waiting_for(2 + second % 5)).look()
        clock.shift(1)
    assert len(shop.calls()) == 4


@pytest.mark.parametrize("since", ["", "x", "-5", "1e3", "0", "1", "٣", "²", "9" * 12, "9" * 5000, " 1"])
def test_an_address_that_was_tampered_with_does_no_harm(shop: Shop, ada: User, since: str) -> None:
    client = Client()
    client.force_login(ada)
    response = client.get(PAGE, {"waiting_since": since})
    assert response.status_code == 200
    found = REFRESH.search(response.content.decode())
    assert found is None or abs(int(found[2].partition("=")[2]) - time.time()) < 5
    assert len(shop.calls()) <= 1


def test_what_was_fetched_just_now_is_not_fetched_again(shop: Shop, cus: str, buyer: Buyer) -> None:
    Customer.objects.update(fetched_at=timezone.now() - timedelta(seconds=5))
    buy(shop, cus)
    buyer.look()
    while buyer.response.status_code == 200 and shop.calls() == []:
        buyer.look_again()
    assert (timezone.now() - customer(cus).fetched_at).total_seconds() == 0
    assert buyer.went_to == "/plans/"


def test_what_was_fetched_before_stripe_could_know_does_not_count_as_the_question(
    shop: Shop, cus: str, buyer: Buyer, clock: Any
) -> None:
    buyer.look()
    clock.shift(1)
    Customer.objects.update(fetched_at=timezone.now())
    buy(shop, cus)
    assert 5 < buyer.wait() < 12
    assert buyer.went_to == "/plans/"


def test_who_was_asked_about_too_early_is_asked_about_again_later(shop: Shop, cus: str, buyer: Buyer) -> None:
    """By `entitlements_run`: Stripe took longer than usual, and its event is lost."""
    buyer.look().look_again()
    row = customer(cus)
    assert row.hinted_at is not None
    assert row.next_fetch_at == timezone.now() + timedelta(seconds=60)


def test_of_many_customers_the_newest_three_are_asked_about(shop: Shop, clock: Any) -> None:
    subscriber = make_subscriber()
    customers = []
    for _ in range(4):
        clock.shift(1)
        customers.append(shop.customer())
        link(subscriber, customers[-1])
    shop.stripe.delete_customer(customers[-1])
    shop.deliver()
    clock.shift(1)
    newest = shop.customer()
    link(subscriber, newest)
    buy(shop, customers[2])
    Customer.objects.update(fetched_at=None)
    shop.calls()
    assert Buyer(clock, visitor_of(subscriber)).wait() == 1
    fetched = Customer.objects.exclude(fetched_at=None).values_list("stripe_id", flat=True)
    assert set(fetched) == {newest, customers[2], customers[1]}


def test_a_customer_of_the_other_mode_is_not_asked_about(shop: Shop, clock: Any) -> None:
    subscriber = make_subscriber()
    link(subscriber, "cus_live", livemode=True)
    link(subscriber, "cus_connected", account="acct_1")
    shop.calls()
    Buyer(clock, visitor_of(subscriber)).look().look_again()
    assert shop.calls() == []


def test_the_answer_counts_whoever_asked_before_in_the_same_request(
    shop: Shop, cus: str, buyer: Buyer, settings: Any
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.asking_first"]
    settings.ENTITLEMENTS_LOCAL_SECONDS = 300
    buy(shop, cus)
    assert buyer.wait() == 1
    assert buyer.went_to == "/plans/"


def asking_first(get_response: Any) -> Any:
    def middleware(request: Any) -> HttpResponse:
        assert not request.entitlements.sso
        return get_response(request)

    return middleware


@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_stripe_is_asked_outside_of_a_transaction(
    shop: Shop, cus: str, ada: User, monkeypatch: Any
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    buy(shop, cus)
    client = Client()
    client.force_login(ada)
    assert client.get(waiting_for(3)).headers["Location"] == "/plans/"


@pytest.mark.django_db(transaction=True)
def test_two_tabs_ask_once(shop: Shop, ada: User) -> None:
    pages: list[int] = []

    def look() -> None:
        client = Client()
        client.force_login(ada)
        pages.append(client.get(waiting_for(3)).status_code)

    with shop.stripe.hold("GET", LIST) as in_flight:
        crowd = Crowd().start(look)
        in_flight.wait_for_request()
        look()
        assert pages == [200], "the second does not wait for the first"
        in_flight.release()
        crowd.join()
    assert shop.calls() == [LIST]


# --- Stripe cannot be asked


def test_without_a_key_the_page_waits_for_the_event(shop: Shop, cus: str, buyer: Buyer, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    buy(shop, cus)
    assert buyer.look().look_again().response.status_code == 200
    shop.deliver()
    assert buyer.look_again().went_to == "/plans/"


def test_a_budget_that_is_used_up_is_not_waited_for(shop: Shop, cus: str, buyer: Buyer, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 0.01
    Allowance(seconds=1).take()
    buy(shop, cus)
    began = time.perf_counter()
    assert buyer.look().look_again().response.status_code == 200
    assert time.perf_counter() - began < 2
    assert shop.calls() == []
    assert customer(cus).hinted_at is None, "nothing was tried"


@pytest.mark.parametrize("status", [500, 429])
def test_while_stripe_has_trouble_the_page_waits(shop: Shop, cus: str, buyer: Buyer, caplog: Any, status: int) -> None:
    buy(shop, cus)
    shop.stripe.fail_requests(status, times=1)
    buyer.look().look_again()
    assert buyer.response.status_code == 200
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == [
        "entitlements_app.reconcile"
    ]
    assert "Fetching after a checkout failed" in caplog.text
    shop.deliver()
    assert buyer.look_again().went_to == "/plans/"


def test_a_question_in_vain_is_not_repeated_by_reloading(shop: Shop, buyer: Buyer) -> None:
    shop.stripe.fail_requests(500, times=100)
    buyer.wait()
    assert len(shop.calls()) == 2, "after a minute, once more"


def test_who_could_not_be_asked_about_is_asked_about_with_the_next_look(shop: Shop, cus: str, buyer: Buyer) -> None:
    buy(shop, cus)
    shop.stripe.fail_requests(429)
    buyer.look().look_again()
    AccountState.objects.update(next_call_at=None)  # the pause after a 429, by the database's clock
    assert buyer.look_again().went_to == "/plans/"


def test_after_an_outage_the_page_goes_on(shop: Shop, cus: str, buyer: Buyer) -> None:
    buy(shop, cus)
    shop.stripe.fail_requests(503, times=1)
    buyer.wait()
    assert buyer.went_to == "/plans/"


def test_a_refused_key_stops_the_questions_and_not_the_page(shop: Shop, buyer: Buyer) -> None:
    shop.stripe.fail_requests(401, times=1)
    buyer.wait()
    assert "This takes longer than usual" in buyer.text
    assert len(shop.calls()) == 1


def test_a_silent_stripe_is_not_waited_for_long(shop: Shop, ada: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(reconcile, "INLINE_SECONDS", 1.0)
    shop.stripe.slow(60)
    client = Client()
    client.force_login(ada)
    began = time.monotonic()
    assert client.get(waiting_for(3)).status_code == 200
    assert time.monotonic() - began < 20
    shop.stripe.clear_faults()


def test_five_seconds_are_the_longest_that_a_worker_is_held() -> None:
    assert reconcile.INLINE_SECONDS == 5


# --- mistakes


@pytest.mark.parametrize("declared", [None, "", (), ["sso"], ("",), 5])
def test_a_view_that_declares_no_key_is_an_error(declared: Any) -> None:
    view = CheckoutReturnView.as_view(entitlement_required=declared, next_page="/")
    with pytest.raises(ImproperlyConfigured, match="CheckoutReturnView"):
        view(request_of(unlinked()))


def test_a_view_that_has_nowhere_to_go_is_an_error_from_the_first_visit_on() -> None:
    with pytest.raises(ImproperlyConfigured, match="next_page"):
        CheckoutReturnView.as_view(entitlement_required="sso")(request_of(unlinked()))
