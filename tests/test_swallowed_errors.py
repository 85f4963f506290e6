"""Django's `not`, `and`, `==` and the like take an error for no: it must not show what stands in their `else`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client
from django.urls import include, path

from entitlements_app.exceptions import UnknownFeature
from tests.rows import BY_ORGANISATION
from tests.testapp.gates import KEY, subscriber_of
from tests.visitors import entitled, over_both, subscriber_with, unlinked

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

has_jinja = "jinja2" in [engine.name for engine in engines.all()]
LOAD = "{% load entitlements %}"
CONDITIONS = {
    "not": "not request.entitlements.premium_support",
    "equal": "request.entitlements.premium_support == False",
    "unequal": "request.entitlements.premium_support != True",
    "not-in": '"premium_support" not in request.entitlements',
    "or": "not request.entitlements.premium_support or not request.user.is_authenticated",
    "truth": "not request.entitlements",
    "filter": 'not subscriber|entitled_to:"premium_support"',
}
if not BY_ORGANISATION:  # templates pass no organisation with a permission
    CONDITIONS["permission"] = "not perms.entitlements.premium_support"
ABOUT_THE_REQUEST = [name for name, condition in CONDITIONS.items() if "request.entitlements" in condition]
OF_ONE_KEY = [name for name in ABOUT_THE_REQUEST if name != "truth"]


def page(condition: str) -> Any:
    return engines["django"].from_string(LOAD + "{% if " + condition + " %}buy{% else %}paid{% endif %}")


def sync_page(condition: str) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        context = {"subscriber": subscriber_of(request), "team": Group(pk=1)}
        return HttpResponse(page(condition).render(context, request))

    return view


def async_page(condition: str) -> Callable[[HttpRequest], Any]:
    """It forgets to await the answer."""

    async def view(request: HttpRequest) -> HttpResponse:
        request.user = await request.auser()
        return HttpResponse(page(condition).render({"subscriber": request.user}, request))

    return view


def response_of_a_template(request: HttpRequest) -> TemplateResponse:
    return TemplateResponse(request, page(CONDITIONS["not"]))  # rendered after the view has returned


def jinja_page(request: HttpRequest) -> HttpResponse:
    source = "{% if not request.entitlements[key] %}buy{% else %}paid{% endif %}"
    return HttpResponse(engines["jinja2"].from_string(source).render({"key": json.loads(request.GET["key"])}, request))


def handles_it(request: HttpRequest) -> HttpResponse:
    try:
        request.entitlements[KEY]
    except DatabaseError:
        return HttpResponse("We will be back.")
    raise AssertionError("this was to fail")


def fails_anyway(request: HttpRequest) -> HttpResponse:
    page(CONDITIONS["not"]).render({}, request)
    return HttpResponse("We will be back.", status=503)


urlpatterns = [
    *[path(f"sync/{name}/", sync_page(condition)) for name, condition in CONDITIONS.items()],
    *[path(f"async/{name}/", async_page(condition)) for name, condition in CONDITIONS.items()],
    path("wrong-model/", sync_page('not team|entitled_to:"premium_support"')),
    path("empty-key/", sync_page('not subscriber|entitled_to:""')),
    path("jinja/", jinja_page),
    path("template-response/", response_of_a_template),
    path("handled/", handles_it),
    path("fails-anyway/", fails_anyway),
    path("stripe/", include("entitlements_app.urls")),
]


@contextmanager
def entitlements_unreadable() -> Iterator[None]:
    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "entitlements_app_activeentitlement" in sql:
            raise DatabaseError("the disk is gone")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield


def shown_to(user: Any, path: str, *, asynchronously: bool = False) -> str:
    client = AsyncClient() if asynchronously else Client()
    client.force_login(user)
    response = async_to_sync(client.get)(path) if isinstance(client, AsyncClient) else client.get(path)
    return response.content.decode()  # type: ignore[no-any-return]


@over_both
@pytest.mark.parametrize("name", CONDITIONS)
def test_where_nothing_fails_the_operators_say_what_they_always_say(served_by: Any, name: str) -> None:
    assert served_by.get(f"/sync/{name}/", entitled()).content == b"paid"
    assert served_by.get(f"/sync/{name}/", unlinked()).content == b"buy"


@over_both
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_database_that_fails_shows_nobody_what_is_paid_for(served_by: Any, name: str) -> None:
    visitor = unlinked()
    with entitlements_unreadable(), pytest.raises(DatabaseError, match="disk is gone") as caught:
        served_by.get(f"/sync/{name}/", visitor)
    assert "A Django template took this for no" in caught.value.__notes__[0]


@over_both
@pytest.mark.parametrize("name", [*ABOUT_THE_REQUEST, "filter"])
def test_an_async_view_that_did_not_await_the_answer(served_by: Any, name: str) -> None:
    with pytest.raises(SynchronousOnlyOperation, match="await"):
        served_by.get(f"/async/{name}/", unlinked())


def fails(request: HttpRequest) -> Any:
    return {}["organisation"]


@over_both
@pytest.mark.parametrize("name", ABOUT_THE_REQUEST)
def test_a_site_s_function_that_fails(served_by: Any, name: str, settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.fails"
    with pytest.raises(ImproperlyConfigured, match="could not be found out"):
        served_by.get(f"/sync/{name}/", unlinked())


@over_both
@pytest.mark.parametrize("name", OF_ONE_KEY)
def test_an_unknown_key_that_is_to_raise(served_by: Any, name: str, settings: Any) -> None:
    subscriber_with("sso")
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    with pytest.raises(UnknownFeature):
        served_by.get(f"/sync/{name}/", unlinked())


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_malformed_setting(name: str, settings: Any) -> None:
    visitor = unlinked()
    settings.ENTITLEMENTS_LIVEMODE = "yes"
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_LIVEMODE"):
        shown_to(visitor, f"/sync/{name}/")


@pytest.mark.parametrize("path", ["/wrong-model/", "/empty-key/"])
def test_a_filter_that_is_asked_wrongly(path: str) -> None:
    with pytest.raises(TypeError):
        shown_to(unlinked(), path)


@pytest.mark.skipif(not has_jinja, reason="the environment without extras")
@pytest.mark.parametrize("key", ["", ["premium_support"], None, 1])
def test_jinja_is_asked_about_what_is_no_key(key: Any) -> None:
    with pytest.raises(TypeError, match="A lookup key is a text"):
        shown_to(entitled(), f"/jinja/?key={json.dumps(key)}")


@pytest.mark.skipif(not has_jinja, reason="the environment without extras")
def test_jinja_is_asked_about_a_key() -> None:
    assert shown_to(entitled(), '/jinja/?key="premium_support"') == "paid"
    assert shown_to(unlinked(), '/jinja/?key="premium_support"') == "buy"


def test_a_template_that_is_rendered_after_the_view() -> None:
    visitor = unlinked()
    with entitlements_unreadable(), pytest.raises(DatabaseError):
        shown_to(visitor, "/template-response/")
    assert shown_to(visitor, "/template-response/") == "buy"


def test_an_error_that_the_site_handles_is_the_site_s() -> None:
    visitor = unlinked()
    with entitlements_unreadable():
        assert shown_to(visitor, "/handled/") == "We will be back."


def test_a_failing_answer_stays_what_it_is() -> None:
    visitor = unlinked()
    with entitlements_unreadable():
        assert shown_to(visitor, "/fails-anyway/") == "We will be back."


def test_an_error_is_of_one_request_and_not_of_the_next() -> None:
    visitor = unlinked()
    for _ in range(2):
        with entitlements_unreadable(), pytest.raises(DatabaseError):
            shown_to(visitor, "/sync/not/")
        assert shown_to(visitor, "/sync/not/") == "buy"
