"""Who comes to a gate that asks for `premium_support`, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client

from entitlements_app.linking import link
from tests.delivery import deliver, summary
from tests.rows import make_subscriber, visitor_of
from tests.testapp.gates import SAYING


def subscriber_with(*keys: str) -> Any:
    subscriber = make_subscriber()
    stripe_id = f"cus_of_{subscriber.pk}"
    link(subscriber, stripe_id)
    deliver(summary(stripe_id, *keys))
    return subscriber


def entitled() -> User:
    return visitor_of(subscriber_with("premium_support"))


def entitled_to_something_else() -> User:
    return visitor_of(subscriber_with("premium-support", "PREMIUM_SUPPORT", "premium_support_plus"))


def unlinked() -> User:
    return visitor_of(make_subscriber())


def stranger() -> User:
    return User.objects.create_user("stranger")


def superuser() -> User:
    """Superusers pass permissions, and an entitlement is none: they hold what they pay for."""
    user = unlinked()
    User.objects.filter(pk=user.pk).update(is_superuser=True, is_staff=True)
    return User.objects.get(pk=user.pk)


def deactivated() -> User:
    user = entitled()
    User.objects.filter(pk=user.pk).update(is_active=False)
    return User.objects.get(pk=user.pk)


def anonymous() -> None:
    return None


Who = Callable[[], User | None]

VISITORS: list[tuple[Who, str]] = [
    (entitled, "open"),
    (entitled_to_something_else, "denied"),
    (unlinked, "denied"),
    (stranger, "denied"),
    (superuser, "denied"),
    (deactivated, "login"),  # Django itself treats the session of an inactive user as anonymous
    (anonymous, "login"),
]
every_visitor = pytest.mark.parametrize(("who", "outcome"), VISITORS, ids=[who.__name__ for who, _ in VISITORS])


class Sync:
    """Over WSGI."""

    def get(self, path: str, user: User | None, **headers: str) -> HttpResponse:
        return _signed_in(Client(), user).get(path, headers=headers)


class Async:
    """Over ASGI."""

    def get(self, path: str, user: User | None, **headers: str) -> HttpResponse:
        return async_to_sync(_signed_in(AsyncClient(), user).get)(path, headers=headers)


def _signed_in(client: Any, user: User | None) -> Any:
    """A visitor signs in once and goes from gate to gate with its session."""
    if user and "session" not in vars(user):
        client.force_login(user)
        vars(user)["session"] = client.cookies
    if user:
        client.cookies = vars(user)["session"]
    return client


def said(opens: bool) -> dict[str, str]:
    """What each page that asks shows to whom it opens, or does not."""
    return {
        gate: ("closed no, open" if opens else "closed")
        if gate.endswith("/block-alone/")
        else ("open" if opens else "closed")
        for gate in SAYING
    }


def passed(response: HttpResponse) -> bool:
    """Whether a page that asks for a permission let its visitor through; anything but yes or no is an error."""
    assert (response.status_code, response.content) in [(200, b"open"), (200, b"closed"), (403, response.content)]
    return response.content == b"open"


over_both = pytest.mark.parametrize("served_by", [Sync(), Async()], ids=["WSGI", "ASGI"])
