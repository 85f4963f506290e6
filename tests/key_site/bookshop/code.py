"""Questions in code, none of which is a view. Nobody imports this."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django.contrib.auth.decorators import permission_required
from django.contrib.auth.mixins import PermissionRequiredMixin
from django.db.models import TextChoices

from bookshop import gates, keys
from bookshop.gates import has_entitlement as holds
from bookshop.keys import IMPORTED
from entitlements_app import access
from entitlements_app.access import Entitlements, get_entitlements, wait_for_entitlement
from entitlements_app.models import Customer
from entitlements_app.overrides import grant

CONSTANT = "from_constant"
TEXT = "entitlements.sso_in_a_text"  # which asks for nothing


class Key(StrEnum):
    OWN = "from_enum"


class Choice(TextChoices):
    OWN = "from_choices", "A label"


def functions(user: Any) -> list[Any]:
    access.has_entitlement(user, "function")
    gates.has_entitlement(user, "function_1", "function_2")
    holds(user, "function_renamed")
    access.subscribers_with("function_reverse")
    access.subscribers_with(key="function_reverse_by_name")
    return [get_entitlements(user).attribute, get_entitlements(user)["item"], "membership" in get_entitlements(user)]


async def functions_async(user: Any) -> None:
    await access.ahas_entitlement(user, "function_async")
    await wait_for_entitlement(user, "function_wait", timeout=3)
    held = await access.aget_entitlements(user)
    held.attribute_async  # noqa: B018


def constants(user: Any) -> None:
    holds(user, CONSTANT)
    holds(user, Key.OWN)
    holds(user, Choice.OWN.value)
    holds(user, IMPORTED)
    holds(user, keys.Key.OF_ENUM)
    local = "from_local"
    holds(user, local)
    holds(user, f"from_joined_{CONSTANT}" if user else "from_condition")


def of_request(request: Any) -> list[Any]:
    held = request.entitlements
    return [
        request.entitlements.request_attribute,
        request.entitlements["request_item"],
        "request_not_in" not in request.entitlements,
        request.entitlements.has_all("request_all_1", "request_all_2"),
        request.entitlements.has_any("request_any"),
        request.entitlements.metadata("request_metadata").get("max"),
        getattr(request.entitlements, "request_getattr"),  # noqa: B009
        held.request_local,
        request.entitlements.as_of,
    ]


async def of_request_async(request: Any) -> bool:
    return (await request.aentitlements()).request_async


class Page:
    request: Any

    def is_open(self, entitlements: Entitlements) -> bool:
        return self.request.entitlements.request_of_self and entitlements.annotated


def of_site(r: Any) -> Any:
    return r.entitlements.not_a_request, r.request_count, r.entitlements_of


@permission_required("entitlements.permission_decorator", raise_exception=True)
def permissions(request: Any, user: Any, label: str) -> Any:
    user.has_perm("shop.change_book")
    user.has_perm(label)
    user.has_perms(["entitlements.permission_list", "shop.view_book"])
    return user.has_perm("entitlements.permission")


class Permitted(PermissionRequiredMixin):
    permission_required = ("shop.view_book", "entitlements.permission_attribute")


def reverse() -> Any:
    grant(None, "granted")
    Customer.objects.filter(livemode=False).entitled_to("customers_filtered")
    return Customer.objects.entitled_to("customers")


def at_run_time(user: Any, request: Any, key: str) -> list[Any]:
    return [
        holds(user, key),
        request.entitlements[key],
        key in request.entitlements,
        user.has_perm(f"entitlements.{key}"),
        *(holds(user, CONSTANT) for CONSTANT in user.keys),
        holds(keys.LAZY(), keys.LAZY.key),
    ]
