from django.db import migrations

import tests.testapp.models


class Migration(migrations.Migration):

    dependencies = [
        ('testapp', '0003_purse'),
    ]

    operations = [
        migrations.AddField(
            model_name='purse',
            name='sealed_customer_id',
            field=tests.testapp.models.SealedField(blank=True, max_length=300, null=True),
        ),
    ]
