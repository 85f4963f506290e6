"""The gate for Django REST framework."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from entitlements_app.request_entitlements import get_request_entitlements
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of
from tests.testapp.gates import KEY
from tests.visitors import Sync, Who, entitled, every_visitor, over_both, subscriber_with, unlinked

pytest.importorskip("rest_framework", reason="the environment without extras")
pytestmark = pytest.mark.django_db

GATES = ["declared", "of", "and", "or", "not-not", "object", "viewset", "function"]


@over_both
@every_visitor
def test_an_api_by_session(served_by: Any, who: Who, outcome: str) -> None:
    """Session authentication names no header to log in with, so that DRF answers 403 to anonymous visitors."""
    visitor = who()
    statuses = {gate: served_by.get(f"/api/session/{gate}/", visitor).status_code for gate in GATES}
    assert statuses == dict.fromkeys(GATES, 200 if outcome == "open" else 403)


@over_both
@every_visitor
def test_an_api_by_token(served_by: Any, who: Who, outcome: str) -> None:
    from rest_framework.authtoken.models import Token

    user = who()
    headers = {"Authorization": f"Token {Token.objects.create(user=user).key}"} if user else {}
    statuses = {gate: served_by.get(f"/api/token/{gate}/", None, **headers).status_code for gate in GATES}
    # DRF itself refuses the token of an inactive user.
    assert statuses == dict.fromkeys(GATES, {"open": 200, "denied": 403, "login": 401}[outcome])


# --- identity


def test_drf_s_own_authentication_counts_and_not_the_session() -> None:
    payer, other = entitled(), unlinked()
    client = Client()
    client.force_login(payer)
    assert client.get("/api/header/", headers={"X-User": other.username}).status_code == 403
    client.force_login(other)
    response = client.get("/api/header/", headers={"X-User": payer.username})
    assert (response.status_code, response.json()) == (200, "open")


@pytest.mark.parametrize(("session_pays", "said"), [(True, b"True 403 False"), (False, b"False 200 True")])
def test_an_answer_read_before_drf_authenticated_is_not_drf_s(session_pays: bool, said: bytes) -> None:
    payer, other = entitled(), unlinked()
    client = Client()
    client.force_login(payer if session_pays else other)
    named = other if session_pays else payer
    assert client.get("/api/mixed/", headers={"X-User": named.username}).content == said


def only_drf_knows(request: Any) -> Any:
    """A subscriber that only DRF's own request can name. (`auth` it copies to Django's.)"""
    from tests.testapp.api import HeaderAuthentication
    from tests.testapp.models import Organisation

    if not isinstance(getattr(request, "successful_authenticator", None), HeaderAuthentication):
        return None
    if BY_ORGANISATION:
        return Organisation.objects.filter(members=request.user.pk).first()
    return request.user


def test_the_site_s_function_gets_drf_s_request_and_its_answer_serves_the_view(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.only_drf_knows"
    payer = entitled()
    response = Client().get("/api/header/", headers={"X-User": payer.username})
    assert (response.status_code, response.json()) == (200, "open")
    client = Client()
    client.force_login(payer)
    assert client.get("/api/session/of/").status_code == 403


def test_an_answer_read_before_drf_authenticated_is_not_drf_s_for_the_same_user_object_either(settings: Any) -> None:
    from tests.testapp.api import GatedOf, HeaderAuthentication

    class OfTheSession(HeaderAuthentication):
        def authenticate(self, request: Any) -> Any:
            return request._request.user, None

    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.only_drf_knows"
    request = RequestFactory().get("/")
    request.user = entitled()
    assert not get_request_entitlements(request)[KEY]
    assert GatedOf.as_view(authentication_classes=[OfTheSession])(request).status_code == 200
    assert get_request_entitlements(request)[KEY], "after it, Django's request has DRF's answer"


def test_the_view_s_own_question_costs_no_second_query() -> None:
    payer = entitled()
    with CaptureQueriesContext(connection) as queries:
        assert Client().get("/api/header/", headers={"X-User": payer.username}).json() == "open"
    assert len([query for query in queries if "activeentitlement" in query["sql"]]) == 1


# --- what is asked for


def test_all_declared_keys_or_any_of_them() -> None:
    some, both = visitor_of(subscriber_with("sso")), visitor_of(subscriber_with("sso", "premium_support"))
    codes = {
        path: [Sync().get(f"/api/{path}/", user).status_code for user in (unlinked(), some, both)]
        for path in ("needs-both", "needs-either")
    }
    assert codes == {"needs-both": [403, 403, 200], "needs-either": [403, 200, 200]}


def test_what_is_required_can_depend_on_the_request() -> None:
    payer = entitled()
    assert Sync().get("/api/decided/?any", payer).status_code == 200
    assert Sync().get("/api/decided/", payer).json()["missing"] == ["sso"]


def test_an_action_of_a_viewset_has_a_gate_of_its_own() -> None:
    payer, other = entitled(), unlinked()
    assert [Sync().get("/api/mixed-set/", who).status_code for who in (payer, other, None)] == [200, 200, 403]
    assert [Sync().get("/api/mixed-set/paid/", who).status_code for who in (payer, other, None)] == [200, 403, 403]


def test_turned_round_it_answers_the_same_for_an_object() -> None:
    assert Sync().get("/api/not-for-payers/", entitled()).status_code == 403
    assert Sync().get("/api/not-for-payers/", unlinked()).status_code == 200


def test_the_same_keys_give_the_same_class() -> None:
    from entitlements_app.contrib.rest_framework import HasEntitlement

    assert HasEntitlement.of("a", "b") is HasEntitlement.of("b", "a", "b")
    assert HasEntitlement.of("a", "b") is not HasEntitlement.of("a", "b", any=True)
    assert (HasEntitlement.of("a") | HasEntitlement.of("b")) == (HasEntitlement.of("a") | HasEntitlement.of("b"))
    assert issubclass(HasEntitlement.of("a"), HasEntitlement)
    assert "HasEntitlement.of(a or b)" in repr(HasEntitlement.of("a", "b", any=True))


def test_it_can_be_asked_about_a_plain_request_as_unit_tests_do() -> None:
    from entitlements_app.contrib.rest_framework import HasEntitlement

    request = RequestFactory().get("/")
    request.user = entitled()
    assert HasEntitlement.of("premium_support")().has_permission(request, None)
    assert not HasEntitlement.of("sso")().has_permission(request, None)


@pytest.mark.parametrize("bad", [(), ("",), (["a"],), (None,), (1,)])
def test_no_key_is_a_type_error_when_it_is_written_down(bad: tuple[Any, ...]) -> None:
    from entitlements_app.contrib.rest_framework import HasEntitlement

    with pytest.raises(TypeError):
        HasEntitlement.of(*bad)


def test_a_view_that_declares_nothing_is_an_error_and_no_open_door() -> None:
    with pytest.raises(ImproperlyConfigured, match="Undeclared is gated and does not say on what"):
        Sync().get("/api/undeclared/", entitled())


@pytest.mark.parametrize("declared", ["", (), ["premium_support"], ("",), 5])
def test_a_view_that_declares_what_is_no_key_is_an_error(declared: Any) -> None:
    from tests.testapp.api import Gated

    request = RequestFactory().get("/")
    request.user = entitled()
    for error in (TypeError, ImproperlyConfigured):
        with pytest.raises(error, match="entitlement_required"):
            Gated.as_view(entitlement_required=declared)(request)


# --- denials


def test_a_denial_has_a_code_and_names_the_missing_keys() -> None:
    user = visitor_of(subscriber_with("sso"))
    response = Sync().get("/api/needs-both/", user)
    assert response.json() == {
        "detail": "Missing entitlement: premium_support.",
        "code": "entitlement_required",
        "missing": ["premium_support"],
    }
    response = Sync().get("/api/needs-either/", unlinked())
    assert response.json()["missing"] == ["premium_support", "sso"]


def test_anonymous_is_asked_for_credentials_first() -> None:
    response = Client().get("/api/token/of/")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Token"
    assert response.json() == {"detail": "Authentication credentials were not provided."}


def test_a_user_without_a_subscriber_is_denied() -> None:
    make_subscriber()
    assert Sync().get("/api/session/of/", unlinked()).json()["missing"] == ["premium_support"]
