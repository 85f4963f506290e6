"""One gate in every spelling, in groups by how they answer. Each asks for the same lookup key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.mixins import PermissionRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View

from entitlements_app.access import aget_entitlements, ahas_entitlement, get_entitlements, has_entitlement
from entitlements_app.decorators import entitlement_required
from entitlements_app.mixins import EntitlementRequiredMixin

from .views import organisation_of

KEY = "premium_support"
BY_ORGANISATION = settings.SUBSCRIBER == "organisation"


def subscriber_of(request: HttpRequest) -> Any:
    return organisation_of(request) if BY_ORGANISATION else request.user


# --- guarding: anonymous visitors go to login, others get 403


@entitlement_required(KEY)
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@entitlement_required(KEY)
async def decorated_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


class Gated(EntitlementRequiredMixin, View):
    entitlement_required: Any = KEY

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("open")


class GatedAsync(EntitlementRequiredMixin, View):
    entitlement_required = KEY

    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("open")


class Plain(View):
    def get(self, request: HttpRequest, number: int = 0) -> HttpResponse:
        return HttpResponse("open")


class PlainAsync(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("open")


@method_decorator(entitlement_required(KEY), name="dispatch")
class MethodDecorated(Plain):
    pass


def plain(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("open")


async def plain_async(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("open")


deeper = ([path("function/", plain, name="function"), path("class/", Plain.as_view())], "deeper")
included = [
    path("function/", plain, name="plain"),
    path("function-async/", plain_async),
    path("class/<int:number>/", Plain.as_view(), name="class"),
    path("class-async/", PlainAsync.as_view()),
    re_path(r"^deeper/(?P<year>[0-9]{4})/", include(deeper, namespace="deep")),
]
urlconf = (included, "shop")

guarding = [
    path("decorated/", decorated),
    path("decorated-async/", decorated_async),
    path("mixin/", Gated.as_view()),
    path("mixin-async/", GatedAsync.as_view()),
    path("method-decorated/", MethodDecorated.as_view()),
    path("around-as-view/", entitlement_required(KEY)(Plain.as_view())),
    path("around-as-view-async/", entitlement_required(KEY)(PlainAsync.as_view())),
    path("include/", entitlement_required(KEY)(include(urlconf, namespace="gated"))),
]
GUARDING = [
    *[f"/guarding/{gate.pattern}" for gate in guarding[:-1]],
    *[f"/guarding/include/{rest}/" for rest in ("function", "function-async", "class/7", "class-async")],
    "/guarding/include/deeper/2026/function/",
]

# --- saying: a page that says open or closed

DJANGO = {
    "attribute": "{% if request.entitlements.premium_support %}open{% else %}closed{% endif %}",
    "negated": "{% if not request.entitlements.premium_support %}closed{% else %}open{% endif %}",
    "block": '{% load entitlements %}{% entitled "premium_support" %}open{% else %}closed{% endentitled %}',
    "block-alone": 'closed{% load entitlements %}{% entitled "premium_support" %} no, open{% endentitled %}',
}
DJANGO_FILTER = (
    '{% load entitlements %}{% if subscriber|entitled_to:"premium_support" %}open{% else %}closed{% endif %}'
)
PERMISSION = "{% if perms.entitlements.premium_support %}open{% else %}closed{% endif %}"
JINJA = {
    "attribute": "{% if request.entitlements.premium_support %}open{% else %}closed{% endif %}",
    "item": '{% if request.entitlements["premium_support"] %}open{% else %}closed{% endif %}',
    "in": '{% if "premium_support" in request.entitlements %}open{% else %}closed{% endif %}',
    "block": '{% entitled "premium_support" %}open{% else %}closed{% endentitled %}',
}
JINJA_ABOUT_A_SUBSCRIBER = {
    "filter": '{% if subscriber|entitled_to("premium_support") %}open{% else %}closed{% endif %}',
    "test": '{% if subscriber is entitled_to("premium_support") %}open{% else %}closed{% endif %}',
}


def says(answer: object) -> HttpResponse:
    return HttpResponse("open" if answer is True else "closed" if answer is False else repr(answer))


def rendered(engine: str, source: str) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        context = {"subscriber": subscriber_of(request)} if "subscriber" in source else {}
        return HttpResponse(engines[engine].from_string(source).render(context, request))

    return view


def rendered_async(engine: str, source: str) -> Callable[[HttpRequest], Any]:
    """The template is rendered inside the event loop: after the answer was awaited it asks no query."""

    async def view(request: HttpRequest) -> HttpResponse:
        await request.aentitlements()
        return HttpResponse(engines[engine].from_string(source).render({}, request))

    return view


async def in_async_code(request: HttpRequest) -> HttpResponse:
    entitlements = await request.aentitlements()
    assert entitlements[KEY] is request.entitlements[KEY]
    return says(entitlements.premium_support)


async def of_a_subscriber_async(request: HttpRequest) -> HttpResponse:
    return says((await aget_entitlements(await sync_to_async(subscriber_of)(request)))[KEY])


async def has_async(request: HttpRequest) -> HttpResponse:
    return says(await ahas_entitlement(await sync_to_async(subscriber_of)(request), KEY))


saying = [
    path("attribute/", lambda request: says(request.entitlements.premium_support)),
    path("item/", lambda request: says(request.entitlements[KEY])),
    path("in/", lambda request: says(KEY in request.entitlements)),
    path("has-all/", lambda request: says(request.entitlements.has_all(KEY))),
    path("has-any/", lambda request: says(request.entitlements.has_any(KEY, "zzz"))),
    path("async-code/", in_async_code),
    path("get/", lambda request: says(get_entitlements(subscriber_of(request))[KEY])),
    path("has/", lambda request: says(has_entitlement(subscriber_of(request), KEY))),
    path("get-async/", of_a_subscriber_async),
    path("has-async/", has_async),
    *[path(f"django/{name}/", rendered("django", source)) for name, source in DJANGO.items()],
    *[path(f"django-async/{name}/", rendered_async("django", source)) for name, source in DJANGO.items()],
    path("django/filter/", rendered("django", DJANGO_FILTER)),
]
if "jinja2" in [engine.name for engine in engines.all()]:
    saying += [
        *[path(f"jinja/{name}/", rendered("jinja2", source)) for name, source in JINJA.items()],
        *[path(f"jinja/{name}/", rendered("jinja2", source)) for name, source in JINJA_ABOUT_A_SUBSCRIBER.items()],
        *[path(f"jinja-async/{name}/", rendered_async("jinja2", source)) for name, source in JINJA.items()],
    ]
SAYING = [f"/saying/{gate.pattern}" for gate in saying]

# --- permissions: the same, and superusers pass, as everywhere in Django


def permitted(request: HttpRequest) -> HttpResponse:
    return says(request.user.has_perm(f"entitlements.{KEY}", subscriber_of(request) if BY_ORGANISATION else None))


async def permitted_async(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    subscriber = await sync_to_async(subscriber_of)(request) if BY_ORGANISATION else None
    return says(await user.ahas_perm(f"entitlements.{KEY}", subscriber))


@permission_required(f"entitlements.{KEY}", raise_exception=True)
def permission_decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@permission_required(f"entitlements.{KEY}", raise_exception=True)
async def permission_decorated_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


class PermissionGated(PermissionRequiredMixin, Plain):
    permission_required = f"entitlements.{KEY}"
    raise_exception = True


permissions = [path("code/", permitted), path("async-code/", permitted_async)]
if not BY_ORGANISATION:  # these pass no object
    permissions += [
        path("template/", rendered("django", PERMISSION)),
        path("decorated/", permission_decorated),
        path("decorated-async/", permission_decorated_async),
        path("mixin/", PermissionGated.as_view()),
    ]
PERMISSIONS = [f"/permissions/{gate.pattern}" for gate in permissions]

urlpatterns = [
    path("guarding/", include(guarding)),
    path("saying/", include(saying)),
    path("permissions/", include(permissions)),
]
if apps.is_installed("rest_framework"):
    urlpatterns.append(path("api/", include("tests.testapp.api")))
