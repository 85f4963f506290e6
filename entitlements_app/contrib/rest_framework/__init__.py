"""A gate for Django REST framework. Needs the extra `drf`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from entitlements_app.request_entitlements import get_request_entitlements, share_request_entitlements
from entitlements_app.requirements import Requirement, declared, keep


class HasEntitlement(BasePermission):
    """Let a request through if its subscriber is entitled to all of the view's `entitlement_required`.

    That is a lookup key or a tuple of them, or what `get_entitlement_required()` returns; with `entitlement_any = True`
    on the view one of them is enough. A view that declares none raises `ImproperlyConfigured`: forgetting it must not
    open a door. The subscriber is that of DRF's own request, so token authentication counts. A denial has the code
    `entitlement_required`, and its body names the missing keys; where DRF asks for credentials first, it is DRF's own
    401.
    """

    code = "entitlement_required"
    message: dict[str, Any]

    @staticmethod
    def of(*keys: str, any: bool = False) -> type[HasEntitlement]:  # noqa: A002
        """The permission class for these lookup keys, whatever the view declares.

        `permission_classes = [HasEntitlement.of("api_access")]`. Raises `TypeError` at once for no keys. The same keys
        in any order give the same class.
        """
        return _class_for(Requirement(tuple(sorted(set(Requirement(keys).keys))), any))

    def has_permission(self, request: Request, view: Any) -> bool:
        missing = self.get_requirement(view).missing_from(get_request_entitlements(request))
        # What DRF's own authentication found counts for `request.entitlements`, too; never the other way round.
        share_request_entitlements(request, getattr(request, "_request", request))
        if missing:
            text = f"Missing entitlement: {', '.join(missing)}."
            self.message = {"detail": text, "code": self.code, "missing": list(missing)}
        return not missing

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """The same answer: DRF's default, yes, would turn into no under `~`."""
        return self.has_permission(request, view)

    def get_requirement(self, view: Any) -> Requirement:
        """What this view asks for: `get_entitlement_required()` if it has that, as with `EntitlementRequiredMixin`."""
        decide = getattr(view, "get_entitlement_required", None)
        required = getattr(view, "entitlement_required", None) if decide is None else decide()
        return declared(view, required, any=getattr(view, "entitlement_any", False))


@lru_cache(maxsize=1024)
def _class_for(requirement: Requirement) -> type[HasEntitlement]:
    class HasTheseEntitlements(HasEntitlement):
        def get_requirement(self, view: Any) -> Requirement:
            return requirement

    keys = (" or " if requirement.any else " and ").join(requirement.keys)
    HasTheseEntitlements.__qualname__ = f"HasEntitlement.of({keys})"  # what an error or a schema shows
    keep(HasTheseEntitlements, requirement)
    return HasTheseEntitlements
