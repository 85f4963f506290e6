from __future__ import annotations

from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from entitlements_app.decorators import entitlement_required
from entitlements_app.mixins import EntitlementRequiredMixin

from . import keys
from .gates import paid


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("page")


def logged(view: Any) -> Any:
    @wraps(view)
    def logging(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return logging


@logged
@entitlement_required("decorator")
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@entitlement_required("decorator_any_1", "decorator_any_2", any=True)
async def decorated_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@paid("decorator_by_another_name")
def renamed(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


COMPUTED = "_".join(["decorator", "computed"])


def of_plan(name: str) -> str:
    return f"decorator_of_{name}"


@entitlement_required(COMPUTED)
def computed(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@logged
@entitlement_required(of_plan("gold"))
def called(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


class OnClass(EntitlementRequiredMixin, View):
    entitlement_required = "class_attribute"


class OnClassTwice(EntitlementRequiredMixin, View):
    entitlement_required = ("class_tuple_1", "class_tuple_2")
    entitlement_any = True


class OnClassCalled(EntitlementRequiredMixin, View):
    entitlement_required = of_plan("class")


class Deciding(EntitlementRequiredMixin, View):
    def get_entitlement_required(self) -> str:
        return "decided_1" if self.request.GET else "decided_2"


class DecidingByRequest(EntitlementRequiredMixin, View):
    def get_entitlement_required(self) -> str:
        return self.request.GET["key"]


@method_decorator(entitlement_required("method_decorator"), name="dispatch")
class MethodDecorated(View):
    pass


class HandlerDecorated(View):
    @method_decorator(entitlement_required(keys.GOLD.lookup_key))
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")
