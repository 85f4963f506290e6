from django.apps import AppConfig, apps
from django.core.checks import Tags, register
from django.db.models.signals import pre_delete
from django.utils.translation import gettext_lazy as _


class EntitlementsConfig(AppConfig):
    name = "entitlements_app"
    verbose_name = _("Stripe entitlements")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # All of these need loaded models.
        from . import checks, database_checks, wiring_checks
        from .linking import lock_before_deletion
        from .subscribers import get_subscriber_model

        subscriber_model = get_subscriber_model()
        for model in apps.get_models():
            if model._meta.concrete_model is subscriber_model:  # a proxy is the sender of what is deleted through it
                pre_delete.connect(lock_before_deletion, sender=model)
        register(checks.check_settings)
        register(checks.check_credentials, Tags.security)
        register(checks.check_deployment, Tags.security, deploy=True)
        register(wiring_checks.check_middleware)
        register(wiring_checks.check_backends)
        register(wiring_checks.check_label)
        register(wiring_checks.check_djstripe)
        register(wiring_checks.check_webhook_url, Tags.urls)
        register(database_checks.check_database, Tags.database)
