import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("entitlements_app", "0003_failed_events"),
    ]

    operations = [
        migrations.AddField(
            model_name="entitlementchange",
            name="attempts",
            field=models.PositiveSmallIntegerField(default=0, verbose_name="attempts"),
        ),
        # Changes of before count as delivered: the default is there for their rows only.
        migrations.AddField(
            model_name="entitlementchange",
            name="delivered_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now,
                help_text="Every receiver of the signal has succeeded, or there is none to call.",
                null=True,
                verbose_name="delivered at",
            ),
        ),
        migrations.AlterField(
            model_name="entitlementchange",
            name="delivered_at",
            field=models.DateTimeField(
                help_text="Every receiver of the signal has succeeded, or there is none to call.",
                null=True,
                verbose_name="delivered at",
            ),
        ),
        migrations.AddField(
            model_name="entitlementchange",
            name="error",
            field=models.TextField(blank=True, default="", verbose_name="error"),
        ),
        migrations.AddField(
            model_name="entitlementchange",
            name="next_attempt_at",
            field=models.DateTimeField(null=True, verbose_name="next attempt at"),
        ),
        migrations.AddField(
            model_name="entitlementchange",
            name="parked_at",
            field=models.DateTimeField(
                help_text="Given up after too many failures; later changes pass it.",
                null=True,
                verbose_name="parked at",
            ),
        ),
        migrations.AddField(
            model_name="entitlementchange",
            name="receivers_done",
            field=models.JSONField(default=list, verbose_name="receivers done"),
        ),
        migrations.AddField(
            model_name="subscriberstate",
            name="delivery_token",
            field=models.CharField(blank=True, default="", max_length=16),
        ),
        migrations.AddField(
            model_name="subscriberstate",
            name="delivery_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name="entitlementchange",
            index=models.Index(
                condition=models.Q(("delivered_at__isnull", True)),
                fields=["livemode", "subscriber", "id"],
                name="entitlements_change_waiting",
            ),
        ),
        migrations.AddConstraint(
            model_name="entitlementchange",
            constraint=models.CheckConstraint(
                condition=models.Q(("effective", True), ("delivered_at__isnull", False), _connector="OR"),
                name="entitlements_change_delivery",
            ),
        ),
    ]
