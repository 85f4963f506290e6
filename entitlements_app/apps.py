from django.apps import AppConfig
from django.db.models.signals import pre_delete
from django.utils.translation import gettext_lazy as _


class EntitlementsConfig(AppConfig):
    name = "entitlements_app"
    verbose_name = _("Stripe entitlements")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Both need loaded models.
        from .linking import lock_before_deletion
        from .subscribers import get_subscriber_model

        pre_delete.connect(lock_before_deletion, sender=get_subscriber_model())
