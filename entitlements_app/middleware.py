"""`request.entitlements`, attached without a query: the answer is read when someone asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .access import Entitlements
from .request_entitlements import aget_request_entitlements, get_request_entitlements
from .swallowed import Watch

GetResponse = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class EntitlementsHttpRequest(HttpRequest):
    """For annotations only: what a request looks like behind the middleware."""

    entitlements: Entitlements
    aentitlements: Callable[[], Awaitable[Entitlements]]


class EntitlementsMiddleware:
    """Attach `request.entitlements` and `await request.aentitlements()`. Goes after `AuthenticationMiddleware`.

    If a question failed and a template took the error for no, as Django's `{% if not … %}` does, the error is raised
    after the view, so that no page goes out on it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        request.entitlements = get_request_entitlements(request)  # type: ignore[attr-defined]
        request.aentitlements = partial(aget_request_entitlements, request)  # type: ignore[attr-defined]
        if self._is_async:
            return self._answer_async(request)
        with Watch() as watch:
            response = cast(HttpResponseBase, self.get_response(request))
        return watch.checked(response)

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with Watch() as watch:
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        return watch.checked(response)
