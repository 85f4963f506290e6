"""What a gate let through, or turned away, is for one visitor: no shared cache may hand it to the next."""

from __future__ import annotations

from typing import TypeVar

from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

_Response = TypeVar("_Response")


def keep_private(response: _Response) -> _Response:
    """Mark this response `Cache-Control: private` and `Vary: Cookie`, unless the view itself says `public`.

    `cache_page`, Django's cache middleware and proxies then store nothing of it for others.
    """
    if isinstance(response, HttpResponseBase) and "public" not in response.get("Cache-Control", ""):
        patch_cache_control(response, private=True)
        patch_vary_headers(response, ("Cookie",))
    return response
