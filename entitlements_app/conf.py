"""Every setting of the app, with its type and default. Settings are read at use, never at import.

What gates need on every request is parsed once, and anew after `setting_changed`, which `override_settings` sends. A
malformed setting raises `ImproperlyConfigured`. No message repeats a value: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from inspect import iscoroutinefunction, signature
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

NAMES = (
    "ENTITLEMENTS_STRIPE_API_KEY",
    "ENTITLEMENTS_LIVEMODE",
    "ENTITLEMENTS_STRIPE_API_BASE",
    "ENTITLEMENTS_WEBHOOK_SECRETS",
    "ENTITLEMENTS_WEBHOOK_PROCESSING",
    "ENTITLEMENTS_SUBSCRIBER_MODEL",
    "ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST",
    "ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER",
    "ENTITLEMENTS_CACHE",
    "ENTITLEMENTS_CACHE_SECONDS",
    "ENTITLEMENTS_LOCAL_SECONDS",
    "ENTITLEMENTS_UNKNOWN_FEATURE",
    "ENTITLEMENTS_DENIED",
    "ENTITLEMENTS_STRIPE_RATE",
    "ENTITLEMENTS_CONFIRM_EVERY",
)

_NOT_DENIED = (
    "ENTITLEMENTS_DENIED is neither the dotted path of a function that can be imported, nor a URL that begins with "
    "/ or https://, nor the name of one."
)
_TEST_PREFIXES = ("sk_test_", "rk_test_")
_LIVE_PREFIXES = ("sk_live_", "rk_live_")
_KEY_PREFIXES = (*_TEST_PREFIXES, *_LIVE_PREFIXES, "pk_test_", "pk_live_")
_STRIPE_RATES = (0.01, 10_000)
_LONGEST_CONFIRM_EVERY = timedelta(days=366)
_LONGEST_CACHE_SECONDS = 7 * 24 * 3600


@sensitive_variables()
def stripe_api_key() -> str | None:
    """The secret or restricted key, `None` where Stripe is not to be called."""
    key = getattr(settings, "ENTITLEMENTS_STRIPE_API_KEY", None)
    if key is None or key == "":
        return None
    if not isinstance(key, str) or not key.strip().isascii() or len(key.split()) != 1:
        raise ImproperlyConfigured("ENTITLEMENTS_STRIPE_API_KEY must be one ASCII string without blanks.")
    key = key.strip()
    if not key.startswith(_TEST_PREFIXES + _LIVE_PREFIXES):
        raise ImproperlyConfigured(
            "ENTITLEMENTS_STRIPE_API_KEY must be a secret or restricted key: "
            "it starts with sk_test_, rk_test_, sk_live_ or rk_live_."
        )
    return key


@sensitive_variables()
def livemode() -> bool:
    """The mode that gates see: as set, else the API key's, else test mode."""
    key = stripe_api_key()
    of_key = None if key is None else key.startswith(_LIVE_PREFIXES)
    mode = getattr(settings, "ENTITLEMENTS_LIVEMODE", None)
    if mode is None:
        return bool(of_key)
    if not isinstance(mode, bool):
        raise ImproperlyConfigured("ENTITLEMENTS_LIVEMODE must be True or False.")
    if of_key is not None and mode is not of_key:
        raise ImproperlyConfigured(
            "ENTITLEMENTS_LIVEMODE contradicts the prefix of ENTITLEMENTS_STRIPE_API_KEY: "
            "asking one mode about customers of the other would take their access away."
        )
    return mode


def stripe_api_base() -> str | None:
    """Base URL without a trailing slash, `None` for Stripe's own."""
    base = getattr(settings, "ENTITLEMENTS_STRIPE_API_BASE", None)
    if base is None or base == "":
        return None
    if not isinstance(base, str) or not _is_base_url(base.strip()):
        raise ImproperlyConfigured(
            "ENTITLEMENTS_STRIPE_API_BASE must be a URL like https://stripe.proxy.example, without path or query."
        )
    return base.strip().rstrip("/")


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises ValueError when it is no number)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and parts.username is None
        and parts.path in ("", "/")
        and not parts.query
        and not parts.fragment
    )


@sensitive_variables()
def webhook_secrets() -> tuple[str, ...]:
    """The signing secrets, stripped. None of them is empty: an empty secret would verify forged events."""
    secrets = getattr(settings, "ENTITLEMENTS_WEBHOOK_SECRETS", ())
    if isinstance(secrets, str) or not isinstance(secrets, list | tuple):
        raise ImproperlyConfigured('ENTITLEMENTS_WEBHOOK_SECRETS must be a list, like ["whsec_…"].')
    if not all(isinstance(secret, str) and secret.strip() for secret in secrets):
        raise ImproperlyConfigured("ENTITLEMENTS_WEBHOOK_SECRETS holds something that is empty or not a string.")
    if any(secret.strip().startswith(_KEY_PREFIXES) for secret in secrets):
        raise ImproperlyConfigured(
            "ENTITLEMENTS_WEBHOOK_SECRETS holds an API key. Stripe shows the signing secret of an endpoint, whsec_…, "
            "with the endpoint."
        )
    return tuple(secret.strip() for secret in secrets)


def webhook_processing() -> Literal["inline", "celery"]:
    """Who does the work that news bring: the process that received them, or workers."""
    processing = getattr(settings, "ENTITLEMENTS_WEBHOOK_PROCESSING", "inline")
    if processing not in ("inline", "celery"):
        raise ImproperlyConfigured('ENTITLEMENTS_WEBHOOK_PROCESSING must be "inline" or "celery".')
    return cast(Literal["inline", "celery"], processing)


def subscriber_model() -> str:
    """The model that pays, as `app_label.ModelName`. Chosen before the first migrate."""
    model = getattr(settings, "ENTITLEMENTS_SUBSCRIBER_MODEL", None) or settings.AUTH_USER_MODEL
    if not isinstance(model, str) or model.count(".") != 1:
        raise ImproperlyConfigured('ENTITLEMENTS_SUBSCRIBER_MODEL must look like "app_label.ModelName".')
    return model


@lru_cache(maxsize=1)
def subscriber_from_request() -> Callable[[Any], Any] | None:
    """The site's `f(request) -> subscriber or None`, sync or async; `None` stands for `request.user`."""
    return _function("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "request")


def subscriber_for_customer() -> Callable[[Any], Any] | None:
    """The site's `f(customer) -> subscriber or None`, asked about customers that nobody has linked."""
    function = _function("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", "customer")
    if iscoroutinefunction(function):
        raise ImproperlyConfigured("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER names an async function; workers call it.")
    return function


def _function(name: str, argument: str) -> Callable[[Any], Any] | None:
    path = getattr(settings, name, None)
    if path is None:
        return None
    if not isinstance(path, str):
        raise ImproperlyConfigured(f"{name} must be the dotted path of a function.")
    return _imported(name, path, argument)


@lru_cache(maxsize=16)
def _imported(name: str, path: str, argument: str) -> Callable[[Any], Any]:
    try:
        function = import_string(path)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"{name} must be the dotted path of a function that can be imported.") from error
    if not callable(function):
        raise ImproperlyConfigured(f"{name} names something that cannot be called.")
    if not _takes(function, argument):
        raise ImproperlyConfigured(f"{name} names a function that does not take ({argument}).")
    return function  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], *arguments: str) -> bool:
    try:
        signature(function).bind(*arguments)
    except (TypeError, ValueError):  # the second of one that tells nothing, as some of C do
        return False
    return True


def cache() -> str | None:
    """The alias in `CACHES` of the cache that answers are shared in; `None`: each is read from the database."""
    alias = getattr(settings, "ENTITLEMENTS_CACHE", None)
    if alias is None:
        return None
    if not isinstance(alias, str) or alias not in settings.CACHES:
        raise ImproperlyConfigured("ENTITLEMENTS_CACHE must be an alias in CACHES, or None.")
    return alias


def cache_seconds() -> float:
    """How long a shared answer lives, and so for how long it can be wrong if its invalidation was lost."""
    return _seconds("ENTITLEMENTS_CACHE_SECONDS", 300, lowest=1)


def local_seconds() -> float:
    """How long an answer lives in the process that read it, whatever happens meanwhile. 0: not at all."""
    return _seconds("ENTITLEMENTS_LOCAL_SECONDS", 0, lowest=0)


def _seconds(name: str, default: float, *, lowest: float) -> float:
    seconds = getattr(settings, name, default)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not lowest <= seconds <= _LONGEST_CACHE_SECONDS:
        raise ImproperlyConfigured(f"{name} must be a number of seconds, from {lowest} to {_LONGEST_CACHE_SECONDS}.")
    return float(seconds)


@lru_cache(maxsize=1)
def unknown_feature() -> Literal["raise", "warn", "ignore"]:
    """What happens when a gate asks for a key that no feature has. The answer is no in any case."""
    policy = getattr(settings, "ENTITLEMENTS_UNKNOWN_FEATURE", "warn")
    if policy not in ("raise", "warn", "ignore"):
        raise ImproperlyConfigured('ENTITLEMENTS_UNKNOWN_FEATURE must be "raise", "warn" or "ignore".')
    return cast(Literal["raise", "warn", "ignore"], policy)


def denied() -> Callable[..., Any] | str | None:
    """What answers signed-in visitors whom a gate denies: a function, a URL, or `None` for 403."""
    value = getattr(settings, "ENTITLEMENTS_DENIED", None)
    if value is None:
        return None
    if isinstance(value, Promise):  # reverse_lazy
        return _denied_url(value)
    if not isinstance(value, str) or not value.strip():
        raise ImproperlyConfigured("ENTITLEMENTS_DENIED must be a dotted path, a URL, the name of one, or None.")
    if "." in value and all(part.isidentifier() for part in value.split(".")):
        return _denied_function(value)
    return _denied_url(value)


def _denied_function(path: str) -> Callable[..., Any]:
    try:
        function = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(_NOT_DENIED) from error
    if not callable(function):
        raise ImproperlyConfigured("ENTITLEMENTS_DENIED names something that cannot be called.")
    if not _takes(function, "request", "missing"):
        raise ImproperlyConfigured("ENTITLEMENTS_DENIED names a function that does not take (request, missing).")
    return function  # type: ignore[no-any-return]


def _denied_url(value: str | Promise) -> str:
    try:
        url = resolve_url(str(value))
        parts = urlsplit(url)
    except (NoReverseMatch, ValueError) as error:
        raise ImproperlyConfigured(_NOT_DENIED) from error
    # `resolve_url` takes any text with a dot or a slash for a URL.
    if not (url.startswith("/") or (parts.scheme in ("http", "https") and parts.netloc)):
        raise ImproperlyConfigured(_NOT_DENIED)
    return url


def stripe_rate() -> float:
    """Calls per second that all workers together may make, for one account and mode."""
    rate = getattr(settings, "ENTITLEMENTS_STRIPE_RATE", 10)
    low, high = _STRIPE_RATES
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not low <= rate <= high:
        raise ImproperlyConfigured(f"ENTITLEMENTS_STRIPE_RATE must be a number of calls per second, {low} to {high}.")
    return float(rate)


def confirm_every() -> timedelta:
    """Each customer is compared with Stripe at least this often."""
    every = getattr(settings, "ENTITLEMENTS_CONFIRM_EVERY", timedelta(days=7))
    if not isinstance(every, timedelta) or not timedelta(0) < every <= _LONGEST_CONFIRM_EVERY:
        raise ImproperlyConfigured("ENTITLEMENTS_CONFIRM_EVERY must be a timedelta above 0 and of at most a year.")
    return every


def check() -> None:
    """Read every setting that receiving and fetching need, so that a malformed one is told before any work."""
    webhook_secrets()
    webhook_processing()
    livemode()
    stripe_api_base()
    stripe_rate()
    confirm_every()
    subscriber_for_customer()
    of_gates()


class OfGates(NamedTuple):
    """What every question needs to know, parsed."""

    livemode: bool
    subscriber_model: str
    cache: str | None
    cache_seconds: float
    local_seconds: float


@lru_cache(maxsize=1)
def of_gates() -> OfGates:
    """These settings, parsed once: a gate is asked on every request. `override_settings` has them parsed anew."""
    return OfGates(livemode(), subscriber_model(), cache(), cache_seconds(), local_seconds())


def forget(**_: object) -> None:
    """Receiver of `setting_changed`: what gates read on every request is parsed once."""
    for parsed in (of_gates, subscriber_from_request, unknown_feature):
        parsed.cache_clear()


setting_changed.connect(forget, dispatch_uid="entitlements_app.conf")
