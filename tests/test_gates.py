"""One table of visitors over every gate: all spellings say the same."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, SynchronousOnlyOperation
from django.http import HttpResponse
from django.template import Context, RequestContext, Template, TemplateSyntaxError, engines
from django.template.loader_tags import BlockNode
from django.test import RequestFactory
from django.urls import path, resolve, reverse
from django.utils.decorators import method_decorator
from django.utils.safestring import SafeString
from django.views import View

from entitlements_app.access import get_entitlements, has_entitlement
from entitlements_app.backends import EntitlementsBackend, _say_once_what_is_asked_for
from entitlements_app.decorators import entitlement_required
from entitlements_app.exceptions import EntitlementMissing
from entitlements_app.middleware import EntitlementsMiddleware
from entitlements_app.mixins import EntitlementRequiredMixin
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of
from tests.testapp import gates
from tests.testapp.gates import GUARDING, KEY, PERMISSIONS, SAYING
from tests.visitors import (
    Who,
    deactivated,
    entitled,
    every_visitor,
    over_both,
    passed,
    said,
    stranger,
    subscriber_with,
    superuser,
    unlinked,
)

pytestmark = pytest.mark.django_db
has_jinja = "jinja2" in [engine.name for engine in engines.all()]


# One visitor goes to every gate: who comes takes longer to make than a request.


@over_both
@every_visitor
def test_a_gate_before_a_view(served_by: Any, who: Who, outcome: str) -> None:
    visitor = who()
    responses = {gate: served_by.get(gate, visitor) for gate in GUARDING}
    statuses = {gate: response.status_code for gate, response in responses.items()}
    assert statuses == dict.fromkeys(GUARDING, {"open": 200, "denied": 403, "login": 302}[outcome])
    if outcome == "login":
        locations = {gate: response.headers["Location"] for gate, response in responses.items()}
        assert locations == {gate: f"/login/?next={gate}" for gate in GUARDING}


@over_both
@every_visitor
def test_a_page_that_asks(served_by: Any, who: Who, outcome: str) -> None:
    visitor = who()
    assert {gate: served_by.get(gate, visitor).content.decode() for gate in SAYING} == said(outcome == "open")


@over_both
@every_visitor
def test_a_permission(served_by: Any, who: Who, outcome: str) -> None:
    visitor = who()
    answers = {gate: passed(served_by.get(gate, visitor)) for gate in PERMISSIONS}
    assert answers == dict.fromkeys(PERMISSIONS, outcome == "open" or who is superuser)


@pytest.mark.parametrize(
    ("keys", "both", "either"),
    [
        (("premium_support", "sso"), True, True),
        (("sso",), False, True),
        (("premium_support",), False, True),
        (("x",), False, False),
    ],
)
def test_all_keys_or_any_of_them(keys: tuple[str, ...], both: bool, either: bool) -> None:
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber_with(*keys))

    class NeedsBoth(EntitlementRequiredMixin, View):
        entitlement_required = (KEY, "sso")
        raise_exception = True

        def get(self, request: Any) -> HttpResponse:
            return HttpResponse()

    class NeedsEither(NeedsBoth):
        entitlement_any = True

    def passes(view: Callable[..., HttpResponse]) -> bool:
        try:
            return view(request).status_code == 200
        except PermissionDenied:
            return False

    def page(request: Any) -> HttpResponse:
        return HttpResponse()

    spelt = [
        (entitlement_required(KEY, "sso")(page), entitlement_required(KEY, "sso", any=True)(page)),
        (NeedsBoth.as_view(), NeedsEither.as_view()),
    ]
    for needs_both, needs_either in spelt:
        assert (passes(needs_both), passes(needs_either)) == (both, either)
    blocks = [("django", '{% load entitlements %}{% entitled "premium_support" "sso"', " ")]
    if has_jinja:
        blocks.append(("jinja2", '{% entitled "premium_support", "sso"', ", "))
    for engine, start, divider in blocks:
        source = start + " %}both{% endentitled %}" + start + divider + "any=True %}either{% endentitled %}"
        expected = both * "both" + either * "either"
        assert engines[engine].from_string(source).render({"request": request}, request) == expected


BAD = [(), ("",), ("a", ""), (["a"],), (("a", "b"),), (None,), (1,), (b"a",), (lambda request: request,)]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_key_is_a_type_error_in_each_spelling(bad: tuple[Any, ...]) -> None:
    """`test_access` has those of an answer."""
    with pytest.raises(TypeError):
        entitlement_required(*bad)
    for engine, divider in [("django", " "), ("jinja2", ", ")][: 1 + has_jinja]:
        load = "{% load entitlements %}" if engine == "django" else ""
        source = load + "{% entitled " + divider.join(f"k{n}" for n in range(len(bad))) + " %}{% endentitled %}"
        context = {f"k{n}": (lambda: None) if callable(key) else key for n, key in enumerate(bad)}
        with pytest.raises(TypeError):
            engines[engine].from_string(source).render(context, RequestFactory().get("/"))
        if len(bad) == 1:
            spelt = ["s|entitled_to:k"] if engine == "django" else ["s|entitled_to(k)", "s is entitled_to(k)"]
            for expression in spelt:
                template = engines[engine].from_string(load + "{% if " + expression + " %}{% endif %}")
                with pytest.raises(TypeError):
                    template.render({"s": make_subscriber(), "k": context["k0"]})


class Key(str, enum.Enum):  # noqa: UP042  (whose `str()` is not its value)
    """As sites keep their lookup keys."""

    PREMIUM = "premium_support"
    SSO = "sso"


@pytest.mark.parametrize("key", [Key.PREMIUM, SafeString(KEY)])
def test_a_key_may_be_a_text_of_a_class_of_its_own(key: str) -> None:
    subscriber = subscriber_with(KEY)
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber)
    e = get_entitlements(subscriber)
    assert e[key] and key in e and e.has_all(key) and e.has_any(key) and has_entitlement(subscriber, key)  # noqa: PT018
    assert gates.Gated.as_view(entitlement_required=key)(request).status_code == 200
    block = engines["django"].from_string("{% load entitlements %}{% entitled k %}open{% endentitled %}")
    assert block.render({"k": key}, request) == "open"


def test_a_missing_key_that_is_a_member_of_an_enum_is_named_as_stripe_does() -> None:
    request = RequestFactory().get("/")
    request.user = unlinked()
    with pytest.raises(EntitlementMissing, match=r"^Missing entitlement: sso\.$") as caught:
        entitlement_required(Key.SSO)(gates.plain)(request)
    assert [type(key) for key in caught.value.missing] == [str]


@pytest.mark.parametrize("either", ["sso", 1, None])
def test_any_is_true_or_false_and_no_further_key(either: Any) -> None:
    with pytest.raises(TypeError, match="any is True or False"):
        entitlement_required(KEY, any=either)
    request = RequestFactory().get("/")
    request.user = entitled()
    with pytest.raises(TypeError, match="any is True or False"):
        gates.Gated.as_view(entitlement_any=either)(request)
    for engine, divider in [("django", " "), ("jinja2", ", ")][: 1 + has_jinja]:
        load = "{% load entitlements %}" if engine == "django" else ""
        source = load + '{% entitled "premium_support"' + divider + "any=either %}{% endentitled %}"
        with pytest.raises(TypeError, match="any is True or False"):
            engines[engine].from_string(source).render({"either": either}, request)


def test_a_bare_decorator_says_what_it_needs() -> None:
    with pytest.raises(TypeError, match=r"needs a lookup key: @entitlement_required"):
        entitlement_required(gates.plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("declared", ["", (), [KEY], ("",), (KEY, None), {KEY}, 5])
def test_a_class_that_declares_no_key_is_both_a_type_error_and_a_configuration_error(declared: Any) -> None:
    for error in (TypeError, ImproperlyConfigured):
        with pytest.raises(error, match=r"Gated.*entitlement_required"):
            gates.Gated.as_view(entitlement_required=declared)(RequestFactory().get("/"))


def test_a_class_that_declares_nothing_is_a_configuration_error() -> None:
    class Forgotten(EntitlementRequiredMixin, View):
        pass

    with pytest.raises(ImproperlyConfigured, match="Forgotten is gated and does not say on what"):
        Forgotten.as_view()(RequestFactory().get("/"))


@pytest.mark.parametrize("target", [gates.Plain, [path("", gates.plain)], "tests.urls", None])
def test_the_decorator_goes_on_views_and_includes_only(target: Any) -> None:
    with pytest.raises(TypeError, match="EntitlementRequiredMixin"):
        entitlement_required(KEY)(target)


def test_the_decorator_keeps_the_view_s_name_and_marks() -> None:
    assert (gates.decorated.__name__, gates.decorated_async.__name__) == ("decorated", "decorated_async")
    assert resolve("/guarding/include/class/7/").func.view_class is gates.Plain


def test_a_gated_include_keeps_its_names_and_arguments() -> None:
    assert reverse("gated:class", args=[7]) == "/guarding/include/class/7/"
    assert reverse("gated:deep:function", kwargs={"year": "2026"}) == "/guarding/include/deeper/2026/function/"
    match = resolve("/guarding/include/class/7/")
    assert (match.app_names, match.namespaces, match.kwargs) == (["shop"], ["gated"], {"number": 7})


def test_the_decorator_works_without_the_middleware() -> None:
    request = RequestFactory().get("/")
    request.user = entitled()
    assert entitlement_required(KEY)(lambda request: HttpResponse())(request).status_code == 200
    with pytest.raises(PermissionDenied):
        entitlement_required("sso")(lambda request: HttpResponse())(request)


@pytest.mark.skipif(not BY_ORGANISATION, reason="about a site's own function")
@over_both
@pytest.mark.parametrize("function", ["organisation_of", "organisation_of_async"])
def test_the_site_s_function_may_be_sync_or_async(served_by: Any, function: str, settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"tests.testapp.views.{function}"
    payer, other = entitled(), unlinked()
    statuses = {gate: [served_by.get(gate, who).status_code for who in (payer, other)] for gate in GUARDING}
    assert statuses == {gate: [200, 403] for gate in GUARDING}


@over_both
def test_a_view_that_does_not_ask_costs_no_query(served_by: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert served_by.get("/plain/", None).status_code == 200


# --- templates


def test_the_block_needs_the_request() -> None:
    source = '{% load entitlements %}{% entitled "sso" %}open{% endentitled %}'
    with pytest.raises(ImproperlyConfigured, match="render the template with one"):
        Template(source).render(Context())
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber_with("sso"))
    assert Template(source).render(RequestContext(request)) == "open"
    assert Template(source).render(Context({"request": request})) == "open"
    if has_jinja:
        with pytest.raises(ImproperlyConfigured, match="with context"):
            engines["jinja2"].from_string('{% entitled "sso" %}{% endentitled %}').render({})


@pytest.mark.parametrize("tag", ['entitled "sso" anyof=True', 'entitled "sso" any=True all=True'])
def test_the_block_refuses_other_arguments(tag: str) -> None:
    with pytest.raises(TemplateSyntaxError, match="any=True"):
        Template("{% load entitlements %}{% " + tag + " %}{% endentitled %}")


@pytest.mark.skipif(not has_jinja, reason="the environment without extras")
def test_jinja_keys_without_a_comma_are_refused_because_jinja_would_join_them() -> None:
    with pytest.raises(Exception, match="comma between"):
        engines["jinja2"].from_string('{% entitled "premium" "_support" %}open{% endentitled %}')


def test_blocks_can_be_nested_and_extended() -> None:
    request = RequestFactory().get("/")
    request.user = visitor_of(subscriber_with("a"))
    source = (
        '{% load entitlements %}{% entitled "a" %}a{% entitled "b" %}b{% else %}-{% block x %}x{% endblock %}'
        '{% endentitled %}{% else %}{% entitled "b" %}b{% endentitled %}{% endentitled %}'
    )
    assert engines["django"].from_string(source).render({}, request) == "a-x"


def test_tools_see_what_is_inside_a_block() -> None:
    """As those that look for blocks, translations or cached fragments in a template."""
    inside = '{% entitled "a" %}{% block x %}{% endblock %}{% else %}{% block y %}{% endblock %}{% endentitled %}'
    found = Template("{% load entitlements %}" + inside).nodelist.get_nodes_by_type(BlockNode)
    assert [node.name for node in found] == ["x", "y"]


def test_a_part_that_is_included_with_nothing_still_knows_the_visitor() -> None:
    part = engines["django"].from_string(gates.DJANGO["block"]).template
    request = RequestFactory().get("/")
    request.user = entitled()
    whole = engines["django"].from_string("{% include part only %}")
    assert whole.render({"part": part}, request) == "open"


# --- permissions


def permission(user: User | AnonymousUser, key: str, subscriber: Any) -> bool:
    return user.has_perm(f"entitlements.{key}", subscriber if BY_ORGANISATION else None)


def test_a_permission_is_split_at_the_first_dot_and_compared_exactly() -> None:
    subscriber = subscriber_with("api.v2", "change_user")
    user = visitor_of(subscriber)
    assert permission(user, "api.v2", subscriber)
    assert not permission(user, "api", subscriber)
    assert not permission(user, "API.v2", subscriber)
    assert not user.has_perm("auth.change_user"), "a lookup key is no permission of another app"
    assert not user.has_perm("entitlements_app.api.v2")


def test_a_permission_without_a_key_is_a_type_error() -> None:
    user = stranger()
    for perm in ("entitlements.", "entitlements"):
        with pytest.raises(TypeError, match="after the dot"):
            user.has_perm(perm)


@pytest.mark.parametrize("perm", [None, 5, ("entitlements.a",), b"entitlements.a"])
def test_a_permission_that_is_no_text_is_a_type_error(perm: Any) -> None:
    user = stranger()
    for ask in (user.has_perm, async_to_sync(user.ahas_perm)):
        with pytest.raises(TypeError, match="A permission is a text"):
            ask(perm)


def test_inactive_and_anonymous_users_have_no_permission() -> None:
    subscriber = subscriber_with(KEY)
    user = visitor_of(subscriber)
    assert permission(user, KEY, subscriber)
    user.is_active = False
    assert not permission(user, KEY, subscriber)
    assert not permission(AnonymousUser(), KEY, subscriber)
    backend = EntitlementsBackend()
    assert backend.get_all_permissions(user, subscriber) == set()


@pytest.mark.skipif(BY_ORGANISATION, reason="about users who pay for themselves")
def test_what_another_user_pays_for_is_nobody_else_s_permission() -> None:
    payer, other = entitled(), unlinked()
    assert payer.has_perm(f"entitlements.{KEY}", payer)
    assert not other.has_perm(f"entitlements.{KEY}", payer)
    assert other.get_all_permissions(payer) == set()


@pytest.mark.skipif(BY_ORGANISATION, reason="about users who pay for themselves")
def test_permissions_are_listed_and_each_module_is_told() -> None:
    user = visitor_of(subscriber_with("a", "b"))
    assert user.get_all_permissions() == {"entitlements.a", "entitlements.b"}
    assert user.has_module_perms("entitlements")
    assert not user.has_module_perms("auth")
    assert not unlinked().has_module_perms("entitlements")
    assert async_to_sync(user.ahas_module_perms)("entitlements")
    assert async_to_sync(user.aget_all_permissions)() == {"entitlements.a", "entitlements.b"}
    source = "{% if perms.entitlements.a %}a{% endif %}{% if perms.entitlements.c %}c{% endif %}"
    request = RequestFactory().get("/")
    request.user = user
    assert engines["django"].from_string(source).render({}, request) == "a"
    assert "entitlements.a" not in deactivated().get_all_permissions()


@pytest.mark.skipif(not BY_ORGANISATION, reason="about another subscriber than the user")
def test_a_permission_about_no_organisation_is_denied_and_logged_once(caplog: Any) -> None:
    request = RequestFactory().get("/")
    request.user = entitled()
    _say_once_what_is_asked_for.cache_clear()
    assert not request.user.has_perm(f"entitlements.{KEY}")
    source = "{% if perms.entitlements.premium_support %}open{% else %}closed{% endif %}"
    assert engines["django"].from_string(source).render({}, request) == "closed"
    assert [record.getMessage().count("Pass the subscriber") for record in caplog.records] == [1]
    assert not request.user.get_all_permissions()


def test_a_permission_about_something_else_is_an_error() -> None:
    user = entitled()
    with pytest.raises(TypeError, match="Expected an instance of"):
        user.has_perm(f"entitlements.{KEY}", object())
    assert user.get_all_permissions(object()) == set()


# --- async


def test_a_site_that_allows_queries_in_the_loop_may_ask_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter. Of nobody, without a query: the loop's thread would open a connection that no test closes."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

    async def ask() -> list[str]:
        return list(get_entitlements(None))

    assert async_to_sync(ask)() == []


def test_the_sync_spelling_inside_an_event_loop_names_the_remedy() -> None:
    request = RequestFactory().get("/")
    request.user = entitled()
    EntitlementsMiddleware(lambda request: HttpResponse())(request)

    async def ask(remedy: str, how: Callable[[], Any]) -> None:
        with pytest.raises(SynchronousOnlyOperation, match=remedy):
            how()

    @method_decorator(entitlement_required(KEY), name="dispatch")
    class DecoratedAsync(gates.PlainAsync):
        pass

    block = engines["django"].from_string(gates.DJANGO["block"])
    attribute = engines["django"].from_string(gates.DJANGO["attribute"])
    for remedy, how in [
        (r"await request.aentitlements\(\)", lambda: request.entitlements.sso),
        (r"await request.aentitlements\(\)", lambda: block.render({}, request)),
        (r"await request.aentitlements\(\)", lambda: attribute.render({}, request)),
        (r"await request.aentitlements\(\)", lambda: gates.decorated(request)),
        ("EntitlementRequiredMixin", lambda: DecoratedAsync.as_view()(request)),
        (r"await aget_entitlements", lambda: get_entitlements(request.user)),
        (r"await ahas_entitlement", lambda: has_entitlement(request.user, "sso")),
    ]:
        async_to_sync(ask)(remedy, how)
