"""Settings of the tests. Environment variables choose among the set-ups that `make test` runs through."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

DATABASE = os.environ.get("TEST_DATABASE", "sqlite")
SUBSCRIBER = os.environ.get("TEST_SUBSCRIBER", "user")

# Nothing here talks to anything but this machine, whatever proxy the shell has set.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

SECRET_KEY = "not-a-secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
USE_TZ = os.environ.get("TEST_USE_TZ", "1") == "1"
TIME_ZONE = "America/New_York"
LOGIN_URL = "/login/"
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "tests.testapp",
    "entitlements_app",
]
try:
    import rest_framework  # noqa: F401
except ImportError:  # the environment without extras
    pass
else:
    INSTALLED_APPS += ["rest_framework", "rest_framework.authtoken"]

DJSTRIPE = os.environ.get("TEST_DJSTRIPE") == "1"
if DJSTRIPE:
    INSTALLED_APPS += ["djstripe", "entitlements_app.contrib.djstripe"]
    MIGRATION_MODULES = {"djstripe": "entitlements_app.testing.djstripe_tables"}
    DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
    STRIPE_LIVE_MODE = False
    if "TEST_SERVER_DJSTRIPE_BASE" in os.environ:  # of a server that a test starts
        STRIPE_API_HOST = os.environ["TEST_SERVER_DJSTRIPE_BASE"]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "entitlements_app.middleware.EntitlementsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

try:
    import jinja2  # noqa: F401
except ImportError:
    pass
else:
    TEMPLATES.append(
        {
            "BACKEND": "django.template.backends.jinja2.Jinja2",
            "OPTIONS": {"extensions": ["entitlements_app.jinja.EntitlementsExtension"]},
        }
    )

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a good one is slow on purpose
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "entitlements_app.backends.EntitlementsBackend",
]

if DATABASE == "postgresql":
    # A server that a test starts joins the database of that test.
    if "TEST_SERVER_POSTGRES" in os.environ:
        _server = json.loads(os.environ["TEST_SERVER_POSTGRES"])
    else:
        from tests import postgres

        _server = postgres.start()
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ.get("TEST_SERVER_DATABASE", "postgres"),
            **_server,
            "TEST": {"NAME": f"test_{os.getpid()}"},
        }
    }
else:
    # A file with Django's own options: threads share it like the processes of a small site. Only the disk is not waited
    # for: the tests kill who writes, never the machine.
    SCRATCH = Path(tempfile.gettempdir()) / f"entitlements-sqlite-{os.getpid()}"
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("TEST_SERVER_DATABASE") or SCRATCH / "db.sqlite3",
            "OPTIONS": {"init_command": "PRAGMA synchronous = OFF"},
            "TEST": {"NAME": SCRATCH / "test.sqlite3"},
        }
    }

if "TEST_SERVER_CACHE" in os.environ:  # of a server that a test starts
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ["TEST_SERVER_CACHE"],
        }
    }
    ENTITLEMENTS_CACHE = "default"
    ENTITLEMENTS_LOCAL_SECONDS = float(os.environ.get("TEST_SERVER_LOCAL_SECONDS", "0"))

if "TEST_SERVER_BROKER" in os.environ:  # of a worker that a test starts
    CELERY_BROKER_URL = os.environ["TEST_SERVER_BROKER"]
    ENTITLEMENTS_WEBHOOK_PROCESSING = "celery"

ENTITLEMENTS_WEBHOOK_SECRETS = ["whsec_fixture_not_a_real_secret_000001"]
ENTITLEMENTS_STRIPE_API_KEY = os.environ.get("TEST_SERVER_API_KEY")
ENTITLEMENTS_STRIPE_API_BASE = os.environ.get("TEST_SERVER_API_BASE")
if "TEST_SERVER_RATE" in os.environ:
    ENTITLEMENTS_STRIPE_RATE = float(os.environ["TEST_SERVER_RATE"])
if SUBSCRIBER == "organisation":
    ENTITLEMENTS_SUBSCRIBER_MODEL = "testapp.Organisation"
    ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.testapp.views.organisation_of"
    DJSTRIPE_SUBSCRIBER_MODEL = "testapp.Organisation"
    DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = "tests.testapp.views.organisation_of"
