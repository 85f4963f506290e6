from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from .models import Organisation


def organisation_of(request: HttpRequest) -> Organisation | None:
    return Organisation.objects.filter(members=request.user.pk).first() if request.user.is_authenticated else None


async def organisation_of_async(request: HttpRequest) -> Organisation | None:
    user = await request.auser()
    return await Organisation.objects.filter(members=user.pk).afirst() if user.is_authenticated else None


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")
