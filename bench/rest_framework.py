"""Permission classes of Django REST framework."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework.permissions import DjangoModelPermissions, DjangoObjectPermissions, IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from bench.data import KEY
from bench.first_checks import GUARDIAN, IN_PROCESS, ON_REDIS
from bench.measure import Contender, Row
from bench.visits import drf_request_of
from entitlements_app.contrib.rest_framework import HasEntitlement
from entitlements_app.models import Feature

_PERMS = {"GET": ["%(app_label)s.view_%(model_name)s"]}


class ViewPermission(DjangoModelPermissions):
    """As its documentation says for a GET that needs the view permission."""

    perms_map = _PERMS


class ObjectViewPermission(DjangoObjectPermissions):
    perms_map = _PERMS


class View(APIView):
    queryset = Feature.objects.all()
    entitlement_required = KEY


def rows() -> list[Row]:
    view = View()
    feature = Feature.objects.get(lookup_key=KEY)
    gate, declared, signed_in = HasEntitlement.of(KEY)(), HasEntitlement(), IsAuthenticated()
    model, of_object = ViewPermission(), ObjectViewPermission()

    def by_gate(request: Request) -> bool:
        return gate.has_permission(request, view)

    def by_declaration(request: Request) -> bool:
        return declared.has_permission(request, view)

    def by_sign_in(request: Request) -> bool:
        return signed_in.has_permission(request, view)

    def by_model(request: Request) -> bool:
        return model.has_permission(request, view)

    def by_object(request: Request) -> bool:
        try:
            return of_object.has_object_permission(request, view, feature)
        except Http404:  # its way to say no
            return False

    def contender(name: str, ask: Any, **options: Any) -> Contender:
        return Contender(name, ask, drf_request_of, **options)

    def peers(*, asks_again: bool) -> tuple[Contender, ...]:
        return (
            contender("DjangoModelPermissions", by_model, asks_again=asks_again),
            contender("DjangoObjectPermissions, guardian", by_object, asks_again=asks_again, settings=GUARDIAN),
            contender("IsAuthenticated", by_sign_in, asks_again=asks_again, kind="floor"),
        )

    return [
        Row(
            "DRF, first",
            (
                contender("HasEntitlement.of", by_gate, kind="ours"),
                contender("HasEntitlement, declared", by_declaration, kind="ours"),
                contender("HasEntitlement.of, Redis warm", by_gate, settings=ON_REDIS, kind="ours"),
                contender("HasEntitlement.of, in the process", by_gate, settings=IN_PROCESS, kind="ours"),
                *peers(asks_again=False),
            ),
        ),
        Row(
            "DRF, repeated",
            (
                contender("HasEntitlement.of", by_gate, asks_again=True, kind="ours"),
                contender("HasEntitlement, declared", by_declaration, asks_again=True, kind="ours"),
                *peers(asks_again=True),
            ),
        ),
    ]
