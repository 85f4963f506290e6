"""`@entitlement_required`: a gate before a function view, or before all views of an included URLconf."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from .denials import deny
from .gated_urls import gate_included, is_included
from .private_responses import keep_private
from .request_entitlements import aget_request_entitlements, get_request_entitlements
from .requirements import Requirement, keep

_Gated = TypeVar("_Gated")


def entitlement_required(*keys: str, any: bool = False) -> Callable[[_Gated], _Gated]:  # noqa: A002
    """Let a request through if its subscriber is entitled to all of these lookup keys, or with `any` to one of them.

    Goes on a view, sync or async, or around a whole include:
    `path("reports/", entitlement_required("reports")(include("shop.reports.urls")))`.
    Anonymous visitors are sent to log in; for others `ENTITLEMENTS_DENIED` decides, 403 unless it is set. Responses are
    marked private to the visitor, unless the view marks its own public. Raises `TypeError` at once for no keys, and for
    a class, which `EntitlementRequiredMixin` is for.
    """
    if len(keys) == 1 and callable(keys[0]):
        raise TypeError('entitlement_required needs a lookup key: @entitlement_required("premium_support").')
    requirement = Requirement(keys, any)

    def decorate(target: Any) -> Any:
        return gate_included(target, decorate_view) if is_included(target) else decorate_view(target)

    def decorate_view(view: Any) -> Any:
        gated = _gate(view, requirement)
        keep(gated, requirement)
        return gated

    return decorate


def _gate(view: Callable[..., Any], requirement: Requirement) -> Callable[..., Any]:
    if isinstance(view, type) or not callable(view):
        raise TypeError(
            "entitlement_required goes on a view function or around include(…). "
            "For a class-based view use EntitlementRequiredMixin."
        )
    if iscoroutinefunction(view):

        async def gated_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            missing = requirement.missing_from(await aget_request_entitlements(request))
            if missing:
                return keep_private(await sync_to_async(deny)(request, missing))
            return keep_private(await view(request, *args, **kwargs))

        return wraps(view)(gated_async)

    def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        missing = requirement.missing_from(get_request_entitlements(request))
        return keep_private(deny(request, missing) if missing else view(request, *args, **kwargs))

    return wraps(view)(gated)
