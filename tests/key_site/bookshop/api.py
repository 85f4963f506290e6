from __future__ import annotations

from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from entitlements_app.contrib.rest_framework import HasEntitlement


class OnView(APIView):
    permission_classes = [HasEntitlement]
    entitlement_required = "api_attribute"


class Composed(APIView):
    permission_classes = [IsAuthenticated & (HasEntitlement.of("api_and") | ~HasEntitlement.of("api_not"))]


@api_view(["GET"])
@permission_classes([HasEntitlement.of("api_function")])
def function(request: object) -> Response:
    return Response()


class Books(ViewSet):
    @action(detail=True, permission_classes=[HasEntitlement.of("api_action")])
    def export(self, request: object, pk: str) -> Response:
        return Response()


router = SimpleRouter()
router.register("books", Books, basename="book")
