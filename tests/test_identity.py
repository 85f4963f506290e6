"""Whose answer it is: one request may see several users, and none gets another's answer."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.test import Client, RequestFactory
from django.utils.functional import SimpleLazyObject
from django.views import View

from entitlements_app.access import ahas_entitlement, get_entitlements, has_entitlement
from entitlements_app.middleware import EntitlementsMiddleware
from tests.rows import BY_ORGANISATION, make_subscriber, visitor_of
from tests.testapp import gates
from tests.testapp.gates import KEY
from tests.testapp.models import Member, Organisation, Staffer
from tests.visitors import entitled, every_visitor, subscriber_with, unlinked

pytestmark = pytest.mark.django_db


def request_of(user: Any) -> Any:
    request = RequestFactory().get("/")
    request.user = user
    EntitlementsMiddleware(answers_nothing)(request)
    return request


def answers_nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def test_impersonation_in_the_middle_of_a_request_is_asked_about_again() -> None:
    payer, other = entitled(), unlinked()
    request = request_of(payer)
    assert request.entitlements[KEY]
    request.user = other
    assert not request.entitlements[KEY]
    request.user = AnonymousUser()
    assert not request.entitlements[KEY]
    request.user = payer
    assert request.entitlements[KEY]


def test_the_memo_is_bound_to_the_object_and_not_to_its_number(django_assert_num_queries: Any) -> None:
    payer = entitled()
    request = request_of(payer)
    assert request.entitlements[KEY]
    request.user = User.objects.get(pk=payer.pk)
    with django_assert_num_queries(2 if BY_ORGANISATION else 1):
        assert request.entitlements[KEY]


def test_an_answer_that_was_awaited_is_not_another_user_s() -> None:
    """`request.user` is replaced while the look-up waits for the database."""
    payer, other = entitled(), unlinked()

    async def story() -> tuple[bool, bool]:
        request = request_of(payer)
        payers = await request.aentitlements()
        request.user = other
        return payers[KEY], (await request.aentitlements())[KEY]

    assert async_to_sync(story)() == (True, False)


def test_a_user_replaced_during_the_look_up_does_not_get_the_answer(settings: Any) -> None:
    payer, other = entitled(), unlinked()
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.replaces_the_user"
    request = request_of(payer)
    request.replacement = other
    assert request.entitlements[KEY], "asked for the payer, answered for the payer"
    assert not request.entitlements[KEY], "and asked again for the other"


def replaces_the_user(request: Any) -> Any:
    subscriber = gates.subscriber_of(request)
    if hasattr(request, "replacement"):
        request.user = request.replacement
        del request.replacement
    return subscriber


def test_an_async_gate_asks_the_request_s_user_and_not_the_session_s() -> None:
    """As after impersonation by a middleware that replaced `request.user` only."""
    request = RequestFactory().get("/")
    request.user = unlinked()
    with pytest.raises(PermissionDenied):
        async_to_sync(gates.decorated_async)(request)
    request.user = AnonymousUser()
    assert async_to_sync(gates.decorated_async)(request).status_code == 302


@pytest.mark.skipif(BY_ORGANISATION, reason="about the default subscriber, the user")
def test_a_user_there_for_a_moment_is_not_whom_the_answer_is_about() -> None:
    """Impersonation begins and ends while an async look-up waits for its thread."""
    payer, other = entitled(), unlinked()

    async def story() -> tuple[bool, bool]:
        request = request_of(other)
        asking = asyncio.ensure_future(request.aentitlements())
        await asyncio.sleep(0)  # it has begun
        request.user = payer
        await sync_to_async(lambda: None)()  # its thread has looked
        request.user = other
        return (await asking)[KEY], (await request.aentitlements())[KEY]

    assert async_to_sync(story)() == (False, False)


@pytest.mark.skipif(BY_ORGANISATION, reason="about the default subscriber, the user")
@pytest.mark.parametrize(
    "view", [gates.decorated, gates.decorated_async, gates.Gated.as_view(), gates.GatedAsync.as_view()]
)
def test_a_request_without_any_user_is_an_anonymous_visitor_s(view: Any) -> None:
    answer = async_to_sync(view) if iscoroutinefunction(view) else view
    assert answer(RequestFactory().get("/")).headers["Location"] == "/login/?next=/"


def test_a_lazy_user_is_the_user() -> None:
    payer = subscriber_with(KEY)
    assert has_entitlement(SimpleLazyObject(lambda: payer), KEY)
    assert async_to_sync(ahas_entitlement)(SimpleLazyObject(lambda: payer), KEY)


@pytest.mark.skipif(BY_ORGANISATION, reason="about users who pay for themselves")
def test_a_user_kept_signed_in_although_inactive_holds_nothing(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    user = entitled()
    User.objects.filter(pk=user.pk).update(is_active=False)
    client = Client()
    client.force_login(user)
    assert client.get("/saying/attribute/").content == b"closed"
    assert client.get("/guarding/decorated/").status_code == 403
    assert client.get("/guarding/mixin/").status_code == 403


def test_an_unsaved_instance_is_nobody_whatever_number_it_was_given() -> None:
    payer = subscriber_with(KEY)
    assert not has_entitlement(type(payer)(pk=payer.pk), KEY)


@pytest.mark.skipif(BY_ORGANISATION, reason="about users who pay for themselves")
def test_a_proxy_as_the_subscriber_s_model_is_the_model_behind_it(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "testapp.Member"
    payer = entitled()
    assert has_entitlement(payer, KEY)
    assert has_entitlement(Member.objects.get(pk=payer.pk), KEY)


# --- copies of a request


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda request: pickle.loads(pickle.dumps(request))])
def test_a_deep_copy_answers_for_its_own_user(copied: Any) -> None:
    """As for a task queue, or a page that is rendered once more."""
    payer, other = entitled(), unlinked()
    request = RequestFactory().get("/")
    request.user = payer
    request.environ = request.META = {"SERVER_NAME": "testserver"}  # what of it can be copied
    EntitlementsMiddleware(answers_nothing)(request)
    request.entitlements  # noqa: B018
    twin = copied(request)
    assert twin.entitlements[KEY]
    twin.user = other
    assert not twin.entitlements[KEY]
    assert request.entitlements[KEY]


def test_a_shallow_copy_is_its_own_for_gates_and_behind_the_middleware() -> None:
    payer, other = entitled(), unlinked()
    request = request_of(payer)
    assert request.entitlements[KEY]
    twin = copy.copy(request)
    twin.user = other
    with pytest.raises(PermissionDenied):
        gates.decorated(twin)
    block = engines["django"].from_string(gates.DJANGO["block"])
    assert block.render({}, twin) == "closed"
    EntitlementsMiddleware(answers_nothing)(twin)
    assert not twin.entitlements[KEY]
    assert request.entitlements[KEY]


# --- what is no request


class SupportRequest:
    """A row of the site that has a user, too."""

    def __init__(self, user: Any) -> None:
        self.user = user


def test_a_variable_that_took_the_request_s_name_is_not_asked_about() -> None:
    ticket = SupportRequest(entitled())
    request = request_of(unlinked())
    source = '{% load entitlements %}{% for request in tickets %}{% entitled "premium_support" %}open{% endentitled %}'
    template = engines["django"].from_string(source + "{% endfor %}")
    assert template.render({"tickets": [ticket]}, request) == ""
    with pytest.raises(TypeError, match="needs the request, and got SupportRequest"):
        template.render({"tickets": [ticket]})
    if "jinja2" in [engine.name for engine in engines.all()]:
        source = '{% set request = tickets[0] %}{% entitled "premium_support" %}open{% endentitled %}'
        with pytest.raises(TypeError, match="give what is called `request` there another name"):
            engines["jinja2"].from_string(source).render({"tickets": [ticket]}, request)


@pytest.mark.parametrize("handler", [gates.decorated, gates.decorated_async])
def test_a_decorator_on_a_method_says_what_to_use(handler: Any) -> None:
    class Page(View):
        user = None
        get = handler

    view = Page()
    view.user = entitled()  # type: ignore[assignment]
    ask = async_to_sync(view.get) if iscoroutinefunction(handler) else view.get
    with pytest.raises(TypeError, match=r"got Page\..*EntitlementRequiredMixin"):
        ask(request_of(unlinked()))


# --- an instance of another model


def with_the_number_of(payer: Any) -> list[Any]:
    """Instances of other models that have the payer's primary key."""
    if BY_ORGANISATION:
        return [User(pk=1), Group(pk=1), payer.pk, str(payer.pk), object()]
    return [Group(pk=payer.pk), Organisation(pk=payer.pk), payer.pk, str(payer.pk), object()]


def test_another_model_s_instance_is_an_error_and_no_look_up_by_its_number() -> None:
    payer = subscriber_with(KEY)
    source = "{% load entitlements %}{% if other|entitled_to:'premium_support' %}open{% endif %}"
    for other in with_the_number_of(payer):
        with pytest.raises(TypeError, match="ENTITLEMENTS_SUBSCRIBER_MODEL"):
            get_entitlements(other)
        with pytest.raises(TypeError):
            async_to_sync(ahas_entitlement)(other, KEY)
        template = engines["django"].from_string(source)
        with pytest.raises(TypeError):
            template.render({"other": other})


@pytest.mark.skipif(BY_ORGANISATION, reason="about a model that inherits from the subscriber's")
def test_a_model_that_inherits_is_the_same_subscriber_whatever_its_own_number() -> None:
    payer = entitled()
    staffer = Staffer(user_ptr=payer, number=payer.pk + 1)
    staffer.save_base(raw=True)
    assert has_entitlement(Staffer.objects.get(number=staffer.number), KEY)
    stranger = Staffer.objects.create(username="other", number=payer.pk)
    assert not has_entitlement(stranger, KEY)


SAYING_WRONGLY = {
    "another model": lambda request: Group(pk=request.user.pk),
    "a number": lambda request: request.user.pk,
    "no attribute": lambda request: request.organisation,
    "no key": lambda request: {}["organisation"],
    "no row": lambda request: Organisation.objects.get(name="nowhere"),
}


def says_wrongly(request: HttpRequest) -> Any:
    return SAYING_WRONGLY[request.headers["X-Wrongly"]](request)


async def says_wrongly_async(request: HttpRequest) -> Any:
    return await sync_to_async(says_wrongly)(request)


@pytest.mark.parametrize("function", [says_wrongly, says_wrongly_async])
@pytest.mark.parametrize("wrongly", SAYING_WRONGLY)
@pytest.mark.parametrize("gate", ["/saying/django/attribute/", "/saying/django-async/block/", "/guarding/mixin/"])
def test_a_site_s_function_that_fails_is_an_error_also_where_templates_swallow_errors(
    gate: str, wrongly: str, function: Any, settings: Any
) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.{function.__name__}"
    client = Client()
    client.force_login(entitled())
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST") as caught:
        client.get(gate, headers={"X-Wrongly": wrongly})
    assert isinstance(caught.value.__cause__, (TypeError, AttributeError, LookupError, ObjectDoesNotExist))


def refuses(request: HttpRequest) -> Any:
    raise Http404("No such organisation.")


def test_what_the_site_s_function_raises_for_django_goes_on_to_django(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.refuses"
    assert Client().get("/guarding/decorated/").status_code == 404


@pytest.mark.skipif(not BY_ORGANISATION, reason="about another subscriber than the user")
@every_visitor
def test_without_the_site_s_function_a_signed_in_user_is_an_error(who: Any, outcome: str, settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = None
    client = Client()
    user = who()
    if user:
        client.force_login(user)
    if outcome == "login":
        assert client.get("/saying/attribute/").content == b"closed"
    else:
        with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST"):
            client.get("/saying/attribute/")


def test_two_organisations_of_one_user_are_told_apart_by_the_site_s_function(settings: Any) -> None:
    if not BY_ORGANISATION:
        pytest.skip("about another subscriber than the user")
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.organisation_in_header"
    paying, other = subscriber_with(KEY), make_subscriber()
    user = visitor_of(paying)
    other.members.add(user)
    client = Client()
    client.force_login(user)
    for organisation, said in [(paying, b"open"), (other, b"closed"), (None, b"closed")]:
        name = organisation.name if organisation else "nowhere"
        assert client.get("/saying/attribute/", headers={"X-Organisation": name}).content == said


def organisation_in_header(request: HttpRequest) -> Any:
    return Organisation.objects.filter(members=request.user.pk, name=request.headers["X-Organisation"]).first()


def nobody_lazily(request: HttpRequest) -> Any:
    """As a middleware leaves the organisation on the request, to be looked up when it is needed."""
    return SimpleLazyObject(lambda: None)


def test_a_lazy_object_that_turns_out_to_be_none_is_nobody(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = f"{__name__}.nobody_lazily"
    assert not request_of(entitled()).entitlements[KEY]
    assert not has_entitlement(SimpleLazyObject(lambda: None), KEY)
