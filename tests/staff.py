"""Staff in the admin: who may do just what a test says, the addresses of their pages, and what these tell them."""

from __future__ import annotations

import html
import re
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client


def staff(*codenames: str, name: str = "support", csrf: bool = False) -> Client:
    """Signed in, no superuser, with these permissions of the app. Without any it may only sign in."""
    permissions = Permission.objects.filter(content_type__app_label="entitlements_app", codename__in=codenames)
    assert len(permissions) == len(codenames), codenames
    user, _ = User.objects.get_or_create(username=name, is_staff=True)
    user.user_permissions.set(permissions)
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def staff_for_all(*, only: str = "", csrf: bool = False) -> Client:
    """Another one, with all permissions of the app, or all whose names begin so."""
    permissions = Permission.objects.filter(content_type__app_label="entitlements_app", codename__startswith=only)
    return staff(*permissions.values_list("codename", flat=True), name="chief", csrf=csrf)


def url(model: Any, *rest: object) -> str:
    """Of a model's list, or with a primary key and a name of another of its pages."""
    return "/".join(["/admin/entitlements_app", model._meta.model_name, *map(str, rest), ""])


def html_of(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def text_of(response: Any) -> str:
    """What a page says, without tags, on one line."""
    content = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())


def listed(client: Client, model: Any, **query: Any) -> set[Any]:
    """The keys of the rows on a list's first page."""
    answer = client.get(url(model), query)
    assert answer.status_code == 200, answer
    return {row.pk for row in answer.context["cl"].result_list}


def said(client: Client, address: str, data: Any = None) -> str:
    """Post, follow the redirect, and return what the next page says about it."""
    answer = client.post(address, data or {}, follow=True)
    assert answer.redirect_chain, answer
    return " ".join(str(message) for message in answer.context["messages"])
