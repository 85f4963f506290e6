"""One table of visitors over every gate: all spellings say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from entitlements_app.decorators import entitlement_required
from entitlements_app.linking import link
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of

pytestmark = pytest.mark.django_db

DENYING = ["/decorated/", "/decorated-async/"]  # anonymous visitors to login, others 403
SAYING = ["/template/", "/in-code/", "/in-async-code/"]  # a page that says open or closed


def subscriber_with(*keys: str) -> Any:
    subscriber = make_subscriber()
    stripe_id = f"cus_of_{subscriber.pk}"
    link(subscriber, stripe_id)
    deliver(summary(stripe_id, *keys))
    return subscriber


def entitled() -> User:
    return visitor_of(subscriber_with("premium_support"))


def entitled_to_something_else() -> User:
    return visitor_of(subscriber_with("premium-support", "PREMIUM_SUPPORT", "premium_support_plus"))


def unlinked() -> User:
    return visitor_of(make_subscriber())


def stranger() -> User:
    return User.objects.create_user("stranger")


def superuser() -> User:
    """Superusers pass permissions, and an entitlement is none: they hold what they pay for."""
    user = unlinked()
    User.objects.filter(pk=user.pk).update(is_superuser=True, is_staff=True)
    return user


def deactivated() -> User:
    user = entitled()
    User.objects.filter(pk=user.pk).update(is_active=False)
    return user


def anonymous() -> None:
    return None


VISITORS: list[tuple[Callable[[], User | None], str]] = [
    (entitled, "open"),
    (entitled_to_something_else, "denied"),
    (unlinked, "denied"),
    (stranger, "denied"),
    (superuser, "denied"),
    (deactivated, "login"),  # Django itself treats the session of an inactive user as anonymous
    (anonymous, "login"),
]
every_visitor = pytest.mark.parametrize(("who", "outcome"), VISITORS, ids=[who.__name__ for who, _ in VISITORS])


class Sync:
    def get(self, path: str, user: User | None) -> HttpResponse:
        client = Client()
        if user:
            client.force_login(user)
        return client.get(path)


class Async:
    def get(self, path: str, user: User | None) -> HttpResponse:
        client = AsyncClient()
        if user:
            client.force_login(user)
        return async_to_sync(client.get)(path)


over_both = pytest.mark.parametrize("served_by", [Sync(), Async()], ids=["WSGI", "ASGI"])


@over_both
@every_visitor
@pytest.mark.parametrize("path", DENYING)
def test_a_decorated_view(served_by: Any, who: Callable[[], User | None], outcome: str, path: str) -> None:
    response = served_by.get(path, who())
    if outcome == "login":
        assert response.status_code == 302
        assert response.headers["Location"] == f"/login/?next={path}"
    else:
        assert response.status_code == {"open": 200, "denied": 403}[outcome]


@over_both
@every_visitor
@pytest.mark.parametrize("path", SAYING)
def test_a_page_that_asks(served_by: Any, who: Callable[[], User | None], outcome: str, path: str) -> None:
    response = served_by.get(path, who())
    assert response.content.strip() == (b"open" if outcome == "open" else b"closed")


@pytest.mark.parametrize(
    ("keys", "both", "either"),
    [
        (("premium_support", "sso"), 200, 200),
        (("sso",), 403, 200),
        (("premium_support",), 403, 200),
        (("x",), 403, 403),
    ],
)
def test_all_keys_or_any_of_them(keys: tuple[str, ...], both: int, either: int) -> None:
    user = visitor_of(subscriber_with(*keys))
    assert Sync().get("/needs-both/", user).status_code == both
    assert Sync().get("/needs-either/", user).status_code == either


@pytest.mark.parametrize("bad", [(), ("",), (["a"],), (None,), (lambda request: request,)])
def test_a_decorator_without_a_key_fails_when_it_is_written_down(bad: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        entitlement_required(*bad)


def test_the_decorator_keeps_the_view_s_name_and_marks() -> None:
    from tests.testapp.views import decorated, decorated_async

    assert (decorated.__name__, decorated_async.__name__) == ("decorated", "decorated_async")


def test_a_login_page_on_another_host_gets_the_whole_url(settings: Any) -> None:
    settings.LOGIN_URL = "https://accounts.example.com/login/"
    location = Sync().get("/decorated/", None).headers["Location"]
    assert location == "https://accounts.example.com/login/?next=http%3A//testserver/decorated/"


def test_the_decorator_works_without_the_middleware() -> None:
    request = RequestFactory().get("/")
    request.user = entitled()
    if not BY_ORGANISATION:
        assert entitlement_required("premium_support")(lambda request: HttpResponse())(request).status_code == 200
    with pytest.raises(PermissionDenied):
        entitlement_required("sso")(lambda request: HttpResponse())(request)


@pytest.mark.skipif(not BY_ORGANISATION, reason="about a site's own function")
@over_both
@pytest.mark.parametrize("function", ["organisation_of", "organisation_of_async"])
@pytest.mark.parametrize("path", DENYING)
def test_the_site_s_function_may_be_sync_or_async(served_by: Any, function: str, path: str, settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"tests.testapp.views.{function}"
    assert served_by.get(path, entitled()).status_code == 200
    assert served_by.get(path, unlinked()).status_code == 403


def test_an_async_gate_asks_the_request_s_user_and_not_the_session_s() -> None:
    """As after impersonation by a middleware that replaced `request.user` only."""
    from tests.testapp.views import decorated_async

    request = RequestFactory().get("/")
    request.user = unlinked()
    with pytest.raises(PermissionDenied):
        async_to_sync(decorated_async)(request)
    request.user = AnonymousUser()
    assert async_to_sync(decorated_async)(request).status_code == 302


def test_a_subscriber_of_the_wrong_model_is_an_error_and_no_denial(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.test_gates.wrong_model"
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST"):
        Sync().get("/decorated/", entitled())


def wrong_model(request: HttpRequest) -> Any:
    from django.contrib.auth.models import Group

    return Group(pk=request.user.pk)


@over_both
def test_a_view_that_does_not_ask_costs_no_query(served_by: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert served_by.get("/plain/", None).status_code == 200
