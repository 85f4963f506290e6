import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from entitlements_app import conf

# Written by hand: the subscriber is swappable by a setting of this app (ENTITLEMENTS_SUBSCRIBER_MODEL).
# Read as models read it: they must never disagree.
SUBSCRIBER_MODEL = conf.subscriber_model()


class Migration(migrations.Migration):
    dependencies = [
        ("entitlements_app", "0001_initial"),
        migrations.swappable_dependency(SUBSCRIBER_MODEL),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="EntitlementOverride",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lookup_key", models.CharField(max_length=255, verbose_name="lookup key")),
                (
                    "effect",
                    models.CharField(
                        choices=[("grant", "grant"), ("deny", "deny")], max_length=5, verbose_name="effect"
                    ),
                ),
                ("starts_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="starts at")),
                (
                    "expires_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="From this moment on it does not count. Empty: never.",
                        null=True,
                        verbose_name="expires at",
                    ),
                ),
                ("reason", models.TextField(blank=True, default="", verbose_name="reason")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={
                "verbose_name": "entitlement override",
                "verbose_name_plural": "entitlement overrides",
            },
        ),
        migrations.AddField(
            model_name="customer",
            name="email",
            field=models.CharField(
                blank=True, default="", help_text="As Stripe last told it.", max_length=512, verbose_name="e-mail"
            ),
        ),
        migrations.AddField(
            model_name="customer",
            name="metadata",
            field=models.JSONField(blank=True, default=dict, verbose_name="metadata"),
        ),
        migrations.AddField(
            model_name="customer",
            name="name",
            field=models.CharField(blank=True, default="", max_length=255, verbose_name="name"),
        ),
        migrations.AddField(
            model_name="subscriberstate",
            name="next_boundary_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="entitlementchange",
            name="cause",
            field=models.CharField(
                choices=[
                    ("event", "event"),
                    ("fetch", "fetch"),
                    ("link", "link"),
                    ("unlink", "unlink"),
                    ("override", "override"),
                    ("expiry", "expiry"),
                ],
                max_length=8,
                verbose_name="cause",
            ),
        ),
        migrations.AddIndex(
            model_name="subscriberstate",
            index=models.Index(
                condition=models.Q(("next_boundary_at__isnull", False)),
                fields=["next_boundary_at"],
                name="entitlements_state_boundary",
            ),
        ),
        migrations.AddField(
            model_name="entitlementoverride",
            name="author",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
                verbose_name="author",
            ),
        ),
        migrations.AddField(
            model_name="entitlementoverride",
            name="subscriber",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="entitlements_overrides",
                to=SUBSCRIBER_MODEL,
                verbose_name="subscriber",
            ),
        ),
        migrations.AddIndex(
            model_name="entitlementoverride",
            index=models.Index(fields=["lookup_key", "effect"], name="entitlements_override_key"),
        ),
        migrations.AddConstraint(
            model_name="entitlementoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("expires_at", None), ("expires_at__gte", models.F("starts_at")), _connector="OR"),
                name="entitlements_override_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="entitlementoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("effect__in", ["grant", "deny"])), name="entitlements_override_effect"
            ),
        ),
    ]
