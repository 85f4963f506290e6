"""The site that is measured: what each contender's own documentation asks for, and nothing else."""

from __future__ import annotations

from typing import Any

_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "waffle",
    "flags",
    "guardian",
    "djstripe",
    "entitlements_app",
]


def settings_of(database: dict[str, Any], redis_url: str) -> dict[str, Any]:
    return {
        "SECRET_KEY": "not-a-secret",
        "USE_TZ": True,
        "DATABASES": {"default": database},
        "CACHES": {
            "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_url},
            "in_process": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        },
        "INSTALLED_APPS": _APPS,
        # Tables are made from today's models: dj-stripe's migrations take two minutes.
        "MIGRATION_MODULES": {app.rpartition(".")[2]: None for app in _APPS},
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        "ENTITLEMENTS_WEBHOOK_SECRETS": ["whsec_fixture_not_a_real_secret_000001"],
        "STRIPE_TEST_SECRET_KEY": "sk_test_fixture",
        "DJSTRIPE_FOREIGN_KEY_TO_FIELD": "id",
        "SILENCED_SYSTEM_CHECKS": ["djstripe.W001", "djstripe.C001"],
    }
