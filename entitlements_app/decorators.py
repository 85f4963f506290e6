"""`@entitlement_required`: a gate before a function view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from .access import Entitlements, aget_request_entitlements, check_keys, get_request_entitlements

_View = TypeVar("_View", bound=Callable[..., Any])


def entitlement_required(*keys: str, any: bool = False) -> Callable[[_View], _View]:  # noqa: A002
    """Let a request through if its subscriber is entitled to all of these lookup keys, or with `any` to one of them.

    Anonymous visitors are sent to log in, others get 403. Works on sync and async views. Raises `TypeError` at once
    for no keys.
    """
    check_keys(keys)

    def passes(entitlements: Entitlements) -> bool:
        return entitlements.has_any(*keys) if any else entitlements.has_all(*keys)

    def decorate(view: _View) -> _View:
        if iscoroutinefunction(view):

            async def gated_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                if passes(await aget_request_entitlements(request)):
                    return await view(request, *args, **kwargs)
                return await sync_to_async(_deny)(request)

            return wraps(view)(gated_async)  # type: ignore[return-value]

        def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if passes(get_request_entitlements(request)):
                return view(request, *args, **kwargs)
            return _deny(request)

        return wraps(view)(gated)  # type: ignore[return-value]

    return decorate


def _deny(request: HttpRequest) -> HttpResponseBase:
    if request.user.is_authenticated:
        raise PermissionDenied("An entitlement is missing.")
    return redirect_to_login(_path(request), resolve_url(settings.LOGIN_URL))


def _path(request: HttpRequest) -> str:
    """Where to come back to; absolute if the login page is on another host, as Django does it."""
    here, login = urlsplit(request.build_absolute_uri()), urlsplit(resolve_url(settings.LOGIN_URL))
    same = (not login.scheme or login.scheme == here.scheme) and (not login.netloc or login.netloc == here.netloc)
    return request.get_full_path() if same else request.build_absolute_uri()
