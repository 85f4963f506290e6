"""The first question about a user: cold, with a warm cache, and out of the process."""

from __future__ import annotations

from typing import Any

import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache, caches
from django.db import connection
from django.http import HttpRequest
from djstripe.models import Customer as DjstripeCustomer
from djstripe.models import Feature as DjstripeFeature
from flags.state import flag_enabled
from waffle import flag_is_active

from bench.data import KEY, PERMISSION, PRODUCT
from bench.measure import Aim, Contender, Row, clear_cache
from bench.visits import request_of, user_again
from entitlements_app.access import get_entitlements, has_entitlement
from entitlements_app.models import ActiveEntitlement, Feature
from entitlements_app.request_entitlements import get_request_entitlements

ON_REDIS = {"ENTITLEMENTS_CACHE": "default", "ENTITLEMENTS_CACHE_SECONDS": 3600}
IN_PROCESS = {"ENTITLEMENTS_LOCAL_SECONDS": 3600}
GUARDIAN = {
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend",
        "guardian.backends.ObjectPermissionBackend",
    ]
}


def rows() -> list[Row]:
    return [_cold(), _warm(), _in_process()]


def ask_request(request: HttpRequest) -> bool:
    return get_request_entitlements(request)[KEY]


def ask_user(user: User) -> bool:
    return has_entitlement(user, KEY)


def ask_waffle(request: HttpRequest) -> bool | None:
    return flag_is_active(request, KEY)


def ask_flags(request: HttpRequest) -> bool | None:
    return flag_enabled(KEY, request=request)


def ask_has_perm(user: User) -> bool:
    return user.has_perm(PERMISSION)


class AskGuardian:
    """About the one object that stands for the feature."""

    def __init__(self) -> None:
        self.feature = Feature.objects.get(lookup_key=KEY)

    def __call__(self, user: User) -> bool:
        return user.has_perm(PERMISSION, self.feature)


def ask_djstripe_features(user: User) -> bool:
    """From the subscriber to the feature over all that dj-stripe mirrors between them.

    Its ActiveEntitlement has no customer, so this is the way to ask: which product is subscribed to, and what it has.
    """
    by_user = "product_features__product__prices__subscription_items__subscription"
    return DjstripeFeature.objects.filter(
        **{
            f"{by_user}__customer__subscriber": user,
            f"{by_user}__customer__livemode": False,
            f"{by_user}__stripe_data__status__in": ("active", "trialing"),
            "stripe_data__lookup_key": KEY,
        }
    ).exists()


def ask_djstripe_product(user: User) -> bool:
    """As its documentation has it: the customer's `is_subscribed_to`, of a product known to have the feature."""
    customer, _ = DjstripeCustomer.get_or_create(user)
    return customer.is_subscribed_to(PRODUCT)


def ask_orm(user: User) -> bool:
    """What one would write without this app, on the same tables."""
    rows = ActiveEntitlement.objects.filter(
        customer__subscriber=user, customer__livemode=False, customer__deleted_at=None, customer__account=""
    )
    return KEY in set(rows.values_list("lookup_key", flat=True))


class AskCursor:
    """The very SQL that this app sends, with parameters that never change, through a Django cursor."""

    def __init__(self, user: User) -> None:
        with connection.execute_wrapper(self._note):
            get_entitlements(user)

    def _note(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.sql, self.parameters = sql, list(params)
        return execute(sql, params, many, context)

    def __call__(self, user: User) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(self.sql, self.parameters)
            return cursor.fetchall()


def _cold() -> Row:
    cursor = AskCursor(User.objects.exclude(username="AnonymousUser").earliest("pk"))
    return Row(
        "First check, cold",
        (
            Contender("request.entitlements", ask_request, request_of, kind="ours"),
            Contender("has_entitlement", ask_user, user_again, kind="ours"),
            Contender("Django cursor, constant SQL", cursor, kind="floor"),
            Contender("bare ORM query", ask_orm, user_again),
            Contender("user.has_perm, ModelBackend", ask_has_perm, user_again),
            Contender("django-guardian, user.has_perm", AskGuardian(), user_again, settings=GUARDIAN),
            Contender("django-flags, user condition", ask_flags, request_of, users=1),
            Contender("django-waffle, its cache empty", ask_waffle, request_of, before_each=clear_cache),
            Contender("dj-stripe, query of features", ask_djstripe_features, user_again),
            Contender("dj-stripe, is_subscribed_to", ask_djstripe_product, user_again),
        ),
        (
            Aim("below the bare ORM query", "request.entitlements", 1.0, "bare ORM query"),
            Aim("below the bare ORM query", "has_entitlement", 1.0, "bare ORM query"),
        ),
    )


def _warm() -> Row:
    users = User.objects.values_list("pk", flat=True)
    entries = {f"{kind}:{pk}": "x" * length for pk in users for kind, length in (("bench-v", 16), ("bench-d", 120))}

    def refill() -> None:  # waffle's cold contenders empty it
        if cache.get(f"bench-d:{users[0]}") is None:
            cache.set_many(entries, timeout=None)

    client = redis.Redis.from_url(settings.CACHES["default"]["LOCATION"])

    def one_key(user: User) -> Any:
        return cache.get(f"bench-d:{user.pk}")

    def two_keys(user: User) -> Any:
        return cache.get_many((f"bench-v:{user.pk}", f"bench-d:{user.pk}"))

    def redis_get(user: User) -> Any:
        return client.get(f":1:bench-d:{user.pk}")

    return Row(
        "First check, Redis warm",
        (
            Contender("request.entitlements", ask_request, request_of, settings=ON_REDIS, kind="ours"),
            Contender("has_entitlement", ask_user, user_again, settings=ON_REDIS, kind="ours"),
            Contender("redis-py, one GET", redis_get, refill=refill, kind="floor"),
            Contender("Django cache.get", one_key, refill=refill, kind="floor"),
            Contender("Django cache.get_many of two", two_keys, refill=refill, kind="floor"),
            Contender("django-waffle, its cache warm", ask_waffle, request_of),
        ),
        (
            Aim("within 1.2x of one cache.get", "request.entitlements", 1.2, "Django cache.get"),
            Aim("within 1.2x of one cache.get", "has_entitlement", 1.2, "Django cache.get"),
        ),
    )


def _in_process() -> Row:
    in_process = caches["in_process"]
    in_process.set("bench", True, timeout=None)

    def local_memory(_: object) -> Any:
        return in_process.get("bench")

    return Row(
        "First check, in the process",
        (
            Contender("request.entitlements", ask_request, request_of, settings=IN_PROCESS, kind="ours"),
            Contender("has_entitlement", ask_user, user_again, settings=IN_PROCESS, kind="ours"),
            Contender("LocMemCache, cache.get", local_memory, kind="floor"),
            Contender(
                "django-waffle on LocMemCache", ask_waffle, request_of, settings={"WAFFLE_CACHE_NAME": "in_process"}
            ),
        ),
        (
            Aim("within 2 µs", "request.entitlements", 2.0),
            Aim("within 2 µs", "has_entitlement", 2.0),
        ),
    )
