from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from entitlements_app.models import EntitlementChange
from entitlements_app.overrides import grant

from .models import Organisation


def organisation_of(request: HttpRequest) -> Organisation | None:
    return Organisation.objects.filter(members=request.user.pk).first() if request.user.is_authenticated else None


async def organisation_of_async(request: HttpRequest) -> Organisation | None:
    user = await request.auser()
    return await Organisation.objects.filter(members=user.pk).afirst() if user.is_authenticated else None


def grant_me(request: HttpRequest) -> HttpResponse:
    subscriber = organisation_of(request) if settings.SUBSCRIBER == "organisation" else request.user
    grant(subscriber, "sso", force=True)
    delivered = EntitlementChange.objects.filter(delivered_at__isnull=False).count()
    return HttpResponse(f"deliveries so far: {delivered}")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")
