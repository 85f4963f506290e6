"""What a visitor gets whom a gate turns away."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import resolve_url

from . import conf
from .exceptions import EntitlementMissing


def deny(request: HttpRequest, missing: tuple[str, ...]) -> HttpResponseBase:
    """Anonymous visitors are sent to log in; for others `ENTITLEMENTS_DENIED` decides.

    Raises `EntitlementMissing`, a `PermissionDenied`, where the setting is `None`.
    """
    if not is_signed_in(request):
        return send_to_login(request, settings.LOGIN_URL)
    return deny_signed_in(request, missing)


def send_to_login(
    request: HttpRequest, login_url: str, redirect_field_name: str | None = REDIRECT_FIELD_NAME
) -> HttpResponseBase:
    """To that login page, and back here afterwards."""
    page = resolve_url(login_url)
    return redirect_to_login(_path_seen_from(page, request), page, redirect_field_name)


def deny_signed_in(request: HttpRequest, missing: tuple[str, ...], message: str = "") -> HttpResponseBase:
    """The site's own answer by `ENTITLEMENTS_DENIED`, else `EntitlementMissing` is raised, with this message if any."""
    denied = conf.denied()
    if denied is None:
        raise missing_error(missing, message)
    if isinstance(denied, str):
        return HttpResponseRedirect(_with_query(denied, request, missing))
    answer = async_to_sync(denied) if iscoroutinefunction(denied) else denied
    response = answer(request, missing)
    if not isinstance(response, HttpResponseBase):
        raise ImproperlyConfigured(
            f"The function of ENTITLEMENTS_DENIED must return a response, not {type(response).__name__}."
        )
    return response


def missing_error(missing: tuple[str, ...], message: str = "") -> EntitlementMissing:
    """The 403 that names the missing lookup keys."""
    return EntitlementMissing(message or f"Missing entitlement: {', '.join(missing)}.", missing=missing)


def is_signed_in(request: HttpRequest) -> bool:
    """Whether someone is signed in, which `request.user` tells where there is one."""
    user: Any = getattr(request, "user", None)
    return user is not None and bool(user.is_authenticated)


def _with_query(url: str, request: HttpRequest, missing: tuple[str, ...]) -> str:
    parts = urlsplit(url)
    query = QueryDict(parts.query, mutable=True)
    query.setlist("feature", list(missing))
    query["next"] = _path_seen_from(url, request)
    return parts._replace(query=query.urlencode(safe="/")).geturl()


def _path_seen_from(page: str, request: HttpRequest) -> str:
    """Where to come back to from that page; absolute if it is on another host, as Django does it."""
    here, there = urlsplit(request.build_absolute_uri()), urlsplit(page)
    same = (not there.scheme or there.scheme == here.scheme) and (not there.netloc or there.netloc == here.netloc)
    return request.get_full_path() if same else request.build_absolute_uri()
