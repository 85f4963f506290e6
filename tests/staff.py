"""Staff of the site, and the addresses of their pages."""

from __future__ import annotations

import html
import re
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client


def staff(*codenames: str, **options: Any) -> Client:
    """Signed in, no superuser, with these permissions of the app, or with all if none are named."""
    user = User.objects.create_user(f"staff-{User.objects.count()}", is_staff=True)
    permissions = Permission.objects.filter(content_type__app_label="entitlements_app")
    user.user_permissions.set(permissions.filter(codename__in=codenames) if codenames else permissions)
    client = Client(**options)
    client.force_login(user)
    return client


def url(model: Any, *rest: object) -> str:
    """Of a model's list, or with a primary key and a name of another of its pages."""
    return "/".join(["/admin/entitlements_app", model._meta.model_name, *map(str, rest), ""])


def text_of(response: Any) -> str:
    """What a page says, without tags, on one line."""
    content = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())
