"""Staff in the admin: who may do just what a test says, and what the pages tell them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client


def staff(*codenames: str, name: str = "support", csrf: bool = False) -> Client:
    """Signed in, with these permissions of the app. Without any it may only sign in."""
    user, _ = User.objects.get_or_create(username=name, is_staff=True)
    of_app = Permission.objects.filter(content_type__app_label="entitlements_app")
    permissions = of_app.filter(codename__in=codenames)
    assert len(permissions) == len(codenames), codenames
    user.user_permissions.set(permissions)
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def url(model: Any, *rest: object) -> str:
    return "/".join(["/admin/entitlements_app", model._meta.model_name, *map(str, rest), ""])


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer
    return str(answer.content.decode())


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
