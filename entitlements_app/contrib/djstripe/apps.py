from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class DjstripeConfig(AppConfig):
    """What dj-stripe knows becomes known here: its customers, its webhooks, its products' names, its settings."""

    name = "entitlements_app.contrib.djstripe"
    label = "entitlements_djstripe"
    verbose_name = _("Stripe entitlements beside dj-stripe")

    def ready(self) -> None:
        # All of these need loaded models.
        from . import checks, customers, products, webhooks

        customers.connect()
        products.connect()
        webhooks.connect()
        register(checks.check_plugged_in)
