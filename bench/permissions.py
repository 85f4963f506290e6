"""`user.has_perm`: with entitlements as permissions, beside Django's and guardian's own."""

from __future__ import annotations

from django.contrib.auth.models import User

from bench.data import KEY
from bench.first_checks import GUARDIAN, IN_PROCESS, ON_REDIS, AskGuardian, ask_has_perm
from bench.measure import Contender, Row
from bench.visits import user_again

WITH_OURS = {
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend",
        "entitlements_app.backends.EntitlementsBackend",
    ]
}


def rows() -> list[Row]:
    django_s, guardian_s = "user.has_perm, ModelBackend", "django-guardian, user.has_perm"
    first = Row(
        "has_perm, first",
        (
            Contender("has_perm(…, user)", ask_about_itself, user_again, settings=WITH_OURS, kind="ours"),
            Contender("has_perm(…)", ask, user_again, settings=WITH_OURS, kind="ours"),
            Contender(
                "has_perm(…, user), Redis warm",
                ask_about_itself,
                user_again,
                settings=WITH_OURS | ON_REDIS,
                kind="ours",
            ),
            Contender(django_s, ask_has_perm, user_again),
            Contender(guardian_s, AskGuardian(), user_again, settings=GUARDIAN),
        ),
    )
    again = Row(
        "has_perm, repeated",
        (
            Contender(
                "has_perm(…, user)", ask_about_itself, user_again, asks_again=True, settings=WITH_OURS, kind="ours"
            ),
            Contender(
                "has_perm(…, user), Redis warm",
                ask_about_itself,
                user_again,
                asks_again=True,
                settings=WITH_OURS | ON_REDIS,
                kind="ours",
            ),
            Contender(
                "has_perm(…, user), in the process",
                ask_about_itself,
                user_again,
                asks_again=True,
                settings=WITH_OURS | IN_PROCESS,
                kind="ours",
            ),
            Contender(django_s, ask_has_perm, user_again, asks_again=True),
            Contender(guardian_s, AskGuardian(), user_again, asks_again=True, settings=GUARDIAN),
        ),
    )
    return [first, again]


def ask(user: User) -> bool:
    return user.has_perm(f"entitlements.{KEY}")


def ask_about_itself(user: User) -> bool:
    """With the user as the object: Django's own backend then has nothing to look up."""
    return user.has_perm(f"entitlements.{KEY}", user)
