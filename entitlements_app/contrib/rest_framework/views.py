"""The endpoint that tells a front end what the visitor is entitled to."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.http import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_cache_control, patch_vary_headers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from entitlements_app.request_entitlements import get_request_entitlements


class EntitlementsView(APIView):
    """What the request's subscriber is entitled to, for a front end to decide what to show.

    The site's default authentication, permissions and throttling apply, as to any API view. Anonymous visitors hold
    nothing. The answer has the same `ETag` until it says something else, so asking again with `If-None-Match` costs a
    304; `as_of`, when the database was read, is not counted.
    """

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        entitlements = get_request_entitlements(request)
        keys = list(entitlements)
        public = {key: self.get_public_metadata(key, entitlements.metadata(key)) for key in keys}
        told = {"entitlements": keys, "metadata": {key: metadata for key, metadata in public.items() if metadata}}
        etag = _etag(request, told)
        answer = Response({**told, "as_of": entitlements.as_of}, headers={"ETag": etag})
        return get_conditional_response(request, etag=etag, response=answer) or answer

    def get_public_metadata(self, key: str, metadata: dict[str, str]) -> dict[str, Any]:
        """What of a feature's metadata everyone is told who holds it: all. Override it to keep something back."""
        return metadata

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """One visitor's answer, or refusal: no shared cache may keep it, and no other has it without asking again."""
        response = super().finalize_response(request, response, *args, **kwargs)
        patch_cache_control(response, private=True, no_cache=True)
        patch_vary_headers(response, ("Cookie", "Authorization"))
        return response


def _etag(request: Request, told: dict[str, Any]) -> str:
    """Weak: two answers with the same tag may differ in `as_of`. Another media type is another representation."""
    text = json.dumps([request.accepted_media_type, told], sort_keys=True, default=str)
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
