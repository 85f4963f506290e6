"""What an answer is, and what it costs."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import timezone

from entitlements_app.access import (
    Entitlements,
    aget_entitlements,
    ahas_entitlement,
    get_entitlements,
    has_entitlement,
)
from entitlements_app.linking import link
from entitlements_app.models import Customer
from entitlements_app.request_entitlements import get_request_entitlements
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of

pytestmark = pytest.mark.django_db


def answer(*keys: str) -> Entitlements:
    """As a subscriber gets it who holds these keys."""
    subscriber = make_subscriber()
    link(subscriber, f"cus_of_{subscriber.pk}")
    deliver(summary(f"cus_of_{subscriber.pk}", *keys))
    return get_entitlements(subscriber)


def test_the_spellings_of_an_answer() -> None:
    e = answer("premium_support", "premium-support", "api.v2")
    assert e.premium_support is e["premium_support"] is True
    assert e["premium-support"] is e["api.v2"] is True
    assert "premium_support" in e
    assert e.sso is e["sso"] is ("sso" in e) is False
    assert list(e) == ["api.v2", "premium-support", "premium_support"]
    assert (len(e), bool(e), bool(answer())) == (3, True, False)


def test_keys_are_compared_exactly() -> None:
    e = answer("premium-support", "SSO")
    assert not e.premium_support
    assert not e.sso
    assert e.SSO


def test_all_and_any() -> None:
    e = answer("a", "b")
    assert e.has_all("a", "b")
    assert not e.has_all("a", "c")
    assert e.has_any("c", "a")
    assert not e.has_any("c")


@pytest.mark.parametrize("bad", [(), ("",), ("a", ""), (["a"],), (("a",),), (None,), (1,), (b"a",), (True,)])
def test_what_is_no_key_is_a_type_error_in_every_spelling(bad: tuple[Any, ...]) -> None:
    e = answer("a")
    subscriber = make_subscriber()
    for ask in (e.has_all, e.has_any, lambda *keys: has_entitlement(subscriber, *keys)):
        with pytest.raises(TypeError):
            ask(*bad)
    for key in bad[-1:]:
        if isinstance(key, str):
            with pytest.raises(TypeError):
                getattr(e, key)
        with pytest.raises(TypeError):
            e[key]
        with pytest.raises(TypeError):
            key in e  # noqa: B015


PUBLIC = {"has_all", "has_any", "as_of", "metadata"}


def test_no_inherited_name_is_a_gate_that_is_always_open() -> None:
    e = answer()
    for name in {*dir(set), *dir(dict), *dir(str), "copy", "keys", "get", "union"}:
        if not name.startswith("_"):
            assert getattr(e, name) is False, name
    assert {name for name in dir(e) if not name.startswith("_")} == PUBLIC


def test_names_with_an_underscore_are_no_gates() -> None:
    with pytest.raises(AttributeError):
        answer("_private")._private  # noqa: B018
    assert answer("_private")["_private"] is True


def test_an_answer_cannot_be_changed() -> None:
    e = answer()
    for change in (
        lambda: setattr(e, "sso", True),
        lambda: setattr(e, "_keys", frozenset({"sso"})),
        lambda: delattr(e, "_keys"),
    ):
        with pytest.raises(AttributeError):
            change()
    for twin in (copy.copy(e), copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
        assert (list(twin), twin.as_of) == (list(e), e.as_of)


def test_a_template_cannot_reach_a_method() -> None:
    template = Template("{% if e.has_all %}open{% endif %}{% if e.copy %}open{% endif %}{% if e.sso %}sso{% endif %}")
    assert template.render(Context({"e": answer("sso")})) == "sso"


def test_one_query_answers_and_nobody_costs_none(acme: Any, django_assert_num_queries: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    with django_assert_num_queries(1):
        before = timezone.now()
        entitlements = get_entitlements(acme)
        assert list(entitlements) == ["sso"]
        assert before <= entitlements.as_of <= timezone.now()
    with django_assert_num_queries(0):
        for nobody in (None, AnonymousUser()):
            assert list(get_entitlements(nobody)) == []


def test_a_subscriber_without_customers_holds_nothing(acme: Any) -> None:
    assert not has_entitlement(make_subscriber(), "sso")


def test_the_async_twins_agree(acme: Any) -> None:
    from asgiref.sync import async_to_sync

    deliver(summary("cus_acme", "sso"))
    assert list(async_to_sync(aget_entitlements)(acme)) == ["sso"]
    assert async_to_sync(ahas_entitlement)(acme, "sso") is True
    assert async_to_sync(ahas_entitlement)(acme, "sso", "audit") is False
    with pytest.raises(TypeError):
        async_to_sync(ahas_entitlement)(acme)


def test_a_deleted_customer_s_rows_never_count(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    Customer.objects.update(deleted_at=timezone.now())
    assert not get_entitlements(acme).sso


# --- of a request


def request_of(user: Any) -> Any:
    request = RequestFactory().get("/")
    request.user = user
    request.entitlements = get_request_entitlements(request)
    return request


def test_a_request_costs_one_query_when_asked_and_none_when_not(acme: Any, client: Any) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    deliver(summary("cus_acme", "premium_support"))
    client.force_login(visitor_of(acme))
    with CaptureQueriesContext(connection) as not_asked:
        client.get("/plain/")
    assert len(not_asked) == 0
    with CaptureQueriesContext(connection) as asked:
        assert client.get("/saying/django/attribute/").content == b"open"
    assert len([query for query in asked if "activeentitlement" in query["sql"]]) == 1


def test_one_look_up_per_request(acme: Any, django_assert_num_queries: Any) -> None:
    request = request_of(visitor_of(acme))
    assert request.entitlements.sso is False
    with django_assert_num_queries(0):
        assert request.entitlements["sso"] is False
        assert list(request.entitlements) == []
        assert not request.entitlements.has_any("a", "b")
        assert request.entitlements.as_of


def test_another_user_on_the_same_request_is_asked_about_again(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    stranger = visitor_of(make_subscriber())
    request = request_of(stranger)
    assert not request.entitlements.sso
    request.user = visitor_of(acme)
    assert request.entitlements.sso
    request.user = AnonymousUser()
    assert not request.entitlements.sso


@pytest.mark.skipif(BY_ORGANISATION, reason="about the default subscriber, the user")
def test_an_inactive_user_holds_nothing(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    acme.is_active = False
    assert not request_of(acme).entitlements.sso


def test_a_change_is_seen_by_the_next_request(acme: Any) -> None:
    now = int(time.time())
    user = visitor_of(acme)
    deliver(summary("cus_acme", "sso", created=now - 5))
    request = request_of(user)
    assert request.entitlements.sso
    deliver(summary("cus_acme", created=now))
    assert request.entitlements.sso, "one request sees one answer"
    assert not request_of(user).entitlements.sso
