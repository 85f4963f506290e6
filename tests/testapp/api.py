from __future__ import annotations

from django.contrib.auth.models import User
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from entitlements_app.contrib.rest_framework import HasEntitlement

from .views import KEY


class HeaderAuthentication(BaseAuthentication):
    """Stands for a token: the user is named in a header, whatever the session says."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        name = request.headers.get("X-User")
        return (User.objects.get(username=name), None) if name else None

    def authenticate_header(self, request: Request) -> str:
        return "X-User"


class Gated(APIView):
    permission_classes = [HasEntitlement]
    entitlement_required: object = KEY

    def get(self, request: Request) -> Response:
        return Response("open")


class TokenGated(Gated):
    authentication_classes = [HeaderAuthentication]


class NeedsBoth(Gated):
    entitlement_required = (KEY, "sso")


class NotForPayers(Gated):
    """An advertisement, object by object."""

    permission_classes = [~HasEntitlement]

    def get(self, request: Request) -> Response:
        self.check_object_permissions(request, request.user)
        return Response("open")


class Undeclared(APIView):
    permission_classes = [HasEntitlement]

    def get(self, request: Request) -> Response:
        return Response("open")


class DeclaresNothing(Gated):
    entitlement_required = ()


class DeclaresAList(Gated):
    entitlement_required = [KEY]


class DeclaresEmptyText(Gated):
    entitlement_required = ""
