"""System checks: what is wrong with a site's set-up is said at the start, with what to do."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from celery import Celery
from django.apps import AppConfig, apps
from django.conf import settings as site
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.urls import reverse_lazy

from entitlements_app.middleware import EntitlementsMiddleware
from entitlements_app.models import Feature
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.testing import StripeSimulator
from tests.celery_app import app
from tests.rows import BY_ORGANISATION

pytestmark = pytest.mark.django_db  # Django's own checks of models may ask

MIDDLEWARE = "entitlements_app.middleware.EntitlementsMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
BACKEND = "entitlements_app.backends.EntitlementsBackend"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture(autouse=True)
def well_set_up(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_1"


def found(**options: Any) -> list[str]:
    """Ids of our messages, without the app's name."""
    messages = [message for message in checks.run_checks(**options) if message.id.startswith("entitlements_app.")]
    for message in messages:
        assert message.hint, f"{message.id} has no hint"
        assert message.is_serious() == (message.id.split(".")[1][0] == "E"), "errors are E, warnings are W"
        assert message.level == (checks.ERROR if ".E" in message.id else checks.WARNING)
        assert "hush" not in message.msg, "no message repeats a value"
    return [message.id.partition(".")[2] for message in messages]


def test_a_site_that_is_set_up_well_hears_nothing() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ENTITLEMENTS_STRIPE_API_KEY", "pk_test_hush", ["E001"]),
        ("ENTITLEMENTS_STRIPE_API_KEY", ["sk_test_hush"], ["E001"]),
        ("ENTITLEMENTS_STRIPE_API_KEY", None, ["W001"]),
        ("ENTITLEMENTS_STRIPE_API_KEY", "", ["W001"]),
        ("ENTITLEMENTS_LIVEMODE", "hush", ["E002"]),
        ("ENTITLEMENTS_LIVEMODE", True, ["E002"]),
        ("ENTITLEMENTS_LIVEMODE", False, []),
        ("ENTITLEMENTS_STRIPE_API_BASE", "hush", ["E003"]),
        ("ENTITLEMENTS_STRIPE_API_BASE", "https://stripe.proxy.example", []),
        ("ENTITLEMENTS_STRIPE_API_BASE", "http://stripe.proxy.example", ["W010"]),
        ("ENTITLEMENTS_STRIPE_API_BASE", "http://127.0.0.1:12111", []),
        ("ENTITLEMENTS_STRIPE_API_BASE", "http://[::1]:12111", []),
        ("ENTITLEMENTS_WEBHOOK_SECRETS", "whsec_hush", ["E004"]),
        ("ENTITLEMENTS_WEBHOOK_SECRETS", ["whsec_hush", ""], ["E004"]),
        ("ENTITLEMENTS_WEBHOOK_SECRETS", ["sk_test_hush"], ["E004"]),
        ("ENTITLEMENTS_WEBHOOK_SECRETS", ["whsec_simulator"], ["E004"]),
        ("ENTITLEMENTS_WEBHOOK_SECRETS", [], [] if site.DJSTRIPE else ["W002"]),  # its endpoint has its own secret
        ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "shop.hush", ["E006"]),
        ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "tests.test_checks.found", ["E006"]),
        ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "tests.testapp.views.organisation_of_async", []),
        ("ENTITLEMENTS_UNKNOWN_FEATURE", "hush", ["E007"]),
        ("ENTITLEMENTS_UNKNOWN_FEATURE", "raise", []),
        ("ENTITLEMENTS_DENIED", "shop.views.hush", ["E008"]),
        ("ENTITLEMENTS_DENIED", "no-such-page", ["E008"]),
        ("ENTITLEMENTS_DENIED", "../plans/", ["E008"]),
        ("ENTITLEMENTS_DENIED", "./plans/", ["E008"]),
        ("ENTITLEMENTS_DENIED", "plans.html", ["E008"]),
        ("ENTITLEMENTS_DENIED", "mailto:sales@example.com", ["E008"]),
        ("ENTITLEMENTS_DENIED", "javascript:alert(1)", ["E008"]),
        ("ENTITLEMENTS_DENIED", "https:///plans", ["E008"]),
        ("ENTITLEMENTS_DENIED", "tests.test_checks.found", ["E008"]),
        ("ENTITLEMENTS_DENIED", reverse_lazy("no-such-page"), ["E008"]),
        ("ENTITLEMENTS_DENIED", reverse_lazy("plans"), []),
        ("ENTITLEMENTS_DENIED", "plans", []),
        ("ENTITLEMENTS_DENIED", "/plans/", []),
        ("ENTITLEMENTS_DENIED", "https://shop.example.com/plans", []),
        ("ENTITLEMENTS_DENIED", "tests.test_denials.sell", []),
        ("ENTITLEMENTS_STRIPE_RATE", "hush", ["E009"]),
        ("ENTITLEMENTS_CONFIRM_EVERY", "hush", ["E010"]),
        ("ENTITLEMENTS_CONFIRM_EVERY", timedelta(days=1), []),
        ("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", "shop.hush", ["E014"]),
        ("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", ["shop.hush"], ["E014"]),
        ("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", "tests.test_checks.found", ["E014"]),
        ("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", "tests.testapp.views.organisation_of_async", ["E014"]),
        ("ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER", "tests.test_site_links.subscriber_for_customer", []),
        ("ENTITLEMENTS_CACHE", "hush", ["E015"]),
        ("ENTITLEMENTS_CACHE", ["default"], ["E015"]),
        ("ENTITLEMENTS_CACHE", "default", ["W012"]),  # which is in memory
        ("ENTITLEMENTS_CACHE_SECONDS", 0, ["E016"]),
        ("ENTITLEMENTS_CACHE_SECONDS", None, ["E016"]),
        ("ENTITLEMENTS_CACHE_SECONDS", True, ["E016"]),
        ("ENTITLEMENTS_CACHE_SECONDS", 3600, []),
        ("ENTITLEMENTS_LOCAL_SECONDS", -1, ["E017"]),
        ("ENTITLEMENTS_LOCAL_SECONDS", timedelta(seconds=1), ["E017"]),
        ("ENTITLEMENTS_LOCAL_SECONDS", float("nan"), ["E017"]),
        ("ENTITLEMENTS_LOCAL_SECONDS", 0.5, []),
        ("ENTITLEMENTS_WEBHOOK_PROCESSING", "hush", ["E018"]),
        ("ENTITLEMENTS_WEBHOOK_PROCESSING", None, ["E018"]),
        ("ENTITLEMENTS_WEBHOOK_PROCESSING", "inline", []),
        ("ENTITLEMENTS_WEBHOOK_SECRET", "whsec_hush", ["W008"]),
        ("ENTITLEMENTS_WHATEVER", "hush", ["W008"]),
        ("MIDDLEWARE", [MIDDLEWARE, AUTHENTICATION], ["E011"]),
        ("MIDDLEWARE", [MIDDLEWARE], [] if BY_ORGANISATION else ["W011"]),
        ("MIDDLEWARE", [AUTHENTICATION, MIDDLEWARE], []),
        ("MIDDLEWARE", [AUTHENTICATION, "tests.test_checks.TheirMiddleware"], []),
        ("MIDDLEWARE", [AUTHENTICATION, "tests.nowhere.Middleware", MIDDLEWARE], []),
        ("MIDDLEWARE", [AUTHENTICATION], ["W004"]),
        ("AUTHENTICATION_BACKENDS", [BACKEND, MODEL_BACKEND], ["E012"]),
        ("AUTHENTICATION_BACKENDS", ["tests.test_checks.TheirBackend", BACKEND, MODEL_BACKEND], ["E012"]),
        ("AUTHENTICATION_BACKENDS", [BACKEND], ["E012"]),
        ("AUTHENTICATION_BACKENDS", ["tests.test_checks.TheirBackend", BACKEND], []),
        ("AUTHENTICATION_BACKENDS", [MODEL_BACKEND], []),
        ("ROOT_URLCONF", "tests.testapp.gates", ["W003"]),
    ],
)
def test_each_setting(name: str, value: Any, expected: list[str], settings: Any) -> None:
    setattr(settings, name, value)
    assert found() == expected


class TheirBackend:
    """Signs people in, and is no `ModelBackend`."""


class TheirMiddleware(EntitlementsMiddleware):
    pass


def test_a_cache_of_one_process_is_right_for_development(settings: Any) -> None:
    settings.ENTITLEMENTS_CACHE = "default"
    settings.DEBUG = True
    assert found() == []
    settings.ENTITLEMENTS_WEBHOOK_PROCESSING = "celery"
    app.set_current()
    assert found() == ["W012"], "workers are other processes, in development as well"


def test_a_cache_that_processes_share_is_right(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://x"}}
    settings.ENTITLEMENTS_CACHE = "default"
    assert found() == []


def test_workers_without_a_celery_app_or_without_celery(settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_PROCESSING = "celery"
    app.set_current()
    assert found() == []
    Celery("default").set_current()
    try:
        assert found() == ["E019"]
    finally:
        app.set_current()


def test_a_host_that_lacks_both_variables_of_the_quick_start(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_BASE = "http://127.0.0.1:12111"
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = ["whsec_1", StripeSimulator().webhook_secret]
    assert found() == [], "that is how one begins"
    assert found(include_deployment_checks=True) == ["W018"]
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = ["whsec_1"]
    assert found(include_deployment_checks=True) == []


def test_a_malformed_key_is_told_once_and_not_as_a_wrong_mode_too(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "nonsense"
    settings.ENTITLEMENTS_LIVEMODE = True
    assert found() == ["E001"]


def test_a_misspelt_setting_is_told_what_was_meant(settings: Any) -> None:
    settings.ENTITLEMENTS_WEBHOOK_SECRET = "whsec_1"
    [message] = [message for message in checks.run_checks() if message.id == "entitlements_app.W008"]
    assert message.hint == "Did you mean ENTITLEMENTS_WEBHOOK_SECRETS?"


@pytest.mark.skipif(not BY_ORGANISATION, reason="about another subscriber than the user")
def test_organisations_without_a_function_that_finds_them(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = None
    assert found() == ["W007"]


def test_a_subscriber_model_that_is_not_installed_is_named(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "nowhere.Organisation"
    with pytest.raises(ImproperlyConfigured, match="ENTITLEMENTS_SUBSCRIBER_MODEL names no installed model"):
        get_subscriber_model()


def test_an_app_with_the_label_of_the_permissions(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    import tests.testapp

    config = AppConfig("their.entitlements", tests.testapp)
    assert config.label == "entitlements"
    monkeypatch.setitem(apps.app_configs, "entitlements", config)
    assert found() == ["E013"], "then a lookup key is a permission on that app's models"
    settings.AUTHENTICATION_BACKENDS = [MODEL_BACKEND]
    assert found() == ["W005"]


def test_malformed_settings_stop_a_command_and_missing_ones_do_not(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    said = StringIO()
    call_command("check", stderr=said)
    assert "entitlements_app.W001" in said.getvalue()
    settings.ENTITLEMENTS_STRIPE_API_KEY = "nonsense"
    with pytest.raises(CommandError, match=r"entitlements_app\.E001"):
        call_command("check", stderr=StringIO())


# --- those that ask the database


def test_the_database_of_a_site_that_is_set_up_well() -> None:
    assert found(databases=["default"]) == []


def test_features_whose_keys_mean_something_else() -> None:
    for key in ("has_all", "metadata", "metadata"):
        stripe_id = f"feat_{Feature.objects.count()}"
        Feature.objects.create(stripe_id=stripe_id, lookup_key=key, livemode=False)
    assert found() == [], "without a database nothing is asked"
    assert found(databases=["default"]) == ["W006", "W006"]


def test_another_subscriber_model_than_the_tables_were_made_for(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "auth.User" if BY_ORGANISATION else "auth.Group"
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.testapp.views.organisation_of"
    also = {"E020"} if site.DJSTRIPE else set()  # dj-stripe has the same subscribers as before
    assert set(found(databases=["default"])) == {"E005", *also}


@pytest.mark.django_db(transaction=True)
def test_before_the_first_migrate_nothing_is_said() -> None:
    tables = ("customer", "feature")
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE entitlements_app_{table} RENAME TO {table}_away")
    try:
        assert found(databases=["default"]) == []
    finally:
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"ALTER TABLE {table}_away RENAME TO entitlements_app_{table}")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_another_isolation_level() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        assert found(databases=["default"]) == ["W009"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
