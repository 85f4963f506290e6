import re
from importlib.metadata import PackageNotFoundError, version

from django.apps import AppConfig, apps
from django.core.checks import Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from entitlements_app import beside_djstripe

OLDEST = (2, 11)


class DjstripeConfig(AppConfig):
    """What dj-stripe knows becomes known here: its customers, its webhooks, its products' names, its settings."""

    name = beside_djstripe.APP
    label = "entitlements_djstripe"
    verbose_name = _("Stripe entitlements beside dj-stripe")

    def import_models(self) -> None:
        # Before any `ready`: that of the admin already imports what needs dj-stripe's models.
        _see_that_all_is_there()
        super().import_models()

    def ready(self) -> None:
        # All of these need loaded models.
        from . import checks, customers, products, webhooks

        customers.connect()
        products.connect()
        webhooks.connect()
        register(checks.check_plugged_in)
        register(checks.check_endpoints, Tags.database)


def _see_that_all_is_there() -> None:
    """Raises `ImproperlyConfigured`, with the remedy, if one of the two apps is missing or cannot be used."""
    try:
        found = re.match(r"(\d+)\.(\d+)", version("dj-stripe"))
    except PackageNotFoundError as error:
        raise ImproperlyConfigured(
            f"{beside_djstripe.APP} is in INSTALLED_APPS, and dj-stripe is not installed: "
            'pip install "django-stripe-entitlements[djstripe]", or take it out.'
        ) from error
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise ImproperlyConfigured(
            f"{beside_djstripe.APP} needs dj-stripe {'.'.join(map(str, OLDEST))} or newer: "
            'pip install --upgrade "django-stripe-entitlements[djstripe]".'
        )
    for app in ("djstripe", "entitlements_app"):
        if not apps.is_installed(app):
            raise ImproperlyConfigured(
                f'{beside_djstripe.APP} is in INSTALLED_APPS, and "{app}" is not: add it, or take the other out.'
            )
    if not beside_djstripe.is_installed():
        raise ImproperlyConfigured(
            f'Write "{beside_djstripe.APP}" in INSTALLED_APPS as it is: settings are read before an AppConfig of '
            "another name is known to be of that app."
        )
