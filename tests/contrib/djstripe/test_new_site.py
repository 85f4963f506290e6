"""A new site whose organisations pay, said in dj-stripe's settings alone; and sites that lack half of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
APP = "entitlements_app.contrib.djstripe"
SETTINGS = """
INSTALLED_APPS = [{apps}]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}}
SECRET_KEY = "x"
ROOT_URLCONF = "site_urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "entitlements_app.middleware.EntitlementsMiddleware",
]
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {{"context_processors": [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]}}}}]
MIGRATION_MODULES = {{"djstripe": "entitlements_app.testing.djstripe_tables"}}
DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
STRIPE_LIVE_MODE = False
STRIPE_TEST_SECRET_KEY = "sk_test_1"
DJSTRIPE_SUBSCRIBER_MODEL = "teams.Team"
DJSTRIPE_SUBSCRIBER_MODEL_MIGRATION_DEPENDENCY = "0002_team"
DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = "teams.models.team_of"
"""
URLS = """
from django.urls import include, path
urlpatterns = [path("djstripe/", include("djstripe.urls", namespace="djstripe"))]
"""
MODELS = """
from django.db import models

class Team(models.Model):
    name = models.CharField(max_length=9)
    email = models.EmailField()

def team_of(request):
    return None
"""
FIRST = """
from django.db import migrations

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = []
"""
SECOND = """
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("teams", "0001_initial")]
    operations = [migrations.CreateModel("Team", [
        ("id", models.BigAutoField(primary_key=True, auto_created=True, serialize=False, verbose_name="ID")),
        ("name", models.CharField(max_length=9)),
        ("email", models.EmailField(max_length=254)),
    ])]
"""
TABLES = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from djstripe.models import Customer as Theirs
from entitlements_app.models import Customer, EntitlementOverride

call_command("migrate", verbosity=0)
call_command("makemigrations", "--check", "--dry-run")
with connection.cursor() as cursor:
    for model in (Theirs, Customer, EntitlementOverride):
        print(connection.introspection.get_relations(cursor, model._meta.db_table)["subscriber_id"][:2])
call_command("check", "--database", "default")
"""

NUMBERS = """
import django
django.setup()
from django.core.management import call_command
from djstripe.models import Account, APIKey, Customer as Theirs, Product
from entitlements_app import models
from entitlements_app.contrib.djstripe import admin_words
from teams.models import Team

call_command("migrate", verbosity=0)
ours, other = (Account.objects.create(id=f"acct_{name}", livemode=False) for name in ("ours", "other"))
APIKey.objects.create(secret="sk_test_1", type="secret", livemode=False, djstripe_owner_account=ours)
team, product = Team.objects.create(name="A"), models.Product.objects.create(stripe_id="prod_1", livemode=False)
mine, _ = [
    Theirs.objects.create(id=f"cus_{of.id}", livemode=False, subscriber=team, djstripe_owner_account=of)
    for of in (ours, other)
]
print(list(models.Customer.objects.values_list("stripe_id", "subscriber")))
Product.objects.create(id="prod_1", livemode=False, name="Pro", active=True, djstripe_owner_account=ours)
print(models.Product.objects.get().name)
print(admin_words.of_customer(mine, lambda row: "/"))
models.Customer.objects.all().delete()
call_command("entitlements_link_djstripe")
print(list(models.Customer.objects.values_list("stripe_id", "subscriber")))
mine.delete()
print(list(models.Customer.objects.values_list("stripe_id", "subscriber")))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    migrations = tmp_path / "teams" / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "teams" / "__init__.py").touch()
    (tmp_path / "teams" / "models.py").write_text(MODELS)
    (migrations / "__init__.py").touch()
    (migrations / "0001_initial.py").write_text(FIRST)
    (migrations / "0002_team.py").write_text(SECOND)
    (tmp_path / "site_urls.py").write_text(URLS)
    return tmp_path


def run(folder: Path, code: str, *apps: str, also: str = "") -> subprocess.CompletedProcess[str]:
    # The admin comes first, as in Django's own template of a project: it is the first to import what needs a model.
    djangos = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
    names = ", ".join(repr(app) for app in [*djangos, "teams", *apps])
    (folder / "site_settings.py").write_text(SETTINGS.format(apps=names, database=str(folder / "db")) + also)
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_organisations_pay_from_the_first_migrate_on(folder: Path) -> None:
    done = run(folder, TABLES, "djstripe", "entitlements_app", APP)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "No changes detected"
    assert said[1:4] == ["('id', 'teams_team')"] * 3
    assert "entitlements_app.W015" in done.stderr, "no endpoint was made yet"
    assert done.stderr.count("(entitlements_app.") == 1, done.stderr


@pytest.mark.parametrize(
    ("apps", "said"),
    [
        (["entitlements_app", APP], '"djstripe" is not: add it'),
        (["djstripe", APP], '"entitlements_app" is not: add it'),
        (["djstripe", "entitlements_app", "teams.linked.Ours"], f'Write "{APP}" in INSTALLED_APPS as it is'),
    ],
)
def test_half_of_it_is_told_with_what_to_do(apps: list[str], said: str, folder: Path) -> None:
    (folder / "teams" / "linked.py").write_text(
        f"from {APP}.apps import DjstripeConfig\nclass Ours(DjstripeConfig):\n    default = False\n"
    )
    done = run(folder, "import django; django.setup()", *apps)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: ")
    assert said in last


FORGOTTEN = """
import django
django.setup()
from django.core.management import call_command
from django.test import override_settings

call_command("check")
print("set up by itself:", flush=True)
with override_settings(ENTITLEMENTS_WEBHOOK_SECRETS=["whsec_1"]):
    call_command("check")
"""


def test_the_app_that_links_the_two_is_forgotten(folder: Path) -> None:
    done = run(folder, f"import sys; sys.stdout = sys.stderr\n{FORGOTTEN}", "djstripe", "entitlements_app")
    assert done.returncode == 0, done.stderr
    forgotten, by_itself = done.stderr.split("set up by itself:")
    assert f'Add "{APP}" before the first migrate' in forgotten
    assert "W016" in forgotten
    assert "W003" in by_itself
    assert "W016" not in by_itself


@pytest.mark.parametrize("command", [["entitlements_link_djstripe"], ["entitlements_link", "teams.Team.name"]])
def test_links_before_the_first_migrate(command: list[str], folder: Path) -> None:
    code = f"from django.core.management import execute_from_command_line as run; run(['manage.py', *{command}])"
    done = run(folder, code, "djstripe", "entitlements_app", APP)
    assert done.returncode == 1
    [told] = done.stderr.splitlines()
    assert told.startswith("CommandError: Run `manage.py migrate` first. Not applied: entitlements_app.0001_initial, ")


def test_an_older_dj_stripe_is_told(folder: Path) -> None:
    metadata = folder / "dj_stripe-2.10.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dj-stripe\nVersion: 2.10.3\n")
    done = run(folder, "import django; django.setup()", "djstripe", "entitlements_app", APP)
    assert "needs dj-stripe 2.11 or newer: pip install --upgrade" in done.stderr.splitlines()[-1]


def test_where_dj_stripe_s_foreign_keys_hold_its_own_numbers(folder: Path) -> None:
    """As on sites since before dj-stripe 2.4."""
    by_number = 'DJSTRIPE_FOREIGN_KEY_TO_FIELD = "djstripe_id"\n'
    done = run(folder, NUMBERS, "djstripe", "entitlements_app", APP, also=by_number)
    assert done.returncode == 0, done.stdout + done.stderr
    linked, name, page, *told, again, gone = done.stdout.splitlines()
    assert linked == again == "[('cus_acct_ours', 1)]"
    assert name == "Pro"
    assert "0 active entitlements" in page
    assert told[0] == "1 customer(s) of other Stripe accounts are passed over."
    assert gone == "[('cus_acct_ours', None)]"
