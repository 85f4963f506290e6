"""Every setting of the app, with its type and default. Settings are read at use, never at import.

What is not set comes from dj-stripe's settings, where the site runs beside it. Messages name the setting that was read.
What gates need on every request is parsed once, and anew after `setting_changed`, which `override_settings` sends. A
malformed setting raises `ImproperlyConfigured`. No message repeats a value: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.views.decorators.debug import sensitive_variables

from . import beside_djstripe, site_functions
from .beside_djstripe import Setting

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

_TEST_PREFIXES = ("sk_test_", "rk_test_")
_LIVE_PREFIXES = ("sk_live_", "rk_live_")
_KEY_PREFIXES = (*_TEST_PREFIXES, *_LIVE_PREFIXES, "pk_test_", "pk_live_")
SIMULATOR_SECRET = "whsec_simulator"  # noqa: S105  (everybody knows it: `entitlements_simulator` signs with it)
_STRIPE_RATES = (0.01, 10_000)
_LONGEST_CONFIRM_EVERY = timedelta(days=366)
_LONGEST_CACHE_SECONDS = 7 * 24 * 3600


class MalformedKey(ImproperlyConfigured):
    """No API key can be read, and so no mode that follows it, either."""


def read(name: str) -> Setting:
    """A setting of ours, as it is written; if it is not set, the one of dj-stripe's that says the same.

    Only for those that have one: `beside_djstripe.INSTEAD`.
    """
    own = getattr(settings, name, None)
    if own is None or own == "":
        theirs = beside_djstripe.INSTEAD[name]
        if value := beside_djstripe.get(theirs):
            return Setting(value, theirs)
    return Setting(own, name)


@sensitive_variables()
def stripe_api_key() -> str | None:
    """The secret or restricted key, `None` where Stripe is not to be called."""
    return _key().value  # type: ignore[no-any-return]


@sensitive_variables()
def livemode() -> bool:
    """The mode that gates see: as set, else the API key's, else test mode."""
    mode, key = _mode(), _key()
    if key.value is not None and _is_live(key.value) is not mode.value:
        raise ImproperlyConfigured(
            f"{mode.name} contradicts the prefix of {key.name}: "
            "asking one mode about customers of the other would take their access away."
        )
    return mode.value  # type: ignore[no-any-return]


@sensitive_variables()
def _key() -> Setting:
    own = _own_key()
    if own is not None or not beside_djstripe.is_installed():
        return Setting(own, "ENTITLEMENTS_STRIPE_API_KEY")
    value, name = beside_djstripe.default_api_key(livemode=_mode().value)
    return Setting(_parsed_key(name, value), name)


@sensitive_variables()
def _mode() -> Setting:
    """The mode, whether or not the key is of it. dj-stripe's is not asked if there is a key of ours."""
    mode = getattr(settings, "ENTITLEMENTS_LIVEMODE", None)
    if mode is not None:
        if not isinstance(mode, bool):
            raise ImproperlyConfigured("ENTITLEMENTS_LIVEMODE must be True or False.")
        return Setting(mode, "ENTITLEMENTS_LIVEMODE")
    key, name = _own_key(), "ENTITLEMENTS_STRIPE_API_KEY"
    if key is None:
        theirs = beside_djstripe.get(beside_djstripe.LIVE_MODE)
        if theirs is not None:
            if theirs not in (True, False):
                raise ImproperlyConfigured("STRIPE_LIVE_MODE must be True or False; dj-stripe takes any text for True.")
            return Setting(bool(theirs), beside_djstripe.LIVE_MODE)
        name = beside_djstripe.SECRET_KEY
        key = _parsed_key(name, beside_djstripe.get(name))
    return Setting(False, "Test mode, the default,") if key is None else Setting(_is_live(key), f"The prefix of {name}")


@sensitive_variables()
def _own_key() -> str | None:
    key = getattr(settings, "ENTITLEMENTS_STRIPE_API_KEY", None)
    return _parsed_key("ENTITLEMENTS_STRIPE_API_KEY", key)


@sensitive_variables()
def _parsed_key(name: str, key: object) -> str | None:
    if key is None or key == "":
        return None
    if not isinstance(key, str) or not key.strip().isascii() or len(key.split()) != 1:
        raise MalformedKey(f"{name} must be one ASCII string without blanks.")
    key = key.strip()
    if not key.startswith(_TEST_PREFIXES + _LIVE_PREFIXES):
        raise MalformedKey(
            f"{name} must be a secret or restricted key: it starts with sk_test_, rk_test_, sk_live_ or rk_live_."
        )
    return key


def _is_live(key: str) -> bool:
    return key.startswith(_LIVE_PREFIXES)


def stripe_api_base() -> str | None:
    """Base URL without a trailing slash, `None` for Stripe's own."""
    base, name = read("ENTITLEMENTS_STRIPE_API_BASE")
    if base is None or base == "":
        return None
    if not isinstance(base, str) or not _is_base_url(base.strip()):
        raise ImproperlyConfigured(f"{name} must be a URL like https://stripe.proxy.example, without path or query.")
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
    """The signing secrets, stripped.

    None of them is one that anybody could sign with: empty, or the simulator's while Stripe itself is asked.
    """
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
    stripped = tuple(secret.strip() for secret in secrets)
    if SIMULATOR_SECRET in stripped and _asks_stripe_itself():
        raise ImproperlyConfigured(
            "ENTITLEMENTS_WEBHOOK_SECRETS holds the simulator's secret, which everybody knows, and the API key is "
            "Stripe's. See that the variable it comes from is set, to the signing secret of your endpoint in Stripe; "
            "for the simulator set ENTITLEMENTS_STRIPE_API_BASE as well."
        )
    return stripped


def _asks_stripe_itself() -> bool:
    try:
        return _key().value is not None and stripe_api_base() is None
    except ImproperlyConfigured:  # told where the key, the mode or the base is read
        return False


def webhook_processing() -> Literal["inline", "celery"]:
    """Who does the work that news bring: the process that received them, or workers."""
    processing = getattr(settings, "ENTITLEMENTS_WEBHOOK_PROCESSING", "inline")
    if processing not in ("inline", "celery"):
        raise ImproperlyConfigured('ENTITLEMENTS_WEBHOOK_PROCESSING must be "inline" or "celery".')
    return cast(Literal["inline", "celery"], processing)


def subscriber_model() -> str:
    """The model that pays, as `app_label.ModelName`. Chosen before the first migrate, which names it as this does."""
    model, name = read("ENTITLEMENTS_SUBSCRIBER_MODEL")
    model = model or settings.AUTH_USER_MODEL
    if not isinstance(model, str) or model.count(".") != 1:
        raise ImproperlyConfigured(f'{name} must look like "app_label.ModelName".')
    return model


def subscriber_migration() -> tuple[str, str]:
    """What has to be migrated before a foreign key to the subscriber: app and migration."""
    model = subscriber_model()
    return model.partition(".")[0], beside_djstripe.subscriber_migration(model) or "__first__"


@lru_cache(maxsize=1)
def subscriber_from_request() -> Callable[[Any], Any] | None:
    """The site's `f(request) -> subscriber or None`, sync or async; `None` stands for `request.user`."""
    value, name = read("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST")
    if name != "ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST" and callable(value):  # dj-stripe takes the function itself, too
        return site_functions.checked(name, value, "request")
    return site_functions.load(name, value, "request")


def subscriber_for_customer() -> Callable[[Any], Any] | None:
    """The site's `f(customer) -> subscriber or None`, asked about customers that nobody has linked."""
    name = "ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER"
    path = getattr(settings, "ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", None)
    function = site_functions.load(name, path, "customer")
    if iscoroutinefunction(function):
        raise ImproperlyConfigured(f"{name} names an async function; workers call it.")
    return function


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
    return site_functions.load_or_resolve("ENTITLEMENTS_DENIED", value, "request", "missing")


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
