from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("entitlements_app", "0002_overrides_and_customer_details"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="webhookevent",
            index=models.Index(
                condition=models.Q(("status", "failed")),
                fields=["customer_stripe_id"],
                name="entitlements_event_failed",
            ),
        ),
    ]
