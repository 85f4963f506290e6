"""The second question of a request, and the one after that."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest

from bench.data import KEY, OTHER_KEY
from bench.first_checks import (
    GUARDIAN,
    AskGuardian,
    ask_djstripe_features,
    ask_flags,
    ask_has_perm,
    ask_orm,
    ask_waffle,
)
from bench.measure import Aim, Contender, Row
from bench.visits import request_of, user_again
from entitlements_app.request_entitlements import get_request_entitlements


def rows() -> list[Row]:
    return [
        Row(
            "Repeated in a request",
            (
                Contender("request.entitlements[key]", ask_item, with_entitlements, asks_again=True, kind="ours"),
                Contender("request.entitlements.key", ask_attribute, with_entitlements, asks_again=True, kind="ours"),
                Contender(
                    "request.entitlements, key not held", ask_other, with_entitlements, asks_again=True, kind="ours"
                ),
                Contender("plain attribute", plain, with_entitlements, asks_again=True, kind="floor"),
                Contender("user.has_perm, ModelBackend", ask_has_perm, user_again, asks_again=True),
                Contender(
                    "django-guardian, user.has_perm", AskGuardian(), user_again, asks_again=True, settings=GUARDIAN
                ),
                Contender("django-flags, user condition", ask_flags, request_of, asks_again=True, users=1),
                Contender("django-waffle, its cache warm", ask_waffle, request_of, asks_again=True),
                Contender("dj-stripe, query of features", ask_djstripe_features, user_again, asks_again=True),
                Contender("bare ORM query", ask_orm, user_again, asks_again=True),
            ),
            tuple(
                Aim("10x faster than a repeated user.has_perm", name, 0.1, "user.has_perm, ModelBackend")
                for name in (
                    "request.entitlements[key]",
                    "request.entitlements.key",
                    "request.entitlements, key not held",
                )
            ),
        )
    ]


def with_entitlements(user: User) -> HttpRequest:
    """As the middleware leaves it."""
    request = request_of(user)
    request.entitlements = get_request_entitlements(request)
    return request


def ask_item(request: HttpRequest) -> bool:
    return request.entitlements[KEY]


def ask_attribute(request: HttpRequest) -> bool:
    return request.entitlements.feature_0_2


def ask_other(request: HttpRequest) -> bool:
    return not request.entitlements[OTHER_KEY]


def plain(request: HttpRequest) -> object:
    return request.method
