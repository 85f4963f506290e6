"""What is not set is what the site has set for dj-stripe; without the app that links the two, nothing of it is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from entitlements_app import beside_djstripe, conf
from entitlements_app.request_entitlements import get_request_entitlements
from entitlements_app.subscribers import get_subscriber_model
from tests.test_checks import found

pytestmark = pytest.mark.django_db  # Django's own checks of models may ask

OURS = ("ENTITLEMENTS_STRIPE_API_KEY", "ENTITLEMENTS_LIVEMODE", *beside_djstripe.INSTEAD)
THEIRS = (*beside_djstripe.KEYS, beside_djstripe.LIVE_MODE, *beside_djstripe.INSTEAD.values())


def subscriber_of(request: Any) -> None:
    """A callback as dj-stripe has it."""


def fails(request: Any) -> None:
    raise AttributeError("organisation")


@pytest.fixture(autouse=True)
def unset(settings: Any) -> None:
    for name in (*OURS, *THEIRS):
        if hasattr(settings, name):
            delattr(settings, name)


@pytest.fixture(params=[beside_djstripe.APP, f"{beside_djstripe.APP}.apps.DjstripeConfig"])
def beside(request: pytest.FixtureRequest, unset: None) -> Iterator[None]:
    """As text, which is all that is read of it here: to load that app needs dj-stripe."""
    if django_settings.DJSTRIPE:
        yield
        return
    django_settings.INSTALLED_APPS.append(request.param)
    conf.forget()
    yield
    django_settings.INSTALLED_APPS.remove(request.param)
    conf.forget()


OUR_KEY, OUR_MODE = OURS[:2]
KEY, TEST, LIVE, MODE = "STRIPE_SECRET_KEY", "STRIPE_TEST_SECRET_KEY", "STRIPE_LIVE_SECRET_KEY", "STRIPE_LIVE_MODE"


@pytest.mark.parametrize(
    ("site", "key", "livemode"),
    [
        ({}, None, False),
        ({KEY: "sk_test_1"}, "sk_test_1", False),
        ({KEY: "sk_live_1"}, "sk_live_1", True),
        ({KEY: " rk_live_1\n"}, "rk_live_1", True),
        ({TEST: "sk_test_1"}, "sk_test_1", False),
        ({LIVE: "sk_live_1"}, None, False),
        ({TEST: "sk_test_1", LIVE: "sk_live_1"}, "sk_test_1", False),
        ({TEST: "sk_test_1", LIVE: "sk_live_1", MODE: True}, "sk_live_1", True),
        ({TEST: "sk_test_1", LIVE: "sk_live_1", MODE: 1}, "sk_live_1", True),
        ({TEST: "sk_test_1", LIVE: "sk_live_1", MODE: ""}, "sk_test_1", False),
        ({TEST: "sk_test_1", LIVE: "sk_live_1", MODE: None}, "sk_test_1", False),
        ({TEST: "sk_test_1", MODE: True}, None, True),
        ({KEY: "sk_live_1", TEST: "sk_test_1"}, "sk_live_1", True),
        ({KEY: "sk_live_1", TEST: "sk_test_1", MODE: False}, "sk_test_1", False),
        ({KEY: "sk_test_2", TEST: "sk_test_1"}, "sk_test_1", False),
        ({KEY: "", TEST: "sk_test_1"}, "sk_test_1", False),
        ({KEY: None, TEST: "", LIVE: "sk_live_1", MODE: True}, "sk_live_1", True),
        # Ours win, each for itself.
        ({OUR_KEY: "rk_live_1", KEY: "sk_test_1", MODE: False}, "rk_live_1", True),
        ({OUR_KEY: "", KEY: "sk_test_1"}, "sk_test_1", False),
        ({OUR_KEY: None, KEY: "sk_test_1"}, "sk_test_1", False),
        ({OUR_MODE: True, TEST: "sk_test_1", LIVE: "sk_live_1"}, "sk_live_1", True),
        ({OUR_MODE: True, TEST: "sk_test_1", LIVE: "sk_live_1", MODE: False}, "sk_live_1", True),
        ({OUR_MODE: False, TEST: "sk_test_1", LIVE: "sk_live_1", MODE: True}, "sk_test_1", False),
    ],
)
def test_the_key_and_the_mode(
    site: dict[str, Any], key: str | None, livemode: bool, beside: None, settings: Any
) -> None:
    for name, value in site.items():
        setattr(settings, name, value)
    assert conf.stripe_api_key() == key
    assert conf.livemode() is livemode
    assert conf.of_gates().livemode is livemode


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ({KEY: "sk_live_hush", MODE: False}, "STRIPE_LIVE_MODE contradicts the prefix of STRIPE_SECRET_KEY"),
        ({LIVE: "sk_test_hush", MODE: True}, "STRIPE_LIVE_MODE contradicts the prefix of STRIPE_LIVE_SECRET_KEY"),
        ({KEY: "sk_test_hush", OUR_MODE: True}, "ENTITLEMENTS_LIVEMODE contradicts the prefix of STRIPE_SECRET_KEY"),
        ({TEST: "sk_test_hush", OUR_MODE: True}, "contradicts the prefix of STRIPE_TEST_SECRET_KEY"),
        ({TEST: "sk_live_hush"}, "Test mode, the default, contradicts the prefix of STRIPE_TEST_SECRET_KEY"),
        (
            {KEY: "sk_live_hush", LIVE: "sk_test_hush"},
            "The prefix of STRIPE_SECRET_KEY contradicts the prefix of STRIPE_LIVE_SECRET_KEY",
        ),
        ({OUR_KEY: "sk_live_hush", OUR_MODE: False, KEY: "sk_test_hush"}, "prefix of ENTITLEMENTS_STRIPE_API_KEY"),
        ({TEST: "sk_test_1", MODE: "hush"}, "STRIPE_LIVE_MODE must be True or False"),
    ],
)
def test_a_contradiction_names_what_was_read(site: dict[str, Any], said: str, beside: None, settings: Any) -> None:
    for name, value in site.items():
        setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        conf.livemode()
    assert "hush" not in str(caught.value)
    if not django_settings.DJSTRIPE:  # there, the checks of contrib.djstripe have their say as well
        assert found() == ["E002"]


@pytest.mark.parametrize(
    ("name", "value", "read", "check"),
    [
        (KEY, "pk_test_hush", conf.stripe_api_key, "E001"),
        (TEST, "hush hush", conf.stripe_api_key, "E001"),
        ("STRIPE_API_HOST", "http://user:hush@localhost", conf.stripe_api_base, "E003"),
        ("DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK", "tests.hush.function", conf.subscriber_from_request, "E006"),
        ("DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK", ["hush"], conf.subscriber_from_request, "E006"),
        ("DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK", lambda: "hush", conf.subscriber_from_request, "E006"),
        ("DJSTRIPE_SUBSCRIBER_MODEL", "hush", conf.subscriber_model, ""),
    ],
)
def test_a_malformed_one_is_named_and_not_repeated(
    name: str, value: Any, read: Any, check: str, beside: None, settings: Any
) -> None:
    setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured, match=f"^{name} ") as caught:
        read()
    assert "hush" not in str(caught.value)
    if check and not django_settings.DJSTRIPE:
        assert check in found()


def test_the_base_url(beside: None, settings: Any) -> None:
    settings.STRIPE_API_HOST = "http://127.0.0.1:12111/"
    assert conf.stripe_api_base() == "http://127.0.0.1:12111"
    settings.ENTITLEMENTS_STRIPE_API_BASE = "https://stripe.proxy.example"
    assert conf.stripe_api_base() == "https://stripe.proxy.example"
    settings.ENTITLEMENTS_STRIPE_API_BASE = settings.STRIPE_API_HOST = ""
    assert conf.stripe_api_base() is None


def test_the_subscriber_s_model(beside: None, settings: Any) -> None:
    assert conf.subscriber_model() == settings.AUTH_USER_MODEL
    settings.DJSTRIPE_SUBSCRIBER_MODEL = "testapp.Organisation"
    assert conf.of_gates().subscriber_model == "testapp.Organisation"
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "auth.Group"
    assert conf.of_gates().subscriber_model == "auth.Group"


def test_a_subscriber_s_model_that_is_not_installed(beside: None, settings: Any) -> None:
    settings.DJSTRIPE_SUBSCRIBER_MODEL = "nowhere.Organisation"
    with pytest.raises(ImproperlyConfigured, match=r"^DJSTRIPE_SUBSCRIBER_MODEL names no installed model"):
        get_subscriber_model()


def test_the_migration_that_makes_the_subscriber_s_model(beside: None, settings: Any) -> None:
    settings.DJSTRIPE_SUBSCRIBER_MODEL_MIGRATION_DEPENDENCY = "0007_organisation"
    assert conf.subscriber_migration() == ("auth", "__first__"), "dj-stripe, too, takes the user model's first"
    settings.DJSTRIPE_SUBSCRIBER_MODEL = "testapp.Organisation"
    assert conf.subscriber_migration() == ("testapp", "0007_organisation")
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "auth.Group"
    assert conf.subscriber_migration() == ("auth", "__first__"), "what is said of another model"


@pytest.mark.parametrize("callback", [subscriber_of, "tests.test_beside_djstripe.subscriber_of"])
def test_the_function_that_finds_a_request_s_subscriber(callback: Any, beside: None, settings: Any) -> None:
    assert conf.subscriber_from_request() is None
    settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = callback
    assert conf.subscriber_from_request() is subscriber_of
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.testapp.views.organisation_of"
    assert conf.subscriber_from_request() is not subscriber_of
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = None
    settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = ""
    assert conf.subscriber_from_request() is None


def test_a_function_that_fails_is_named(beside: None, settings: Any) -> None:
    settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = fails
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    with pytest.raises(ImproperlyConfigured, match="DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK is the function"):
        get_request_entitlements(request)["sso"]


@pytest.mark.skipif(django_settings.DJSTRIPE, reason="there it is beside")
def test_without_the_app_that_links_the_two_nothing_of_dj_stripe_is_read(settings: Any) -> None:
    settings.STRIPE_SECRET_KEY = settings.STRIPE_LIVE_SECRET_KEY = "sk_live_1"
    settings.STRIPE_LIVE_MODE = True
    settings.STRIPE_API_HOST = "http://127.0.0.1:12111"
    settings.DJSTRIPE_SUBSCRIBER_MODEL = "nowhere.Organisation"
    settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = "nowhere.at_all"
    settings.DJSTRIPE_SUBSCRIBER_MODEL_MIGRATION_DEPENDENCY = "0007_organisation"
    assert conf.stripe_api_key() is conf.stripe_api_base() is conf.subscriber_from_request() is None
    assert conf.livemode() is False
    assert conf.subscriber_model() == settings.AUTH_USER_MODEL
    assert conf.subscriber_migration() == ("auth", "__first__")
    assert not beside_djstripe.has_endpoint()


@pytest.mark.skipif(django_settings.DJSTRIPE, reason="there it is installed")
def test_dj_stripe_that_is_not_installed_is_told() -> None:
    names = ("django.contrib.auth", "django.contrib.contenttypes", "entitlements_app", beside_djstripe.APP)
    code = (
        f"from django.conf import settings; settings.configure(INSTALLED_APPS={names}); import django; django.setup()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: ")
    assert 'dj-stripe is not installed: pip install "django-stripe-entitlements[djstripe]"' in last
