"""System checks of what a site has set. What is malformed is an Error, what is missing a Warning.

Ids are stable. One that falls out of use stays named in a comment, and is never given to another check. No message
repeats the value of a setting: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  (Django's own name)
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import beside_djstripe, conf
from .subscribers import get_subscriber_model

# E005 is in database_checks. A malformed ENTITLEMENTS_SUBSCRIBER_MODEL stops the start before any check.
_MALFORMED: tuple[tuple[str, Callable[[], object], str], ...] = (
    ("E001", conf.stripe_api_key, "Take the key from Stripe's Dashboard: rk_live_… or sk_test_…, or set None."),
    ("E002", conf.livemode, "Leave ENTITLEMENTS_LIVEMODE out: then the mode follows the API key."),
    ("E003", conf.stripe_api_base, "Leave it out, to use Stripe's own."),
    ("E004", conf.webhook_secrets, "Give each signing secret as one text, and see that its variable is set."),
    ("E006", conf.subscriber_from_request, "Name a function f(request) that returns a subscriber or None."),
    ("E007", conf.unknown_feature, 'Leave it out, for "warn".'),
    ("E008", conf.denied, "Name a function f(request, missing), or a page as for LOGIN_URL. Leave it out, for 403."),
    ("E009", conf.stripe_rate, "Leave it out, for 10."),
    ("E010", conf.confirm_every, "Leave it out, for timedelta(days=7)."),
    ("E014", conf.subscriber_for_customer, "Name a function f(customer) that returns a subscriber or None."),
    ("E015", conf.cache, "Name an alias in CACHES, or leave it out, for no cache."),
    ("E016", conf.cache_seconds, "Leave it out, for 300."),
    ("E017", conf.local_seconds, "Leave it out, for 0."),
    ("E018", conf.webhook_processing, 'Leave it out, for "inline".'),
)

_HINTS_BESIDE_DJSTRIPE = {
    "E001": "Take the key from Stripe's Dashboard: rk_live_… or sk_test_…. With ENTITLEMENTS_STRIPE_API_KEY, those of "
    "dj-stripe's settings are not read.",
    "E002": "See that STRIPE_LIVE_MODE and the key are of one mode, and leave ENTITLEMENTS_LIVEMODE out. Or set "
    "ENTITLEMENTS_STRIPE_API_KEY: then the mode follows it, and dj-stripe's is not read.",
    "E003": "Leave it out, to use Stripe's own. With ENTITLEMENTS_STRIPE_API_BASE, STRIPE_API_HOST is not read.",
    "E006": "Name a function f(request) that returns a subscriber or None. With ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST, "
    "DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK is not read.",
}
_OF_ONE_PROCESS = ("django.core.cache.backends.locmem.", "django.core.cache.backends.dummy.")


def check_settings(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    return [*_malformed(), *_misspelt(), *_no_subscriber(), *_cache_of_one_process(), *_no_workers()]


def check_credentials(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    return [*_no_key(), *_no_secret(), *_unencrypted()]


def check_deployment(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    return list(_simulated())


def _malformed() -> Iterator[CheckMessage]:
    hints = _HINTS_BESIDE_DJSTRIPE if beside_djstripe.is_installed() else {}
    for number, read, hint in _MALFORMED:
        try:
            read()
        except ImproperlyConfigured as error:
            # The key and the mode are read of each other. What is wrong with either is told once, as its own.
            if number in ("E001", "E002") and (number == "E001") is not isinstance(error, conf.MalformedKey):
                continue
            yield Error(str(error), hint=hints.get(number, hint), id=f"entitlements_app.{number}")


def _misspelt() -> Iterator[CheckMessage]:
    for name in dir(settings):
        if name.startswith("ENTITLEMENTS_") and name not in conf.NAMES:
            near = get_close_matches(name, conf.NAMES, n=1)
            yield Warning(
                f"{name} is no setting of entitlements_app.",
                hint=f"Did you mean {near[0]}?" if near else "Remove it.",
                id="entitlements_app.W008",
            )


def _no_subscriber() -> Iterator[CheckMessage]:
    users_pay = issubclass(get_user_model(), get_subscriber_model())
    if not users_pay and conf.read("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST").value is None:
        setting = conf.read("ENTITLEMENTS_SUBSCRIBER_MODEL").name
        theirs = " or DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK" if beside_djstripe.is_installed() else ""
        yield Warning(
            f"{setting} is not the user model, and nothing says which subscriber a request is of: "
            "every gate that asks about a request of a signed-in user will fail.",
            hint=f"Set ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST{theirs} to the dotted path of a function f(request).",
            id="entitlements_app.W007",
        )


def _cache_of_one_process() -> Iterator[CheckMessage]:
    alias = if_well_formed(conf.cache)
    backend = settings.CACHES[alias].get("BACKEND", "") if alias else ""
    # Workers are processes of their own.
    only_one = settings.DEBUG and if_well_formed(conf.webhook_processing) != "celery"
    if backend.startswith(_OF_ONE_PROCESS) and not only_one:
        yield Warning(
            f"ENTITLEMENTS_CACHE names a cache of one process alone ({backend}): when an answer changes, the other "
            "processes give the old one for ENTITLEMENTS_CACHE_SECONDS.",
            hint="Use a cache that all processes share, such as Redis, or leave it out. For a site that has only one "
            "process, silence this.",
            id="entitlements_app.W012",
        )


def _no_workers() -> Iterator[CheckMessage]:
    if if_well_formed(conf.webhook_processing) != "celery":
        return
    try:
        wrong = None if import_string("entitlements_app.tasks.has_app")() else "no Celery app is set up in this process"
    except ImportError:
        wrong = "Celery cannot be imported"
    if wrong:
        yield Error(
            f'ENTITLEMENTS_WEBHOOK_PROCESSING is "celery", and {wrong}: no worker would be woken.',
            hint='pip install "django-stripe-entitlements[celery]", and import your Celery app in the __init__ of your '
            "project, so that every process has it.",
            id="entitlements_app.E019",
        )


def _no_key() -> Iterator[CheckMessage]:
    if if_well_formed(conf.stripe_api_key) is None and _is_well_formed(conf.stripe_api_key):
        mode = "live" if if_well_formed(conf.livemode) else "test"
        missing, hint = "ENTITLEMENTS_STRIPE_API_KEY is not set", "Set it"
        if beside_djstripe.is_installed():
            theirs = beside_djstripe.LIVE_KEY if mode == "live" else beside_djstripe.TEST_KEY
            missing = f"Neither ENTITLEMENTS_STRIPE_API_KEY nor {theirs} is set"
            hint = (
                f"Keys that stand only in dj-stripe's table are not used. Set {theirs}, or ENTITLEMENTS_STRIPE_API_KEY"
            )
        yield Warning(
            f"{missing}: lost webhooks are never mended, and gates see {mode} mode.",
            hint=f"{hint} to a restricted key that may read entitlements, customers, events and products.",
            id="entitlements_app.W001",
        )


def _no_secret() -> Iterator[CheckMessage]:
    if if_well_formed(conf.webhook_secrets) == () and not beside_djstripe.has_endpoint():
        not_needed = (
            "dj-stripe's endpoint needs none, once it has a URL. Or: " if beside_djstripe.is_installed() else ""
        )
        yield Warning(
            "ENTITLEMENTS_WEBHOOK_SECRETS is empty: every webhook is refused.",
            hint=f'{not_needed}Set it to a list with the signing secret of your endpoint in Stripe: ["whsec_…"].',
            id="entitlements_app.W002",
        )


def _unencrypted() -> Iterator[CheckMessage]:
    parts = urlsplit(if_well_formed(conf.stripe_api_base) or "")
    setting = conf.read("ENTITLEMENTS_STRIPE_API_BASE").name
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield Warning(
            f"{setting} is not https: the API key would cross the network unencrypted.",
            hint="Use https for everything but a simulator on this machine.",
            id="entitlements_app.W010",
        )


def _simulated() -> Iterator[CheckMessage]:
    if conf.SIMULATOR_SECRET in (if_well_formed(conf.webhook_secrets) or ()):
        yield Warning(
            "ENTITLEMENTS_WEBHOOK_SECRETS holds the simulator's secret, which everybody knows: whoever reaches the "
            "endpoint opens every gate.",
            hint="See that the variable it comes from is set, to the signing secret of your endpoint in Stripe.",
            id="entitlements_app.W018",
        )


def _is_well_formed(read: Callable[[], object]) -> bool:
    try:
        read()
    except ImproperlyConfigured:
        return False
    return True


def if_well_formed(read: Callable[[], Any]) -> Any:
    """The setting, or `None` if it is malformed, which another check tells."""
    return read() if _is_well_formed(read) else None
