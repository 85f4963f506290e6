"""One view for each way to write a gate. Their pages show this source."""

from __future__ import annotations

import json

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.generic import TemplateView
from rest_framework.views import APIView

from entitlements_app.access import has_entitlement
from entitlements_app.decorators import entitlement_required
from entitlements_app.mixins import EntitlementRequiredMixin

from .api import Members, Usage


def request(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/request.html")


def block(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/block.html")


def filter_(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/filter.html")


def jinja(request: HttpRequest) -> HttpResponse:
    phone = render_to_string("shop/phone.html", request=request, using="jinja2")
    return render(request, "shop/gates/rendered.html", {"rendered": phone})


@entitlement_required("premium_support")
def support(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/inside.html")


@entitlement_required("api_access", "sso", any=True)
async def tokens(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(render)(request, "shop/gates/inside.html")


class Exports(EntitlementRequiredMixin, TemplateView):
    entitlement_required = "advanced_reporting"
    template_name = "shop/gates/inside.html"


@login_required
@permission_required("entitlements.premium_support", raise_exception=True)
def permission(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/permission.html")


def code(request: HttpRequest) -> HttpResponse:
    provider = "id.example.com" if has_entitlement(request.user, "sso") else None
    return render(request, "shop/gates/code.html", {"provider": provider})


def api(request: HttpRequest) -> HttpResponse:
    return _answer_of(Usage, "usage", request)


def api_composed(request: HttpRequest) -> HttpResponse:
    return _answer_of(Members, "members", request)


def _answer_of(view: type[APIView], url_name: str, request: HttpRequest) -> HttpResponse:
    """A page that shows what the API answers this visitor."""
    path = reverse(url_name)
    answer = view.as_view()(request)
    body = json.dumps(answer.data, indent=2)
    context = {"answer": answer, "body": body, "path": path, "url": request.build_absolute_uri(path)}
    return render(request, "shop/gates/api.html", context)
