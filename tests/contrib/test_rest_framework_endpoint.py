"""The endpoint that tells a front end what the visitor holds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from entitlements_app import overrides
from entitlements_app.linking import link
from entitlements_app.models import Feature
from tests.delivery import deliver, summary
from tests.rows import visitor_of
from tests.visitors import Who, anonymous, entitled, every_visitor, over_both, stranger, subscriber_with, unlinked

pytest.importorskip("rest_framework", reason="the environment without extras")
pytestmark = pytest.mark.django_db

URL = "/api/entitlements/"


def describe(**metadata: dict[str, str]) -> None:
    """Stripe's catalogue, as a fetch of it leaves it."""
    for key, texts in metadata.items():
        Feature.objects.filter(lookup_key=key).update(metadata=texts)


def signed_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def etag_of(client: Client, **headers: str) -> str:
    return client.get(URL, headers=headers).headers["ETag"]


@over_both
@every_visitor
def test_every_visitor_is_told_what_it_holds(served_by: Any, who: Who, outcome: str) -> None:
    response = served_by.get(URL, who())
    assert response.status_code == 200
    assert ("premium_support" in response.json()["entitlements"]) is (outcome == "open")


def test_the_answer_has_keys_metadata_and_the_moment() -> None:
    before = timezone.now()
    subscriber = subscriber_with("sso", "seats", "api_access")
    describe(seats={"max": "5", "unit": "person"}, sso={})
    told = signed_in(visitor_of(subscriber)).get(URL).json()
    as_of = datetime.fromisoformat(told.pop("as_of"))
    assert told == {
        "entitlements": ["api_access", "seats", "sso"],
        "metadata": {"seats": {"max": "5", "unit": "person"}},
    }
    assert before - timedelta(seconds=1) < as_of < timezone.now() + timedelta(seconds=1)


@pytest.mark.parametrize("who", [anonymous, unlinked, stranger])
def test_who_holds_nothing_is_told_so(who: Who) -> None:
    user = who()
    told = (signed_in(user) if user else Client()).get(URL).json()
    assert (told["entitlements"], told["metadata"]) == ([], {})


def test_what_is_granted_and_denied_by_hand_counts() -> None:
    subscriber = subscriber_with("sso", "seats")
    overrides.grant(subscriber, "beta", reason="tries it", force=True)
    overrides.deny(subscriber, "sso", reason="abuse")
    assert signed_in(visitor_of(subscriber)).get(URL).json()["entitlements"] == ["beta", "seats"]


def test_a_token_counts_and_not_the_session() -> None:
    from rest_framework.authtoken.models import Token

    client, payer = signed_in(unlinked()), entitled()
    headers = {"Authorization": f"Token {Token.objects.create(user=payer).key}"}
    assert client.get("/api/entitlements-by-token/", headers=headers).json()["entitlements"] == ["premium_support"]
    refused = client.get("/api/entitlements-by-token/", headers={"Authorization": "Token none"})
    assert refused.status_code == 401
    assert "private" in refused.headers["Cache-Control"]


def test_the_site_s_defaults_apply() -> None:
    from rest_framework.views import APIView

    from entitlements_app.contrib.rest_framework.views import EntitlementsView

    for defaults in ("authentication_classes", "permission_classes", "throttle_classes"):
        assert getattr(EntitlementsView, defaults) is getattr(APIView, defaults)


def test_a_site_can_refuse_strangers() -> None:
    from rest_framework.permissions import IsAuthenticated

    from entitlements_app.contrib.rest_framework.views import EntitlementsView

    assert EntitlementsView.as_view(permission_classes=[IsAuthenticated])(RequestFactory().get("/")).status_code == 403


def test_a_site_can_keep_metadata_back() -> None:
    subscriber = subscriber_with("seats", "sso")
    describe(seats={"max": "5", "internal_cost": "0.70"}, sso={"internal_cost": "1"})
    told = signed_in(visitor_of(subscriber)).get("/api/public-entitlements/").json()
    assert told["metadata"] == {"seats": {"max": "5"}}
    assert told["entitlements"] == ["seats", "sso"]


def test_only_reading_is_allowed() -> None:
    client = signed_in(unlinked())
    client.handler.enforce_csrf_checks = False
    assert [getattr(client, method)(URL).status_code for method in ("post", "put", "patch", "delete")] == [405] * 4
    assert client.options(URL).headers["Allow"] == "GET, HEAD, OPTIONS"
    head = client.head(URL)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["ETag"] == etag_of(client)


def test_its_name_is_apart_from_the_webhook_s() -> None:
    assert reverse("entitlements_api:entitlements") == URL
    assert reverse("entitlements:webhook") == "/stripe/webhook/"


# --- asking again


def test_asking_again_costs_a_304_until_something_changes() -> None:
    subscriber = subscriber_with("seats")
    client = signed_in(visitor_of(subscriber))
    first = etag_of(client)
    again = client.get(URL, headers={"If-None-Match": first})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first

    describe(seats={"max": "5"})
    second = etag_of(client, **{"If-None-Match": first})
    assert second != first
    overrides.grant(subscriber, "sso", reason="tries it", force=True)
    changed = client.get(URL, headers={"If-None-Match": f"{first}, {second}"})
    assert (changed.status_code, changed.json()["entitlements"]) == (200, ["seats", "sso"])


def test_a_change_by_stripe_is_seen() -> None:
    subscriber = subscriber_with("sso")
    client = signed_in(visitor_of(subscriber))
    first = etag_of(client)
    link(subscriber, "cus_second")
    deliver(summary("cus_second", "export"))
    assert client.get(URL, headers={"If-None-Match": first}).json()["entitlements"] == ["export", "sso"]


def test_the_tag_says_nothing_of_who_asks() -> None:
    assert etag_of(signed_in(entitled())) == etag_of(signed_in(entitled()))
    assert etag_of(signed_in(unlinked())) == etag_of(Client())


def test_another_media_type_has_another_tag() -> None:
    client = signed_in(entitled())
    assert etag_of(client, Accept="application/json") != etag_of(client, Accept="text/html")


@pytest.mark.parametrize("status", [200, 304])
def test_no_shared_cache_keeps_it_and_the_browser_asks_again(status: int) -> None:
    client = signed_in(entitled())
    headers = {"If-None-Match": etag_of(client)} if status == 304 else {}
    response = client.get(URL, headers=headers)
    assert response.status_code == status
    assert set(response.headers["Cache-Control"].split(", ")) == {"private", "no-cache"}
    assert {"Cookie", "Authorization"} <= set(response.headers["Vary"].split(", "))


# --- what it costs


@pytest.mark.parametrize(("keys", "queries"), [((), 1), (("sso",), 2), (tuple(f"k{n}" for n in range(9)), 2)])
def test_it_costs_two_queries_however_many_keys(keys: tuple[str, ...], queries: int) -> None:
    client = signed_in(visitor_of(subscriber_with(*keys)))
    etag = etag_of(client)
    for headers in ({}, {"If-None-Match": etag}):
        with CaptureQueriesContext(connection) as captured:
            client.get(URL, headers=headers)
        ours = [query for query in captured if "entitlements_app" in query["sql"]]
        assert len(ours) == queries
