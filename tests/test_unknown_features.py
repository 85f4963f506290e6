"""A gate that asks for a key that no feature has: the answer is no, and someone is told."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from entitlements_app import known_features
from entitlements_app.access import aget_entitlements, ahas_entitlement, get_entitlements
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.models import Feature
from entitlements_app.request_entitlements import aget_request_entitlements, get_request_entitlements
from tests.rows import make_subscriber, visitor_of
from tests.visitors import Sync, over_both, subscriber_with, unlinked

pytestmark = pytest.mark.django_db


def warnings(caplog: Any) -> list[str]:
    return [record.args[0] for record in caplog.records if record.name == "entitlements_app.known_features"]


SPELLINGS = {
    "attribute": lambda e: e.typo,
    "item": lambda e: e["typo"],
    "in": lambda e: "typo" in e,
    "has_all": lambda e: e.has_all("sso", "typo"),
    "has_all, first": lambda e: e.has_all("typo", "sso"),
}
every_spelling = pytest.mark.parametrize("ask", SPELLINGS.values(), ids=SPELLINGS)


@every_spelling
def test_by_default_it_is_logged_once_for_each_key_and_process(ask: Any, caplog: Any) -> None:
    e = get_entitlements(subscriber_with("sso"))
    assert ask(e) is ask(e) is ask(get_entitlements(None)) is False
    [said] = warnings(caplog)
    assert said.startswith("No known feature has the lookup key 'typo', so the answer is no. Correct the key;")
    assert e.other_typo is False
    assert len(warnings(caplog)) == 2
    known_features.forget()
    assert ask(e) is False
    assert len(warnings(caplog)) == 3


@every_spelling
def test_it_can_be_an_error_that_is_logged_as_well(ask: Any, caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    e = get_entitlements(subscriber_with("sso"))
    for _ in range(2):
        with pytest.raises(UnknownFeature, match="'typo'"):
            ask(e)
    assert len(warnings(caplog)) == 2


def test_it_can_be_ignored(caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "ignore"
    e = get_entitlements(subscriber_with("sso"))
    with CaptureQueriesContext(connection) as queries:
        assert e.typo is False
    assert (len(queries), warnings(caplog)) == (0, [])


def test_keys_that_visitors_type_fill_neither_memory_nor_log(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_features, "_REPORTED_AT_MOST", 3)
    e = get_entitlements(subscriber_with("sso"))
    for number in range(10):
        assert e[f"typed{number}"] is False
    assert len(warnings(caplog)) == 3


@pytest.mark.parametrize("function", ["finds", "finds_async"])
def test_what_a_request_asks_in_the_loop_is_read_ahead(function: str, caplog: Any, settings: Any) -> None:
    subscriber_with("sso")
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.{function}"
    request = RequestFactory().get("/")

    async def view() -> bool:
        return (await aget_request_entitlements(request))["typo"]

    assert async_to_sync(view)() is False
    assert len(warnings(caplog)) == 1


def finds(request: Any) -> Any:
    return None


async def finds_async(request: Any) -> Any:
    return None


def test_any_reports_each_unknown_key_and_keeps_the_answer(caplog: Any) -> None:
    e = get_entitlements(subscriber_with("sso"))
    assert e.has_any("typo", "sso", "other") is True
    assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("policy", ["warn", "raise"])
def test_an_empty_catalogue_is_quiet(policy: str, caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = policy
    assert get_entitlements(make_subscriber()).anything is False
    assert not warnings(caplog)


@pytest.mark.parametrize("policy", ["warn", "raise"])
def test_a_known_key_that_is_not_held_is_quiet(policy: str, caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = policy
    subscriber_with("sso")
    assert get_entitlements(make_subscriber()).sso is False
    assert not warnings(caplog)


def test_a_feature_of_the_other_mode_or_of_another_account_is_not_known(caplog: Any) -> None:
    subscriber_with("sso")
    Feature.objects.create(stripe_id="feat_live", lookup_key="live_only", livemode=True)
    Feature.objects.create(stripe_id="feat_theirs", lookup_key="theirs", livemode=False, account="acct_1")
    e = get_entitlements(make_subscriber())
    assert e.live_only is e.theirs is False
    assert len(warnings(caplog)) == 2


def queries_of(ask: Any) -> int:
    with CaptureQueriesContext(connection) as queries:
        ask()
    return len(queries)


def test_known_keys_are_held_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    e = get_entitlements(subscriber_with("sso"))
    subscriber_with("audit", "export")
    assert queries_of(lambda: e.sso) == 0, "what is held needs no catalogue"
    assert [queries_of(lambda: e.audit), queries_of(lambda: e.export), queries_of(lambda: e.audit)] == [1, 0, 0]
    monkeypatch.setattr(known_features, "HOLD_SECONDS", 0)
    assert queries_of(lambda: e.export) == 1


@pytest.mark.parametrize("policy", ["warn", "raise"])
def test_a_feature_made_a_moment_ago_is_known(policy: str, caplog: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = policy
    subscriber_with("sso")
    subscriber = make_subscriber()
    assert get_entitlements(subscriber).sso is False
    Feature.objects.create(stripe_id="feat_new", lookup_key="brand_new", livemode=False)
    assert get_entitlements(subscriber).brand_new is False
    Feature.objects.create(stripe_id="feat_newer", lookup_key="newer", livemode=False)
    if policy == "raise":  # in an event loop there is no second look
        assert async_to_sync(ask_in_the_loop)(subscriber, "newer") is False
    assert not warnings(caplog)


async def ask_in_the_loop(subscriber: Any, key: str) -> bool:
    return (await aget_entitlements(subscriber))[key]


def test_async_code_is_told_as_well(caplog: Any, settings: Any) -> None:
    subscriber = subscriber_with("sso")
    assert async_to_sync(ask_in_the_loop)(subscriber, "typo") is False
    assert async_to_sync(ahas_entitlement)(subscriber, "other_typo") is False
    assert len(warnings(caplog)) == 2
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    with pytest.raises(UnknownFeature):
        async_to_sync(ask_in_the_loop)(subscriber, "typo")
    with pytest.raises(UnknownFeature):
        async_to_sync(ahas_entitlement)(subscriber, "typo")


TEMPLATES = {
    "{{ request.entitlements.typo }}": True,
    "{% if request.entitlements.typo %}{% endif %}": True,
    '{% load entitlements %}{% entitled "typo" %}{% endentitled %}': True,
    '{% load entitlements %}{% if subscriber|entitled_to:"typo" %}{% endif %}': True,
    # Django's operators swallow whatever is raised in them; the log has it.
    "{% if not request.entitlements.typo %}open{% endif %}": False,
    "{% if request.entitlements.typo or request.entitlements.typo %}open{% endif %}": False,
}


@pytest.mark.parametrize(("source", "passes"), TEMPLATES.items())
def test_in_a_template_the_error_passes_or_is_logged(source: str, passes: bool, caplog: Any, settings: Any) -> None:
    from django.template import engines

    from entitlements_app.request_entitlements import get_request_entitlements

    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    subscriber = subscriber_with("sso")
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber)
    request.entitlements = get_request_entitlements(request)  # type: ignore[attr-defined]
    template = engines["django"].from_string(source)
    if passes:
        with pytest.raises(UnknownFeature):
            template.render({"subscriber": subscriber}, request)
    else:
        assert template.render({"subscriber": subscriber}, request) == ""
    assert warnings(caplog)


@over_both
@pytest.mark.parametrize("gate", ["/guarding/decorated/", "/guarding/mixin-async/", "/permissions/code/"])
def test_a_gate_on_an_unknown_key_raises_and_opens_nothing(served_by: Any, gate: str, settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    subscriber_with("sso")
    with pytest.raises(UnknownFeature):
        served_by.get(gate, unlinked())


@pytest.mark.django_db(transaction=True)
def test_a_catalogue_that_cannot_be_read_does_not_break_an_answer(caplog: Any) -> None:
    e = get_entitlements(subscriber_with("sso"))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE entitlements_app_feature RENAME TO out_of_the_way")
    try:
        assert (e.sso, e.typo) == (True, False)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE out_of_the_way RENAME TO entitlements_app_feature")
    assert not warnings(caplog)


def test_a_wrong_policy_is_an_error_where_it_would_matter(settings: Any) -> None:
    from django.core.exceptions import ImproperlyConfigured

    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "loud"
    e = get_entitlements(subscriber_with("sso"))
    assert e.sso
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_UNKNOWN_FEATURE"):
        e.typo  # noqa: B018


def test_a_page_may_ask_for_what_nobody_knows_yet(caplog: Any) -> None:
    """The site is deployed before anything is set up in Stripe."""
    assert Sync().get("/saying/attribute/", unlinked()).content == b"closed"
    assert not warnings(caplog)


def test_a_request_that_asks_again_is_told_again(settings: Any) -> None:
    settings.ENTITLEMENTS_UNKNOWN_FEATURE = "raise"
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber_with("sso"))
    entitlements = get_request_entitlements(request)
    assert entitlements.sso is entitlements.sso is True
    for _ in range(2):
        with pytest.raises(UnknownFeature):
            entitlements["typo"]
        with pytest.raises(TypeError, match="A lookup key is a text"):
            entitlements[["sso"]]
