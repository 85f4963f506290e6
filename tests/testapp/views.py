from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from entitlements_app.decorators import entitlement_required

from .models import Organisation

KEY = "premium_support"


def organisation_of(request: HttpRequest) -> Organisation | None:
    return Organisation.objects.filter(members=request.user.pk).first() if request.user.is_authenticated else None


async def organisation_of_async(request: HttpRequest) -> Organisation | None:
    user = await request.auser()
    return await Organisation.objects.filter(members=user.pk).afirst() if user.is_authenticated else None


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


def template(request: HttpRequest) -> HttpResponse:
    return render(request, "gate.html")


def in_code(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open" if request.entitlements[KEY] else "closed")


async def in_async_code(request: HttpRequest) -> HttpResponse:
    entitlements = await request.aentitlements()
    # After it was awaited the plain spelling, and so a template, has its answer.
    assert entitlements[KEY] is request.entitlements[KEY]
    return render(request, "gate.html")


@entitlement_required(KEY)
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@entitlement_required(KEY)
async def decorated_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@entitlement_required(KEY, "sso")
def needs_both(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


@entitlement_required(KEY, "sso", any=True)
def needs_either(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")
