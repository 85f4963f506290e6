from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from entitlements_app.contrib.rest_framework import HasEntitlement


class Usage(APIView):
    permission_classes = [HasEntitlement]
    entitlement_required = "api_access"

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response({"user": request.user.get_username(), "requests_this_month": 1284})


class Members(APIView):
    permission_classes = [IsAuthenticated & HasEntitlement.of("sso", "advanced_reporting", any=True)]

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response({"members": [request.user.get_username(), "grace", "linus"]})
