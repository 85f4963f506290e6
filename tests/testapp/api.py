from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.authentication import BaseAuthentication, SessionAuthentication, TokenAuthentication
from rest_framework.decorators import action, api_view, authentication_classes, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from entitlements_app.contrib.rest_framework import HasEntitlement
from entitlements_app.contrib.rest_framework.views import EntitlementsView

KEY = "premium_support"


class Gated(APIView):
    permission_classes = [HasEntitlement]
    entitlement_required: object = KEY

    def get(self, request: Request) -> Response:
        return Response("open")


class GatedOf(Gated):
    permission_classes = [HasEntitlement.of(KEY)]
    entitlement_required = None


class GatedWithSignIn(GatedOf):
    permission_classes = [IsAuthenticated & HasEntitlement.of(KEY)]


class GatedEither(GatedOf):
    permission_classes = [HasEntitlement.of("zzz") | HasEntitlement.of(KEY)]


class GatedTwiceTurned(GatedOf):
    permission_classes = [~~HasEntitlement.of(KEY)]


class GatedObject(GatedOf):
    """The object is what is gated: the list is everyone's who signs in."""

    permission_classes = [IsAuthenticated]

    def get(self, request: Request) -> Response:
        self.permission_classes = [HasEntitlement.of(KEY)]
        self.check_object_permissions(request, object())
        return Response("open")


class GatedSet(ViewSet):
    permission_classes = [HasEntitlement]
    entitlement_required = KEY

    def list(self, request: Request) -> Response:
        return Response("open")


@api_view(["GET"])
@permission_classes([HasEntitlement.of(KEY)])
def gated_function(request: Request) -> Response:
    return Response("open")


@api_view(["GET"])
@authentication_classes([TokenAuthentication])
@permission_classes([HasEntitlement.of(KEY)])
def gated_function_for_tokens(request: Request) -> Response:
    return Response("open")


def gates(*authentication: type[BaseAuthentication]) -> list[tuple[str, object]]:
    classes = {"authentication_classes": list(authentication)}
    return [
        ("declared", Gated.as_view(**classes)),
        ("of", GatedOf.as_view(**classes)),
        ("and", GatedWithSignIn.as_view(**classes)),
        ("or", GatedEither.as_view(**classes)),
        ("not-not", GatedTwiceTurned.as_view(**classes)),
        ("object", GatedObject.as_view(**classes)),
        ("viewset", GatedSet.as_view({"get": "list"}, **classes)),
    ]


BY_SESSION = [*gates(SessionAuthentication), ("function", gated_function)]
BY_TOKEN = [*gates(TokenAuthentication), ("function", gated_function_for_tokens)]


class HeaderAuthentication(BaseAuthentication):
    """Whoever the header names, whatever the session says; and a fact that only DRF's own request knows."""

    def authenticate(self, request: Request) -> tuple[object, str] | None:
        from django.contrib.auth.models import User

        name = request.headers.get("X-User")
        return (User.objects.get(username=name), f"as {name}") if name else None

    def authenticate_header(self, request: Request) -> str:
        return "X-User"


class NamedInHeader(Gated):
    authentication_classes = [HeaderAuthentication]

    def get(self, request: Request) -> Response:
        return Response("open" if request.entitlements[KEY] else "closed")


class NeedsBoth(Gated):
    entitlement_required = (KEY, "sso")


class NeedsEither(NeedsBoth):
    entitlement_any = True


class DecidedByTheRequest(Gated):
    entitlement_required = None

    def get_entitlement_required(self) -> str:
        return KEY if self.request.query_params else "sso"


class Mixed(ViewSet):
    """Each action has a gate of its own."""

    permission_classes = [IsAuthenticated]

    def list(self, request: Request) -> Response:
        return Response("everyone's")

    @action(detail=False, permission_classes=[HasEntitlement.of(KEY)])
    def paid(self, request: Request) -> Response:
        return Response("open")


class NotForPayers(Gated):
    """An advertisement, object by object."""

    permission_classes = [~HasEntitlement]

    def get(self, request: Request) -> Response:
        self.check_object_permissions(request, request.user)
        return Response("open")


class Undeclared(Gated):
    entitlement_required = None


class PublicEntitlements(EntitlementsView):
    def get_public_metadata(self, key: str, metadata: dict[str, str]) -> dict[str, str]:
        return {name: text for name, text in metadata.items() if not name.startswith("internal_")}


def mixed(request: HttpRequest) -> HttpResponse:
    """A Django view that asks, and then hands the request to an API view with an authentication of its own."""
    before = request.entitlements[KEY]
    answer = NamedInHeader.as_view()(request)
    after = request.entitlements[KEY]
    return HttpResponse(f"{before} {answer.status_code} {after}")


router = SimpleRouter()
router.register("mixed-set", Mixed, basename="mixed")
urlpatterns = [
    *[path(f"session/{name}/", view) for name, view in BY_SESSION],
    *[path(f"token/{name}/", view) for name, view in BY_TOKEN],
    path("header/", NamedInHeader.as_view()),
    path("needs-both/", NeedsBoth.as_view()),
    path("needs-either/", NeedsEither.as_view()),
    path("decided/", DecidedByTheRequest.as_view()),
    path("", include(router.urls)),
    path("not-for-payers/", NotForPayers.as_view()),
    path("undeclared/", Undeclared.as_view()),
    path("mixed/", mixed),
    path("", include("entitlements_app.contrib.rest_framework.urls")),
    path("entitlements-by-token/", EntitlementsView.as_view(authentication_classes=[TokenAuthentication])),
    path("public-entitlements/", PublicEntitlements.as_view()),
]
