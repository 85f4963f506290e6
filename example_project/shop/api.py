from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from entitlements_app.contrib.rest_framework import HasEntitlement


class UsageView(APIView):
    """Gated with DRF: signed in by session in a browser, by `curl -u pro:demo` elsewhere."""

    permission_classes = [HasEntitlement]
    entitlement_required = "api_access"

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response({"user": request.user.get_username(), "requests_this_month": 1284})
