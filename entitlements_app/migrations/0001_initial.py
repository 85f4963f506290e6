import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.db.migrations.migration import SwappableTuple

from entitlements_app import conf

# Written by hand: the subscriber is swappable by a setting of this app (ENTITLEMENTS_SUBSCRIBER_MODEL).
# Read as models read it: they must never disagree.
SUBSCRIBER_MODEL = conf.subscriber_model()


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        SwappableTuple(conf.subscriber_migration(), SUBSCRIBER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AccountState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("account", models.CharField(blank=True, default="", max_length=255)),
                ("livemode", models.BooleanField()),
                ("next_call_at", models.DateTimeField(null=True)),
                ("stopped_at", models.DateTimeField(null=True)),
                ("stopped_key", models.CharField(blank=True, default="", max_length=32)),
                ("stopped_reason", models.CharField(blank=True, default="", max_length=255)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("account", "livemode"), name="entitlements_account_mode")
                ],
            },
        ),
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stripe_id", models.CharField(max_length=255, verbose_name="Stripe ID")),
                (
                    "account",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="Empty for the site's own.",
                        max_length=255,
                        verbose_name="account",
                    ),
                ),
                ("livemode", models.BooleanField(verbose_name="live mode")),
                (
                    "version",
                    models.BigIntegerField(
                        default=0, help_text="Rises with each state applied; orders fetches.", verbose_name="version"
                    ),
                ),
                (
                    "window_from",
                    models.BigIntegerField(
                        help_text="Stripe seconds: what we hold is no older than this.",
                        null=True,
                        verbose_name="window from",
                    ),
                ),
                (
                    "window_to",
                    models.BigIntegerField(
                        help_text="Stripe seconds: what we hold is no newer than this.",
                        null=True,
                        verbose_name="window to",
                    ),
                ),
                (
                    "hinted_at",
                    models.DateTimeField(
                        help_text="Of news that no fetch has settled yet.", null=True, verbose_name="last news at"
                    ),
                ),
                ("urgent", models.BooleanField(default=False, verbose_name="urgent")),
                (
                    "next_fetch_at",
                    models.DateTimeField(default=django.utils.timezone.now, null=True, verbose_name="next fetch at"),
                ),
                ("claim", models.CharField(default="", editable=False, max_length=32)),
                ("fetch_failures", models.PositiveSmallIntegerField(default=0, verbose_name="failed fetches in a row")),
                ("fetched_at", models.DateTimeField(null=True, verbose_name="fetched at")),
                (
                    "missing_since",
                    models.DateTimeField(
                        help_text="Stripe says that it does not know this customer.",
                        null=True,
                        verbose_name="missing since",
                    ),
                ),
                ("deleted_at", models.DateTimeField(null=True, verbose_name="deleted at")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
                (
                    "subscriber",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="entitlements_customers",
                        to=SUBSCRIBER_MODEL,
                        verbose_name="subscriber",
                    ),
                ),
            ],
            options={
                "verbose_name": "customer",
                "verbose_name_plural": "customers",
            },
        ),
        migrations.CreateModel(
            name="EntitlementChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lookup_key", models.CharField(max_length=255, verbose_name="lookup key")),
                (
                    "kind",
                    models.CharField(
                        choices=[("granted", "granted"), ("revoked", "revoked")], max_length=8, verbose_name="kind"
                    ),
                ),
                (
                    "cause",
                    models.CharField(
                        choices=[("event", "event"), ("fetch", "fetch"), ("link", "link"), ("unlink", "unlink")],
                        max_length=8,
                        verbose_name="cause",
                    ),
                ),
                (
                    "effective",
                    models.BooleanField(help_text="The subscriber's answer changed.", verbose_name="effective"),
                ),
                ("livemode", models.BooleanField(verbose_name="live mode")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
                (
                    "customer",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="changes",
                        to="entitlements_app.customer",
                        verbose_name="customer",
                    ),
                ),
                (
                    "subscriber",
                    models.ForeignKey(
                        help_text="As it was then.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=SUBSCRIBER_MODEL,
                        verbose_name="subscriber",
                    ),
                ),
            ],
            options={
                "verbose_name": "entitlement change",
                "verbose_name_plural": "entitlement changes",
            },
        ),
        migrations.CreateModel(
            name="Feature",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stripe_id", models.CharField(max_length=255, verbose_name="Stripe ID")),
                ("account", models.CharField(blank=True, default="", max_length=255, verbose_name="account")),
                ("livemode", models.BooleanField(verbose_name="live mode")),
                ("lookup_key", models.CharField(max_length=255, verbose_name="lookup key")),
                ("name", models.CharField(blank=True, default="", max_length=255, verbose_name="name")),
                (
                    "active",
                    models.BooleanField(
                        default=True,
                        help_text="An archived feature is not active, and keeps granting.",
                        verbose_name="active",
                    ),
                ),
                ("metadata", models.JSONField(blank=True, default=dict, verbose_name="metadata")),
            ],
            options={
                "verbose_name": "feature",
                "verbose_name_plural": "features",
                "indexes": [models.Index(fields=["lookup_key"], name="entitlements_feature_key")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("stripe_id", "account", "livemode"), name="entitlements_feature_stripe_id"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ActiveEntitlement",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
                (
                    "confirmed_at",
                    models.DateTimeField(
                        help_text="When a fetch first confirmed what an event had said.",
                        null=True,
                        verbose_name="confirmed at",
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="active_entitlements",
                        to="entitlements_app.customer",
                        verbose_name="customer",
                    ),
                ),
                (
                    "feature",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="active_entitlements",
                        to="entitlements_app.feature",
                        verbose_name="feature",
                    ),
                ),
                # Texts come last: what is as wide as a word needs no padding before them.
                ("stripe_id", models.CharField(max_length=255, verbose_name="Stripe ID")),
                ("lookup_key", models.CharField(max_length=255, verbose_name="lookup key")),
            ],
            options={
                "verbose_name": "active entitlement",
                "verbose_name_plural": "active entitlements",
            },
        ),
        migrations.CreateModel(
            name="SubscriberState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("livemode", models.BooleanField()),
                ("announced", models.JSONField(null=True)),
                (
                    "subscriber",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=SUBSCRIBER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="WebhookEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stripe_id", models.CharField(max_length=255, verbose_name="Stripe ID")),
                ("account", models.CharField(blank=True, default="", max_length=255, verbose_name="account")),
                ("livemode", models.BooleanField(verbose_name="live mode")),
                ("type", models.CharField(max_length=255, verbose_name="type")),
                ("created", models.BigIntegerField(help_text="Stripe seconds.", null=True, verbose_name="created")),
                (
                    "sent_at",
                    models.BigIntegerField(
                        help_text="Stripe seconds: the time in the verified signature.",
                        null=True,
                        verbose_name="sent at",
                    ),
                ),
                (
                    "customer_stripe_id",
                    models.CharField(blank=True, default="", max_length=255, verbose_name="customer"),
                ),
                (
                    "payload",
                    models.JSONField(
                        help_text="The entitlements that a summary carried, nothing else.",
                        null=True,
                        verbose_name="payload",
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("processed", "processed"),
                            ("ignored", "ignored"),
                            ("failed", "failed"),
                        ],
                        max_length=9,
                        verbose_name="status",
                    ),
                ),
                ("error", models.TextField(blank=True, default="", verbose_name="error")),
                ("attempts", models.PositiveSmallIntegerField(default=0, verbose_name="attempts")),
                ("next_attempt_at", models.DateTimeField(null=True, verbose_name="next attempt at")),
                ("received_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="received at")),
                ("processed_at", models.DateTimeField(null=True, verbose_name="processed at")),
            ],
            options={
                "verbose_name": "webhook event",
                "verbose_name_plural": "webhook events",
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "pending")),
                        fields=["next_attempt_at"],
                        name="entitlements_event_pending",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("stripe_id", "account", "livemode"), name="entitlements_event_stripe_id"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="customer",
            index=models.Index(fields=["next_fetch_at"], name="entitlements_customer_due"),
        ),
        migrations.AddConstraint(
            model_name="customer",
            constraint=models.UniqueConstraint(
                fields=("stripe_id", "account", "livemode"), name="entitlements_customer_stripe_id"
            ),
        ),
        migrations.AddConstraint(
            model_name="customer",
            constraint=models.CheckConstraint(
                condition=models.Q(("next_fetch_at__isnull", False), ("deleted_at__isnull", False), _connector="OR"),
                name="entitlements_customer_scheduled",
            ),
        ),
        migrations.AddConstraint(
            model_name="activeentitlement",
            constraint=models.UniqueConstraint(
                fields=("customer", "feature"), name="entitlements_active_entitlement_grant"
            ),
        ),
        migrations.AddConstraint(
            model_name="subscriberstate",
            constraint=models.UniqueConstraint(fields=("subscriber", "livemode"), name="entitlements_state_subscriber"),
        ),
    ]
