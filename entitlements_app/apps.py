from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EntitlementsConfig(AppConfig):
    name = "entitlements_app"
    label = "entitlements_app"
    verbose_name = _("Stripe entitlements")
    default_auto_field = "django.db.models.BigAutoField"
