"""A gate for Django REST framework. Needs the extra `drf`."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from entitlements_app.access import check_keys, get_request_entitlements


class HasEntitlement(BasePermission):
    """Let a request through if its subscriber is entitled to all of the view's `entitlement_required`.

    That is a lookup key or a tuple of them. A view that declares none raises `ImproperlyConfigured`: forgetting it must
    not open a door. The subscriber is that of DRF's own request, so token authentication counts.
    """

    code = "entitlement_required"

    def has_permission(self, request: Request, view: Any) -> bool:
        return get_request_entitlements(request).has_all(*_declared(view))

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """The same answer: DRF's default, yes, would turn into no under `~`."""
        return self.has_permission(request, view)


def _declared(view: Any) -> tuple[str, ...]:
    declared = getattr(view, "entitlement_required", None)
    keys = (declared,) if isinstance(declared, str) else declared
    if not isinstance(keys, tuple):
        raise ImproperlyConfigured(
            f"{type(view).__name__} uses HasEntitlement and must set entitlement_required "
            'to a lookup key, or a tuple of them: entitlement_required = "api_access".'
        )
    try:
        check_keys(keys)
    except TypeError as error:
        raise ImproperlyConfigured(f"{type(view).__name__}.entitlement_required: {error}") from error
    return keys
