"""System checks of how the app is plugged in: middleware, backends, URLs, app labels. Ids: see checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  (Django's own name)
from django.utils.module_loading import import_string

from . import beside_djstripe, conf
from .backends import LABEL, EntitlementsBackend
from .checks import if_well_formed
from .middleware import EntitlementsMiddleware


def check_middleware(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    classes = _imported(settings.MIDDLEWARE)
    ours = _first(EntitlementsMiddleware, classes)
    if ours is None:
        return [
            Warning(
                "EntitlementsMiddleware is not in MIDDLEWARE: requests have no `entitlements`, and a template that "
                "asks for request.entitlements sees no feature.",
                hint='Add "entitlements_app.middleware.EntitlementsMiddleware" after AuthenticationMiddleware.',
                id="entitlements_app.W004",
            )
        ]
    authentication = _first(AuthenticationMiddleware, classes)
    if authentication is None:
        return _no_authentication()
    if authentication > ours:
        return [
            Error(
                "EntitlementsMiddleware must come after AuthenticationMiddleware, which says who asks.",
                hint='Put "entitlements_app.middleware.EntitlementsMiddleware" below '
                '"django.contrib.auth.middleware.AuthenticationMiddleware" in MIDDLEWARE.',
                id="entitlements_app.E011",
            )
        ]
    return []


def _no_authentication() -> list[CheckMessage]:
    if conf.read("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST").value is not None:
        return []
    return [
        Warning(
            "AuthenticationMiddleware is not in MIDDLEWARE. Unless a middleware of yours sets request.user before "
            "EntitlementsMiddleware, gates take every visitor for anonymous.",
            hint='Add "django.contrib.auth.middleware.AuthenticationMiddleware", or set '
            "ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST. If your own middleware does it, silence this.",
            id="entitlements_app.W011",
        )
    ]


def check_backends(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    classes = _imported(settings.AUTHENTICATION_BACKENDS)
    ours = _first(EntitlementsBackend, classes)
    if ours is None:
        return []
    # The first backend is who Django takes a session to be from (`force_login`), and this one has no users.
    model_backend = _first(ModelBackend, classes)
    if ours == 0 or (model_backend is not None and model_backend > ours):
        return [
            Error(
                "EntitlementsBackend must come after ModelBackend: it answers permissions and signs nobody in.",
                hint='Put "entitlements_app.backends.EntitlementsBackend" last in AUTHENTICATION_BACKENDS, after '
                '"django.contrib.auth.backends.ModelBackend".',
                id="entitlements_app.E012",
            )
        ]
    return []


def check_webhook_url(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    if not getattr(settings, "ROOT_URLCONF", None) or beside_djstripe.has_endpoint():
        return []
    if beside_djstripe.is_routed("entitlements:webhook"):
        return []
    if beside_djstripe.is_installed():
        endpoint = "Neither dj-stripe's webhook endpoint nor this app's has a URL"
        include = 'path("stripe/", include("djstripe.urls", namespace="djstripe"))'
    else:
        endpoint = "The webhook endpoint has no URL"
        include = 'path("stripe/", include("entitlements_app.urls"))'
    return [
        Warning(
            f"{endpoint}: Stripe cannot say what changes.",
            hint=f"Add {include} to your urlpatterns.",
            id="entitlements_app.W003",
        )
    ]


def check_djstripe(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    """Whoever forgets the app that links the two would migrate for the wrong subscribers before anything looks wrong.

    A site that has an endpoint of ours has set this app up by itself, and may mean it.
    """
    if not apps.is_installed("djstripe") or beside_djstripe.is_installed():
        return []
    if if_well_formed(conf.webhook_secrets) != ():
        return []
    return [
        Warning(
            f'"djstripe" is in INSTALLED_APPS, and {beside_djstripe.APP} is not: dj-stripe\'s key, subscriber model, '
            "customers and webhooks do not count here.",
            hint=f'Add "{beside_djstripe.APP}" before the first migrate, which chooses the subscriber model for good. '
            "If the two are to have nothing to do with each other, set ENTITLEMENTS_WEBHOOK_SECRETS, or silence this.",
            id="entitlements_app.W016",
        )
    ]


def check_label(app_configs: object, **kwargs: Any) -> list[CheckMessage]:
    message = (
        "{} has the app label {!r}, which EntitlementsBackend answers permissions for: "
        "a lookup key like change_invoice {} a permission on its models."
    )
    hint = "Give that app another label, or do not use EntitlementsBackend."
    is_used = _first(EntitlementsBackend, _imported(settings.AUTHENTICATION_BACKENDS)) is not None
    return [
        Error(message.format(app.name, LABEL, "is"), hint=hint, id="entitlements_app.E013")
        if is_used
        else Warning(message.format(app.name, LABEL, "would be"), hint=hint, id="entitlements_app.W005")
        for app in apps.get_app_configs()
        if app.label == LABEL
    ]


def _imported(paths: Iterable[str]) -> list[object]:
    imported: list[object] = []
    for path in paths:
        try:
            imported.append(import_string(path))
        except ImportError:  # Django says so at the start
            imported.append(None)
    return imported


def _first(wanted: type, classes: list[object]) -> int | None:
    return next((n for n, cls in enumerate(classes) if isinstance(cls, type) and issubclass(cls, wanted)), None)
