"""What a site has set up for dj-stripe already, where `entitlements_app.contrib.djstripe` is in `INSTALLED_APPS`.

Settings are read before any app is loaded, so nothing of dj-stripe is imported here. Without that app nothing of
dj-stripe's is read. Nothing is judged here, either: `conf` does that.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.urls import NoReverseMatch, reverse

APP = "entitlements_app.contrib.djstripe"
SECRET_KEY, TEST_KEY, LIVE_KEY = KEYS = ("STRIPE_SECRET_KEY", "STRIPE_TEST_SECRET_KEY", "STRIPE_LIVE_SECRET_KEY")
LIVE_MODE = "STRIPE_LIVE_MODE"
# Settings of ours, and those of dj-stripe's that say the same.
INSTEAD = {
    "ENTITLEMENTS_STRIPE_API_BASE": "STRIPE_API_HOST",
    "ENTITLEMENTS_SUBSCRIBER_MODEL": "DJSTRIPE_SUBSCRIBER_MODEL",
    "ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST": "DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK",
}


class Setting(NamedTuple):
    """A value, `None` if there is none, and the name of the setting that it was read from."""

    value: Any
    name: str


def is_installed() -> bool:
    """Whether the app that links the two is in `INSTALLED_APPS`, by its path or by that of its `AppConfig`."""
    return any(app == APP or app.startswith(f"{APP}.") for app in settings.INSTALLED_APPS)


def get(name: str) -> Any:
    """A setting of dj-stripe's; `None` where it is empty, or dj-stripe is not beside us."""
    value = getattr(settings, name, None)
    return value if value is not None and value != "" and is_installed() else None


def default_api_key(*, livemode: bool) -> Setting:
    """The key that `djstripe_settings.get_default_api_key(livemode)` gives. Keys in its table of them do not count."""
    names = [LIVE_KEY if livemode else TEST_KEY]
    if hasattr(settings, SECRET_KEY):
        names.append(SECRET_KEY)
    else:
        names.append(LIVE_KEY if get(LIVE_MODE) else TEST_KEY)
    return next((Setting(value, name) for name in names if (value := get(name))), Setting(None, names[0]))


def subscriber_migration(model: str) -> str | None:
    """The migration that makes this model, if it is dj-stripe's subscriber and the site has said so."""
    is_theirs = model == get("DJSTRIPE_SUBSCRIBER_MODEL") != settings.AUTH_USER_MODEL
    return get("DJSTRIPE_SUBSCRIBER_MODEL_MIGRATION_DEPENDENCY") if is_theirs else None


def has_endpoint() -> bool:
    """Whether dj-stripe's webhook endpoint is among the site's URLs."""
    return is_installed() and is_routed("djstripe:djstripe_webhook_by_uuid", UUID(int=0))


def is_routed(name: str, *args: object) -> bool:
    """Whether the site has a URL of that name."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        reverse(name, args=args)
    except NoReverseMatch:
        return False
    return True
