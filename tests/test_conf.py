"""Each setting: what is right, and what a wrong one says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from entitlements_app import conf


@pytest.mark.parametrize(
    ("key", "mode", "livemode"),
    [
        (None, None, False),
        ("", None, False),
        ("sk_test_1", None, False),
        ("rk_test_1", None, False),
        ("sk_live_1", None, True),
        (" rk_live_1\n", None, True),
        (None, True, True),
        ("sk_live_1", True, True),
        ("sk_test_1", False, False),
    ],
)
def test_the_mode_follows_the_key_unless_it_is_set(key: Any, mode: Any, livemode: bool, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = key
    settings.ENTITLEMENTS_LIVEMODE = mode
    assert conf.livemode() is livemode
    assert conf.stripe_api_key() == ((key or "").strip() or None)


MALFORMED: list[tuple[str, Any, Any]] = [
    ("ENTITLEMENTS_STRIPE_API_KEY", "pk_test_secret", conf.stripe_api_key),
    ("ENTITLEMENTS_STRIPE_API_KEY", "whsec_secret", conf.stripe_api_key),
    ("ENTITLEMENTS_STRIPE_API_KEY", "sk_test_secret secret", conf.stripe_api_key),
    ("ENTITLEMENTS_STRIPE_API_KEY", "sk_test_secré", conf.stripe_api_key),
    ("ENTITLEMENTS_STRIPE_API_KEY", ["sk_test_secret"], conf.stripe_api_key),
    ("ENTITLEMENTS_STRIPE_API_KEY", b"sk_test_secret", conf.stripe_api_key),
    ("ENTITLEMENTS_LIVEMODE", "secret", conf.livemode),
    ("ENTITLEMENTS_LIVEMODE", 1, conf.livemode),
    ("ENTITLEMENTS_STRIPE_API_BASE", "secret", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", "ftp://secret", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", "http://secret:port", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", "http://secret/v1", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", "http://[secret", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", "http://user:secret@localhost", conf.stripe_api_base),
    ("ENTITLEMENTS_STRIPE_API_BASE", 5, conf.stripe_api_base),
    ("ENTITLEMENTS_WEBHOOK_SECRETS", "whsec_secret", conf.webhook_secrets),
    ("ENTITLEMENTS_WEBHOOK_SECRETS", ["whsec_secret", ""], conf.webhook_secrets),
    ("ENTITLEMENTS_WEBHOOK_SECRETS", [b"whsec_secret"], conf.webhook_secrets),
    ("ENTITLEMENTS_WEBHOOK_SECRETS", None, conf.webhook_secrets),
    ("ENTITLEMENTS_WEBHOOK_PROCESSING", "secret", conf.webhook_processing),
    ("ENTITLEMENTS_WEBHOOK_PROCESSING", ["celery"], conf.webhook_processing),
    ("ENTITLEMENTS_SUBSCRIBER_MODEL", "secret", conf.subscriber_model),
    ("ENTITLEMENTS_SUBSCRIBER_MODEL", 5, conf.subscriber_model),
    ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "secret", conf.subscriber_from_request),
    ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "tests.secret.function", conf.subscriber_from_request),
    ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", "tests.settings.SECRET_KEY", conf.subscriber_from_request),
    ("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST", print, conf.subscriber_from_request),
    ("ENTITLEMENTS_STRIPE_RATE", 0, conf.stripe_rate),
    ("ENTITLEMENTS_STRIPE_RATE", "10", conf.stripe_rate),
    ("ENTITLEMENTS_STRIPE_RATE", True, conf.stripe_rate),
    ("ENTITLEMENTS_STRIPE_RATE", float("nan"), conf.stripe_rate),
    ("ENTITLEMENTS_STRIPE_RATE", 10**400, conf.stripe_rate),
    ("ENTITLEMENTS_STRIPE_RATE", 1e-300, conf.stripe_rate),
    ("ENTITLEMENTS_CONFIRM_EVERY", timedelta.max, conf.confirm_every),
    ("ENTITLEMENTS_CONFIRM_EVERY", 7, conf.confirm_every),
    ("ENTITLEMENTS_CONFIRM_EVERY", timedelta(0), conf.confirm_every),
]


@pytest.mark.parametrize(("name", "value", "read"), MALFORMED)
def test_a_malformed_setting_is_named_and_not_repeated(name: str, value: Any, read: Any, settings: Any) -> None:
    setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured) as caught:
        read()
    assert name in str(caught.value)
    assert "secret" not in str(caught.value).replace("a secret or restricted key", "")


def test_a_mode_that_contradicts_the_key_is_an_error(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_live_1"
    settings.ENTITLEMENTS_LIVEMODE = False
    with pytest.raises(ImproperlyConfigured, match="contradicts"):
        conf.livemode()


def test_settings_are_read_when_they_are_used(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_BASE = "http://127.0.0.1:12111/"
    assert conf.stripe_api_base() == "http://127.0.0.1:12111"
    settings.ENTITLEMENTS_STRIPE_API_BASE = None
    assert conf.stripe_api_base() is None
    settings.ENTITLEMENTS_STRIPE_RATE = 0.5
    assert conf.stripe_rate() == 0.5
