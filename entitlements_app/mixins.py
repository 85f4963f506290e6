"""`EntitlementRequiredMixin`: a gate before a class-based view."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.mixins import AccessMixin
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views import View

from .denials import deny_signed_in, is_signed_in, missing_error, send_to_login
from .private_responses import keep_private
from .request_entitlements import aget_request_entitlements, get_request_entitlements
from .requirements import Requirement, declared


class EntitlementRequiredMixin(AccessMixin):
    """Let a request through if its subscriber is entitled to all of `entitlement_required`.

    That is a lookup key or a tuple of them; with `entitlement_any = True` one of them is enough. Goes left of the
    view's own base class, sync or async. Anonymous visitors are sent to log in; for others `ENTITLEMENTS_DENIED`
    decides, 403 unless it is set. `AccessMixin`'s hooks work: `login_url`, `redirect_field_name`,
    `permission_denied_message`, `raise_exception` (403 for all), `handle_no_permission()`, which finds the missing keys
    in `self.entitlements_missing`. Responses are marked private to the visitor, unless the view marks its own public. A
    view that declares nothing raises `ImproperlyConfigured`; a class that has the mixin on the right of its base, where
    it would guard nothing, raises `TypeError` when it is written.
    """

    entitlement_required: str | tuple[str, ...] | None = None
    entitlement_any: bool = False
    entitlements_missing: tuple[str, ...] = ()
    view_is_async: bool
    request: HttpRequest

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ancestors = cls.__mro__
        if View in ancestors and ancestors.index(View) < ancestors.index(EntitlementRequiredMixin):
            raise TypeError(
                f"{cls.__name__} would be open to everyone: EntitlementRequiredMixin goes left of the view's base "
                f"class, as in class {cls.__name__}(EntitlementRequiredMixin, View)."
            )

    def get_entitlement_required(self) -> str | tuple[str, ...] | None:
        """What is required of this request. Override it to decide at the time of the request."""
        return self.entitlement_required

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        requirement = declared(self, self.get_entitlement_required(), any=self.entitlement_any)
        if self.view_is_async:
            return self._adispatch(requirement, request, *args, **kwargs)
        self.entitlements_missing = requirement.missing_from(get_request_entitlements(request))
        if self.entitlements_missing:
            return keep_private(self.handle_no_permission())
        return keep_private(super().dispatch(request, *args, **kwargs))  # type: ignore[misc]

    async def _adispatch(self, requirement: Requirement, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        self.entitlements_missing = requirement.missing_from(await aget_request_entitlements(request))
        if not self.entitlements_missing:
            response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        elif iscoroutinefunction(self.handle_no_permission):
            response = self.handle_no_permission()
        else:
            response = await sync_to_async(self.handle_no_permission)()
        return keep_private(await response if isawaitable(response) else response)

    def handle_no_permission(self) -> HttpResponseBase:  # type: ignore[override]
        """The answer to a visitor who lacks `self.entitlements_missing`, or whom another mixin turns away."""
        if not self.entitlements_missing:
            return super().handle_no_permission()
        if self.raise_exception:
            raise missing_error(self.entitlements_missing, str(self.get_permission_denied_message()))
        if is_signed_in(self.request):
            return deny_signed_in(self.request, self.entitlements_missing, str(self.get_permission_denied_message()))
        if getattr(self.request, "user", None) is None:  # where `AccessMixin` itself would fail
            return send_to_login(self.request, self.get_login_url(), self.get_redirect_field_name())
        return super().handle_no_permission()
