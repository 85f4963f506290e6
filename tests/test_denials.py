"""What a visitor sees whom a gate turns away."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import reverse_lazy
from django.views import View
from django.views.generic import TemplateView

from entitlements_app.exceptions import EntitlementMissing, EntitlementsError
from entitlements_app.mixins import EntitlementRequiredMixin
from tests.rows import visitor_of
from tests.testapp import gates
from tests.testapp.gates import GUARDING, KEY
from tests.visitors import over_both, subscriber_with, unlinked

pytestmark = pytest.mark.django_db

every_gate = pytest.mark.parametrize("gate", GUARDING)


@over_both
@every_gate
def test_a_login_page_on_another_host_gets_the_whole_url(served_by: Any, gate: str, settings: Any) -> None:
    settings.LOGIN_URL = "https://accounts.example.com/login/?theme=dark"
    location = served_by.get(f"{gate}?page=2", None).headers["Location"]
    here = f"http%3A//testserver{gate}%3Fpage%3D2"
    assert location == f"https://accounts.example.com/login/?theme=dark&next={here}"


@over_both
@every_gate
def test_a_signed_in_visitor_is_led_to_the_page_that_the_site_names(served_by: Any, gate: str, settings: Any) -> None:
    for named in ("plans", "/plans/", reverse_lazy("plans")):
        settings.ENTITLEMENTS_DENIED = named
        response = served_by.get(f"{gate}?page=2&x=a%20b", unlinked())
        assert response.status_code == 302
        here = f"{gate}%3Fpage%3D2%26x%3Da%2520b"
        assert response.headers["Location"] == f"/plans/?feature=premium_support&next={here}"


@over_both
@every_gate
def test_anonymous_visitors_log_in_first_whatever_the_site_names(served_by: Any, gate: str, settings: Any) -> None:
    for named in ("plans", f"{__name__}.sell"):
        settings.ENTITLEMENTS_DENIED = named
        assert served_by.get(gate, None).headers["Location"] == f"/login/?next={gate}"


def sell(request: HttpRequest, missing: tuple[str, ...]) -> HttpResponse:
    return JsonResponse({"buy": missing, "at": request.path}, status=402)


async def sell_async(request: HttpRequest, missing: tuple[str, ...]) -> HttpResponse:
    return sell(request, missing)


@over_both
@every_gate
@pytest.mark.parametrize("function", [sell, sell_async])
def test_the_site_s_own_function_answers(served_by: Any, gate: str, function: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = f"{__name__}.{function.__name__}"
    response = served_by.get(gate, unlinked())
    assert (response.status_code, response.json()) == (402, {"buy": [KEY], "at": gate})


def test_a_page_on_another_host_gets_the_whole_url_and_keeps_its_query(settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = "https://shop.example.com/buy?ref=app#plans"
    client = Client()
    client.force_login(unlinked())
    location = client.get("/guarding/decorated/").headers["Location"]
    here = "http%3A//testserver/guarding/decorated/"
    assert location == f"https://shop.example.com/buy?ref=app&feature={KEY}&next={here}#plans"


def test_another_scheme_or_port_is_another_host(settings: Any) -> None:
    for named in ("https://testserver/buy/", "http://testserver:8443/buy/"):
        settings.ENTITLEMENTS_DENIED = named
        location = asked(Wants, unlinked()).headers["Location"]
        assert location.endswith("&next=http%3A//testserver/page/")
    settings.ENTITLEMENTS_DENIED = "http://testserver/buy/"
    assert asked(Wants, unlinked()).headers["Location"].endswith("&next=/page/")


def asked(view: type[EntitlementRequiredMixin], user: Any) -> HttpResponse:
    request = RequestFactory().get("/page/")
    request.user = user
    return view.as_view()(request)  # type: ignore[attr-defined,no-any-return]


class Wants(EntitlementRequiredMixin, View):
    entitlement_required = ("b", "a", "c")

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("open")


def test_each_missing_key_is_named_and_those_held_are_not(settings: Any) -> None:
    user = visitor_of(subscriber_with("a"))
    with pytest.raises(EntitlementMissing, match=r"Missing entitlement: b, c\.") as caught:
        asked(Wants, user)
    assert caught.value.missing == ("b", "c")
    assert isinstance(caught.value, EntitlementsError)
    settings.ENTITLEMENTS_DENIED = "plans"
    assert asked(Wants, user).headers["Location"] == "/plans/?feature=b&feature=c&next=/page/"


def test_where_one_of_several_would_do_each_is_named() -> None:
    with pytest.raises(EntitlementMissing) as caught:
        asked(type("WantsAny", (Wants,), {"entitlement_any": True}), unlinked())
    assert caught.value.missing == ("b", "a", "c")


# --- the hooks of AccessMixin


def test_its_own_login_page_and_field(settings: Any) -> None:
    class Page(Wants):
        login_url = "/members/"
        redirect_field_name = "back"

    assert asked(Page, AnonymousUser()).headers["Location"] == "/members/?back=/page/"


def test_its_own_message() -> None:
    class Page(Wants):
        permission_denied_message = "Only with Enterprise."

    with pytest.raises(EntitlementMissing, match=r"^Only with Enterprise\.$") as caught:
        asked(Page, unlinked())
    assert caught.value.missing == ("b", "a", "c")


@pytest.mark.parametrize("who", [unlinked, AnonymousUser])
def test_a_403_for_everyone(who: Any, settings: Any) -> None:
    class Page(Wants):
        raise_exception = True
        permission_denied_message = "Only with Enterprise."

    settings.ENTITLEMENTS_DENIED = "plans"
    with pytest.raises(EntitlementMissing, match=r"^Only with Enterprise\.$"):
        asked(Page, who())


def test_its_own_answer() -> None:
    class Page(Wants):
        def handle_no_permission(self) -> HttpResponse:
            return HttpResponse(f"Buy {self.entitlements_missing}", status=402)

    assert asked(Page, unlinked()).content == b"Buy ('b', 'a', 'c')"


def test_its_own_answer_of_an_async_view_may_be_async() -> None:
    class Page(EntitlementRequiredMixin, gates.PlainAsync):
        entitlement_required = KEY

        async def handle_no_permission(self) -> HttpResponse:  # type: ignore[override]
            return HttpResponse(status=402)

    request = RequestFactory().get("/")
    request.user = unlinked()
    assert async_to_sync(Page.as_view())(request).status_code == 402


def test_what_is_required_can_depend_on_the_request() -> None:
    class Page(Wants):
        def get_entitlement_required(self) -> str:
            return "export" if self.request.method == "POST" else "a"

        def post(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("open")

    user = visitor_of(subscriber_with("a"))
    assert asked(Page, user).status_code == 200
    request = RequestFactory().post("/page/")
    request.user = user
    with pytest.raises(EntitlementMissing, match="export"):
        Page.as_view()(request)


@pytest.mark.parametrize("gate", ["mixin", "mixin-async"])
def test_an_unknown_method_is_refused_as_django_does_it(gate: str) -> None:
    user = visitor_of(subscriber_with(KEY))
    for client in (Client(), AsyncClient()):
        client.force_login(user)
        put = async_to_sync(client.put) if isinstance(client, AsyncClient) else client.put
        assert put(f"/guarding/{gate}/").status_code == 405


# --- among other mixins and bases


class Staff(PermissionRequiredMixin, Wants):
    permission_required = "auth.change_user"


def test_what_another_mixin_refuses_is_its_refusal_and_nothing_to_buy(settings: Any) -> None:
    """Whoever has paid and lacks a permission is not sent to the plans."""
    settings.ENTITLEMENTS_DENIED = "plans"
    user = visitor_of(subscriber_with("a", "b", "c"))
    with pytest.raises(PermissionDenied) as caught:
        asked(Staff, user)
    assert not isinstance(caught.value, EntitlementMissing)
    assert asked(Staff, AnonymousUser()).headers["Location"] == "/login/?next=/page/"
    with pytest.raises(PermissionDenied):
        asked(type("Strict", (Staff,), {"raise_exception": True}), AnonymousUser())


def test_a_mixin_that_would_guard_nothing_is_an_error_where_it_is_written() -> None:
    with pytest.raises(
        TypeError, match=r"Open would be open to everyone.*class Open\(EntitlementRequiredMixin, View\)"
    ):

        class Open(View, EntitlementRequiredMixin):  # type: ignore[misc]
            entitlement_required = KEY

    with pytest.raises(TypeError, match="Listed would be open"):

        class Listed(TemplateView, EntitlementRequiredMixin):
            entitlement_required = KEY


def test_a_mixin_of_the_site_on_top_of_ours_may_stand_alone() -> None:
    class Pro(EntitlementRequiredMixin):
        entitlement_required = KEY

    class Page(LoginRequiredMixin, Pro, gates.Plain):
        pass

    assert asked(Page, visitor_of(subscriber_with(KEY))).status_code == 200
    with pytest.raises(EntitlementMissing):
        asked(Page, unlinked())


# --- a wrong setting


@pytest.mark.parametrize(
    "wrong",
    ["", "nowhere", "shop.views.upgarde", "tests.settings.SECRET_KEY", 5, sell, ["plans"], "../plans/", "mailto:a@b.c"],
)
def test_a_wrong_setting_is_an_error_for_who_is_denied_and_opens_nothing(wrong: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = wrong
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_DENIED"):
        asked(Wants, unlinked())
    assert asked(Wants, AnonymousUser()).status_code == 302


def forgets_to_answer(request: HttpRequest, missing: tuple[str, ...]) -> None:
    return None


@over_both
def test_a_function_that_answers_nothing_opens_nothing(served_by: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_DENIED = f"{__name__}.forgets_to_answer"
    with pytest.raises(ImproperlyConfigured, match="must return a response, not NoneType"):
        served_by.get("/guarding/decorated/", unlinked())
