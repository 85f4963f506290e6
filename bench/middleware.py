"""What a request pays that asks nothing."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.http import HttpRequest, HttpResponse

from bench.measure import Aim, Contender, Row
from bench.visits import request_with_session
from entitlements_app.middleware import EntitlementsMiddleware

_response = HttpResponse()


def rows() -> list[Row]:
    return [_row("sync", view), _row("async", async_view)]


def view(request: HttpRequest) -> HttpResponse:
    return _response


async def async_view(request: HttpRequest) -> HttpResponse:
    return _response


def _row(kind: str, get_response: Any) -> Row:
    def contender(name: str, handle: Any, role: Any) -> Contender:
        if get_response is view:
            return Contender(name, handle, request_with_session, kind=role)

        async def handle_async(request: HttpRequest) -> Any:
            return await handle(request)

        return Contender(name, handle_async, request_with_session, kind=role)

    return Row(
        f"Attached, unused, {kind}",
        (
            contender("EntitlementsMiddleware", EntitlementsMiddleware(get_response), "floor"),
            contender("the view alone", get_response, "floor"),
            contender("AuthenticationMiddleware", AuthenticationMiddleware(get_response), "floor"),
        ),
        (Aim("no dearer than AuthenticationMiddleware", "EntitlementsMiddleware", 1.0, "AuthenticationMiddleware"),),
    )
