"""The gate for Django REST framework."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from tests.rows import visitor_of
from tests.test_gates import (
    Async,
    Sync,
    entitled,
    every_visitor,
    over_both,
    subscriber_with,
    unlinked,
)

pytest.importorskip("rest_framework", reason="the environment without extras")
pytestmark = pytest.mark.django_db


@over_both
@every_visitor
def test_an_api_view(served_by: Sync | Async, who: Any, outcome: str) -> None:
    """Session authentication sends no WWW-Authenticate header, so that DRF answers 403 to anonymous visitors."""
    response = served_by.get("/api/gated/", who())
    assert response.status_code == (200 if outcome == "open" else 403)


def test_token_authentication_counts_and_not_the_session() -> None:
    payer, other = entitled(), unlinked()
    client = Client()
    client.force_login(payer)
    assert client.get("/api/token/", headers={"X-User": other.username}).status_code == 403
    client.force_login(other)
    assert client.get("/api/token/", headers={"X-User": payer.username}).status_code == 200


def test_anonymous_gets_401_where_a_token_is_asked_for() -> None:
    assert Client().get("/api/token/").status_code == 401


def test_all_declared_keys_are_needed() -> None:
    some, both = visitor_of(subscriber_with("sso")), visitor_of(subscriber_with("sso", "premium_support"))
    assert Sync().get("/api/needs-both/", some).status_code == 403
    assert Sync().get("/api/needs-both/", both).status_code == 200


def test_turned_round_it_answers_the_same_for_an_object() -> None:
    assert Sync().get("/api/not-for-payers/", entitled()).status_code == 403
    assert Sync().get("/api/not-for-payers/", unlinked()).status_code == 200


@pytest.mark.parametrize("path", ["undeclared", "declares-nothing", "declares-a-list", "declares-empty-text"])
def test_a_view_that_declares_no_key_is_an_error_and_no_open_door(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="entitlement_required"):
        Sync().get(f"/api/{path}/", entitled())


def test_the_answer_costs_one_query(django_assert_num_queries: Any) -> None:
    user = entitled()
    client = Client()
    client.force_login(user)
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        client.get("/api/gated/")
    assert len([query for query in queries if "activeentitlement" in query["sql"]]) == 1
