"""What is behind a gate is one visitor's: a cache in front of the gate must not hand it to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import Context, Template
from django.test import Client, RequestFactory
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_control, cache_page

from entitlements_app.access import get_entitlements
from entitlements_app.decorators import entitlement_required
from entitlements_app.middleware import EntitlementsMiddleware
from entitlements_app.mixins import EntitlementRequiredMixin
from entitlements_app.request_entitlements import get_request_subscriber
from tests.testapp import gates
from tests.testapp.gates import KEY
from tests.visitors import Async, Sync, entitled, over_both, subscriber_with, unlinked

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@method_decorator(cache_page(60), name="dispatch")
class CachedMixin(gates.Gated):
    pass


@entitlement_required(KEY)
@cache_control(public=True, max_age=60)
def declared_public(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@entitlement_required(KEY)
def streamed(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[bytes]:
        yield b"open"

    return StreamingHttpResponse(pieces())


@entitlement_required(KEY)
async def streamed_async(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"open"

    return StreamingHttpResponse(pieces())


CACHED = {
    "decorator": cache_page(60)(gates.decorated),
    "include": cache_page(60)(entitlement_required(KEY)(gates.plain)),
    "mixin": CachedMixin.as_view(),
}
urlpatterns = [
    path("stripe/", include("entitlements_app.urls")),
    *[path(f"cached/{name}/", view) for name, view in CACHED.items()],
    *gates.guarding,
    path("public/", declared_public),
    path("streamed/", streamed),
    path("streamed-async/", streamed_async),
]


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.mark.parametrize("name", CACHED)
def test_a_cached_page_is_not_handed_to_who_has_not_paid(name: str) -> None:
    assert Sync().get(f"/cached/{name}/", entitled()).content == b"open"
    assert Sync().get(f"/cached/{name}/", unlinked()).status_code == 403
    assert Sync().get(f"/cached/{name}/", None).status_code == 302


def sell(request: HttpRequest, missing: tuple[str, ...]) -> HttpResponse:
    return HttpResponse("buy")


@pytest.mark.parametrize("name", CACHED)
def test_a_cached_offer_is_not_handed_to_who_has_paid(name: str, settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = f"{__name__}.sell"
    assert Sync().get(f"/cached/{name}/", unlinked()).content == b"buy"
    assert Sync().get(f"/cached/{name}/", entitled()).content == b"open"


PATHS = [f"/{gate.pattern}" for gate in gates.guarding[:-1]] + ["/include/function/", "/include/class-async/"]


@over_both
@pytest.mark.parametrize("at", [*PATHS, "/streamed/", "/streamed-async/"])
def test_what_a_gate_lets_through_says_that_it_is_private(served_by: Sync | Async, at: str, settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = f"{__name__}.sell"
    for who, status in [(entitled, 200), (unlinked, 200), (lambda: None, 302)]:
        response = served_by.get(at, who())
        assert response.status_code == status
        assert response.headers["Cache-Control"] == "private"
        assert "Cookie" in response.headers["Vary"]


def test_what_the_view_itself_says_is_public_stays_so() -> None:
    response = Sync().get("/public/", entitled())
    assert response.headers["Cache-Control"] == "public, max-age=60"


def test_what_the_view_says_beside_it_stays() -> None:
    @entitlement_required(KEY)
    @cache_control(max_age=60)
    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Vary": "Accept"})

    request = RequestFactory().get("/")
    request.user = entitled()
    response = page(request)
    assert set(response.headers["Cache-Control"].split(", ")) == {"max-age=60", "private"}
    assert response.headers["Vary"] == "Accept, Cookie"


def test_a_view_that_forgets_its_response_is_told_by_django_as_ever() -> None:
    class Forgets(EntitlementRequiredMixin, View):
        entitlement_required = KEY

        def get(self, request: HttpRequest) -> None:
            return None

    request = RequestFactory().get("/")
    request.user = entitled()
    assert Forgets.as_view()(request) is None  # Django's handler names the view
    with pytest.raises(ValueError, match="didn't return an HttpResponse"):
        Client().handler.check_response(None, Forgets.as_view())


def test_an_answer_of_an_async_gate() -> None:
    request = RequestFactory().get("/")
    request.user = entitled()
    assert async_to_sync(gates.decorated_async)(request).headers["Cache-Control"] == "private"


FRAGMENTS = {
    "the request's": "request.entitlements",
    "one that was handed over": "handed_over",
    "one key": f"request.entitlements.{KEY}",
}


@pytest.mark.parametrize("varies_on", FRAGMENTS.values(), ids=FRAGMENTS.keys())
def test_a_fragment_that_varies_on_an_answer_is_not_handed_to_who_has_another(varies_on: str) -> None:
    cache.clear()
    template = Template(
        f"{{% load cache %}}{{% cache 60 box {varies_on} %}}"
        f"{{% if request.entitlements.{KEY} %}}open{{% else %}}closed{{% endif %}}{{% endcache %}}"
    )

    def box(user: Any) -> str:
        request = RequestFactory().get("/")
        request.user = user
        EntitlementsMiddleware(lambda request: HttpResponse())(request)
        context = {"request": request, "handed_over": get_entitlements(get_request_subscriber(request))}
        return template.render(Context(context))

    payer, other = entitled(), unlinked()
    assert [box(payer), box(other), box(payer)] == ["open", "closed", "open"]
    cache.clear()
    assert [box(other), box(payer)] == ["closed", "open"]


def test_the_text_of_an_answer_tells_each_from_all_others(settings: Any) -> None:
    """Whoever makes a key of a cache of it: a lookup key may have a comma in it."""
    answers = [subscriber_with(), subscriber_with("a"), subscriber_with("a", "b"), subscriber_with("a, b")]
    texts = [str(get_entitlements(each)) for each in answers]
    assert len(set(texts)) == 4
    assert texts[2] == str(get_entitlements(subscriber_with("b", "a")))
