"""What the tables guarantee by themselves, in each set-up."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone

from entitlements_app.models import ActiveEntitlement, Customer, Feature, WebhookEvent
from tests.rows import BY_ORGANISATION

ROOT = Path(__file__).parent.parent
OUR_MODELS = list(apps.get_app_config("entitlements_app").get_models())


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    out = StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=out)
    assert "No changes" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_migrations_go_back_and_forth() -> None:
    call_command("migrate", "entitlements_app", "zero", verbosity=0)
    call_command("migrate", "entitlements_app", verbosity=0)
    assert Customer.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_the_subscriber_s_key_has_its_model_s_type() -> None:
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, Customer._meta.db_table)
    [column] = [column for column in columns if column.name == "subscriber_id"]
    kind = connection.introspection.get_field_type(column.type_code, column)
    if connection.vendor == "postgresql":
        assert kind == ("UUIDField" if BY_ORGANISATION else "IntegerField")
    else:
        assert kind == ("CharField" if BY_ORGANISATION else "IntegerField")


@pytest.mark.parametrize("model", OUR_MODELS)
def test_keys_are_integers_and_names_are_few(model: type[models.Model]) -> None:
    assert isinstance(model._meta.pk, models.BigAutoField)
    assert not model._meta.ordering
    assert all(constraint.name.startswith("entitlements_") for constraint in model._meta.constraints)
    assert not [field.name for field in model._meta.fields if field.unique and not field.primary_key]


def row(model: type[models.Model], **fields: object) -> models.Model:
    return model._default_manager.create(stripe_id="x_1", **({"livemode": False} | fields))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (Customer, {}),
        (Feature, {"lookup_key": "sso"}),
        (WebhookEvent, {"type": "customer.deleted", "status": "pending"}),
    ],
)
def test_a_stripe_id_is_unique_in_its_account_and_mode(model: type[models.Model], fields: dict[str, object]) -> None:
    row(model, **fields)
    row(model, livemode=True, **fields)
    row(model, account="acct_1", **fields)
    with pytest.raises(IntegrityError), transaction.atomic():
        row(model, **fields)


@pytest.mark.django_db
def test_a_customer_holds_a_feature_once() -> None:
    customer, feature = row(Customer), row(Feature, lookup_key="sso")
    fields = {"customer": customer, "feature": feature, "lookup_key": "sso"}
    ActiveEntitlement.objects.create(stripe_id="ent_1", **fields)
    with pytest.raises(IntegrityError), transaction.atomic():
        ActiveEntitlement.objects.create(stripe_id="ent_2", **fields)


@pytest.mark.django_db
def test_only_a_deleted_customer_has_no_next_fetch() -> None:
    row(Customer, next_fetch_at=None, deleted_at=timezone.now())
    with pytest.raises(IntegrityError), transaction.atomic():
        Customer.objects.create(stripe_id="cus_2", livemode=False, next_fetch_at=None)


@pytest.mark.django_db
def test_a_new_customer_is_due_now() -> None:
    assert Customer.objects.due(timezone.now()).count() == 0
    row(Customer)
    assert Customer.objects.due(timezone.now()).count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("model", OUR_MODELS)
def test_text_of_a_row_costs_no_query(model: type[models.Model], django_assert_num_queries: object) -> None:
    instance = model(pk=1)
    with django_assert_num_queries(0):  # type: ignore[operator]
        assert str(instance) is not None


@pytest.mark.once
def test_a_subscriber_made_in_a_later_migration_of_its_app_needs_run_before(tmp_path: Path) -> None:
    """Documented for sites whose subscriber is not in its app's first migration: migrate from nothing."""
    app = tmp_path / "teams"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").touch()
    (app / "migrations" / "__init__.py").touch()
    (app / "models.py").write_text(
        "from django.db import models\nclass Team(models.Model):\n    name = models.CharField(max_length=9)\n"
    )
    (app / "migrations" / "0001_initial.py").write_text(
        "from django.db import migrations\n"
        "class Migration(migrations.Migration):\n    initial = True\n    dependencies = []\n    operations = []\n"
    )
    (app / "migrations" / "0002_team.py").write_text(
        "from django.db import migrations, models\n"
        "class Migration(migrations.Migration):\n"
        "    dependencies = [('teams', '0001_initial')]\n"
        "    run_before = [('entitlements_app', '0001_initial')]\n"
        "    operations = [migrations.CreateModel('Team', [\n"
        "        ('id', models.BigAutoField("
        "primary_key=True, auto_created=True, serialize=False, verbose_name='ID')),\n"
        "        ('name', models.CharField(max_length=9))])]\n"
    )
    (tmp_path / "site_settings.py").write_text(
        "INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'teams', 'entitlements_app']\n"
        f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(tmp_path / 'db')!r}}}}}\n"
        "SECRET_KEY = 'x'\nDEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
        "ENTITLEMENTS_SUBSCRIBER_MODEL = 'teams.Team'\n"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for command in (["migrate"], ["makemigrations", "--check", "--dry-run"], ["check"]):
        done = subprocess.run([sys.executable, "-m", "django", *command], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
