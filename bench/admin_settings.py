"""A site with the admin and this app. Migrations make its tables: some indexes are named by no model."""

from __future__ import annotations

from typing import Any


def settings_of_admin(database: dict[str, Any]) -> dict[str, Any]:
    return {
        "SECRET_KEY": "not-a-secret",
        "ALLOWED_HOSTS": ["testserver"],
        "USE_TZ": True,
        "DATABASES": {"default": database},
        "ROOT_URLCONF": "bench.admin_urls",
        "STATIC_URL": "static/",
        "INSTALLED_APPS": [
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "entitlements_app",
        ],
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        "TEMPLATES": [
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
        ],
        "ENTITLEMENTS_WEBHOOK_SECRETS": ["whsec_fixture_not_a_real_secret_000001"],
    }
