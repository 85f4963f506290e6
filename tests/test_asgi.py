"""The site behind an ASGI server: each request has a thread of its own, with a database connection of its own."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import include, path

from entitlements_app.access import ahas_entitlement
from entitlements_app.linking import link
from entitlements_app.models import EntitlementChange, WebhookEvent
from entitlements_app.overrides import grant
from tests import valkey
from tests.delivery import URL, signature, subscription_updated, summary
from tests.documents import ROOT, blocks
from tests.receivers import Listener, connected
from tests.rows import BY_ORGANISATION, customer, held, make_subscriber, visitor_of
from tests.shop import Shop
from tests.testapp.gates import KEY, subscriber_of
from tests.visitors import entitled, unlinked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

LIST = "/v1/entitlements/active_entitlements"
ASKED_FOR = 60  # seconds, of a machine that is busy
EXAMPLES = [block.text for block in blocks(ROOT / "docs" / "asgi.md") if block.language == "python"]


def example(name: str) -> Any:
    """What an example of the page defines under this name."""
    [text] = [text for text in EXAMPLES if re.search(rf"(def|class) {name}\b", text)]
    defined: dict[str, Any] = {"__name__": __name__}
    exec(text, defined)
    return defined[name]


class Visit:
    """One request of a client, who may go away before it is answered."""

    def __init__(
        self, path: str, *, cookie: str = "", body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        path, _, query = path.partition("?")
        named = {"host": "testserver", "cookie": cookie, "content-length": str(len(body)), **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST" if body else "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in named.items() if value],
        }
        self._body = body
        self._server = ApplicationCommunicator(get_asgi_application(), scope)
        self.status = 0

    async def begin(self) -> Visit:
        await self._server.send_input({"type": "http.request", "body": self._body})
        return self

    async def parts(self) -> AsyncIterator[str]:
        """What comes, as it comes."""
        self.status = (await self._server.receive_output(ASKED_FOR))["status"]
        more = True
        while more:
            message = await self._server.receive_output(ASKED_FOR)
            more = message.get("more_body", False)
            yield message.get("body", b"").decode()
        await self._server.wait(ASKED_FOR)

    async def answer(self) -> tuple[int, str]:
        text = "".join([part async for part in (await self.begin()).parts()])
        return self.status, text

    async def go_away(self) -> None:
        await self._server.send_input({"type": "http.disconnect"})

    async def is_over(self) -> None:
        """The server's side of it."""
        await self._server.wait(ASKED_FOR)


def cookie_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return f"sessionid={client.cookies['sessionid'].value}"


def event(body: dict[str, Any]) -> Visit:
    signed = json.dumps(body).encode()
    return Visit(URL, body=signed, headers={"Stripe-Signature": signature(signed)})


def at_once(*visits: Visit) -> list[tuple[int, str]]:
    async def all_of_them() -> list[tuple[int, str]]:
        return await asyncio.gather(*[visit.answer() for visit in visits])

    return asyncio.run(all_of_them())


class Opened:
    """The connections that requests opened since the test began. The test's own is not one."""

    def __init__(self) -> None:
        self._own, self._all = connections["default"], list[Any]()

    def note(self, connection: Any, **_: Any) -> None:
        if connection is not self._own:
            self._all.append(connection)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def still(self) -> int:
        return sum(each.connection is not None for each in self._all)


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    connection_created.connect(opened.note)
    yield opened
    connection_created.disconnect(opened.note)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    subscriber = await sync_to_async(subscriber_of)(request)

    async def parts() -> AsyncIterator[str]:
        for part in "first", "second":
            of_the_request = (await request.aentitlements())[KEY]  # type: ignore[attr-defined]
            yield f"{part}: {of_the_request}, now {await ahas_entitlement(subscriber, KEY)}. "
            await sync_to_async(grant)(subscriber, KEY, force=True)

    return StreamingHttpResponse(parts())


async def told_twice_who_it_is(request: HttpRequest) -> HttpResponse:
    if "one" in request.GET:
        request.user = await request.auser()
    user = await request.auser()
    entitlements = await request.aentitlements()  # type: ignore[attr-defined]
    assert user == request.user
    return HttpResponse(str(entitlements[KEY]))


urlpatterns = [
    path("stream/", stream),
    path("news/", example("news")),
    path("told-twice/", told_twice_who_it_is),
    path("", include("tests.urls")),
]


def test_each_of_many_visitors_at_once_has_an_answer_of_their_own(opened: Opened) -> None:
    gates = ["decorated/", "decorated-async/", "mixin/", "mixin-async/", "include/function-async/"]
    pages = ["attribute/", "async-code/", "get-async/", "django-async/negated/", "django-async/block/"]
    asked, wanted = [], []
    for user, is_open in [(entitled(), True), (unlinked(), False), (entitled(), True), (unlinked(), False)]:
        cookie = cookie_of(user)
        asked += [Visit(f"/guarding/{gate}", cookie=cookie) for gate in gates]
        wanted += [(200, "open") if is_open else (403, "") for _ in gates]
        asked += [Visit(f"/saying/{page}", cookie=cookie) for page in pages]
        wanted += [(200, "open" if is_open else "closed") for _ in pages]

    answers = at_once(*asked)

    assert [(status, text if status == 200 else "") for status, text in answers] == wanted
    assert opened
    assert not opened.still


@pytest.mark.parametrize("processing", ["inline", "celery"])
def test_events_that_come_at_once_are_all_kept(processing: str, opened: Opened, settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_PROCESSING = processing
    now = int(time.time())
    events = [summary(f"cus_{number % 3}", "sso", created=now - number) for number in range(12)]

    answers = at_once(*[event(body) for body in events])

    assert {status for status, _ in answers} == {200}
    assert sorted(text for _, text in answers) == sorted(body["id"] for body in events)
    kept = list(WebhookEvent.objects.values_list("status", flat=True))
    assert kept == ["processed" if processing == "inline" else "pending"] * len(events)
    assert not opened.still


def test_who_goes_away_leaves_nothing_behind(opened: Opened) -> None:
    cookie = cookie_of(entitled())

    async def story() -> tuple[int, str]:
        gone = [Visit(f"/{at}", cookie=cookie) for at in ("guarding/mixin-async/", "saying/async-code/", "stream/")]
        for visit in gone:
            await visit.begin()
            await visit.go_away()
        for visit in gone:
            await visit.is_over()
        return await Visit("/guarding/mixin-async/", cookie=cookie).answer()

    assert asyncio.run(story()) == (200, "open")
    assert not opened.still


def due(shop: Shop) -> str:
    """A customer who bought, and about whom Stripe is to be asked."""
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    return stripe_id


def test_an_event_whose_sender_went_away_is_processed_to_its_end(shop: Shop, opened: Opened) -> None:
    stripe_id = due(shop)

    async def story() -> None:
        with shop.stripe.hold("GET", LIST) as asked:
            delivery = await event(subscription_updated(stripe_id)).begin()
            await asyncio.to_thread(asked.wait_for_request, ASKED_FOR)
            await delivery.go_away()
            await asyncio.sleep(0)
        await delivery.is_over()

    asyncio.run(story())
    assert WebhookEvent.objects.get().status == "processed"
    assert held(stripe_id) == {"sso", "export"}
    assert not opened.still


def test_a_receiver_whose_request_is_given_up_is_called_again_and_the_others_are_called(shop: Shop) -> None:
    stripe_id = due(shop)
    reached, heard = threading.Event(), Listener()

    async def waits(**_: Any) -> None:
        reached.set()
        await asyncio.sleep(ASKED_FOR)

    async def story() -> None:
        body = summary(stripe_id, "sso")
        delivery = await event(body).begin()
        await asyncio.to_thread(reached.wait, ASKED_FOR)
        await delivery.go_away()
        await delivery.is_over()

    with connected(waits, heard):
        asyncio.run(story())
    change = EntitlementChange.objects.get(lookup_key="sso")
    assert "CancelledError" in change.error
    assert change.delivered_at is None
    assert heard.changes == [change]
    assert WebhookEvent.objects.get().status == "processed"


def returned_from_checkout(stripe_id: str) -> Visit:
    cookie = cookie_of(visitor_of(customer(stripe_id).subscriber))
    return Visit(f"/welcome/?waiting_since={int(time.time()) - 10}", cookie=cookie)


def told_of_an_event(stripe_id: str) -> Visit:
    return event(subscription_updated(stripe_id))


@contextmanager
def pool_of_one() -> Iterator[None]:
    """Of all requests together. The test has a connection of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.databases["default"], "OPTIONS", {"pool": {"min_size": 1, "max_size": 1}})
        try:
            yield
        finally:
            connections["default"].close_pool()  # type: ignore[attr-defined]


@pytest.mark.postgresql
@pytest.mark.parametrize("made", [told_of_an_event, returned_from_checkout])
def test_while_stripe_is_asked_the_pool_serves_the_others(made: Callable[[str], Visit], shop: Shop) -> None:
    subscriber = make_subscriber()
    grant(subscriber, KEY, force=True)
    meanwhile = Visit("/saying/attribute/", cookie=cookie_of(visitor_of(subscriber)))
    stripe_id = due(shop)
    visit = made(stripe_id)

    async def story() -> tuple[int, str]:
        with shop.stripe.hold("GET", LIST) as asked:
            answering = asyncio.ensure_future(visit.answer())
            await asyncio.to_thread(asked.wait_for_request, ASKED_FOR)
            answer = await meanwhile.answer()
        await answering
        return answer

    with pool_of_one():
        assert asyncio.run(story()) == (200, "open")
    assert held(stripe_id) == {"sso", "export"}


def test_a_stream_has_the_request_s_answer_and_may_ask_anew(opened: Opened) -> None:
    subscriber = make_subscriber()
    visit = Visit("/stream/", cookie=cookie_of(visitor_of(subscriber)))

    assert at_once(visit) == [(200, "first: False, now False. second: False, now True. ")]
    assert not opened.still


# --- what docs/asgi.md says


@pytest.mark.skipif(BY_ORGANISATION, reason="the example is of a site whose users pay")
def test_the_stream_of_the_page_lets_its_connection_go(opened: Opened) -> None:
    subscriber = make_subscriber()
    grant(subscriber, "news", force=True)
    visit = Visit("/news/", cookie=cookie_of(subscriber))

    async def story() -> tuple[str, int]:
        parts = (await visit.begin()).parts()
        part = await anext(parts)
        meanwhile = opened.still
        await visit.go_away()
        await visit.is_over()
        return part, meanwhile

    assert asyncio.run(story()) == ("data: …\n\n", 0)
    assert len(opened)


def test_with_the_pool_of_the_page_requests_share_a_connection_to_redis(settings: Any) -> None:
    pool = example("SharedPool")
    options = {"pool_class": pool, "max_connections": 50, "timeout": 1}
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": valkey.url(), "OPTIONS": options}
    settings.CACHES = {"default": backend}
    settings.ENTITLEMENTS_CACHE = "default"
    cookie = cookie_of(entitled())
    with redis.Redis.from_url(valkey.url()) as server:
        before = server.info("stats")
        for _ in range(5):
            assert at_once(Visit("/saying/async-code/", cookie=cookie)) == [(200, "open")]
        after = server.info("stats")
    for each in pool._pools.values():
        each.disconnect()
    assert after["total_connections_received"] - before["total_connections_received"] <= 1
    assert after["keyspace_hits"] - before["keyspace_hits"] >= 8, "the cache answers"


@pytest.mark.skipif(BY_ORGANISATION, reason="whose function asks more")
def test_one_user_object_spares_a_query() -> None:
    cookie = cookie_of(entitled())
    queries: list[str] = []

    def count(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        queries.append(sql)
        return execute(sql, *rest)

    def watch(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(watch)
    try:
        numbers = []
        for at in ("/told-twice/", "/told-twice/?one", "/told-twice/?one"):  # the first learns which keys there are
            queries.clear()
            assert at_once(Visit(at, cookie=cookie)) == [(200, "True")]
            numbers.append(sum('"auth_user"' in sql for sql in queries))
    finally:
        connection_created.disconnect(watch)
    assert numbers == [2, 1, 1]
