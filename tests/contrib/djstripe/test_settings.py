"""What dj-stripe reads of its settings is what this app reads of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from djstripe.settings import djstripe_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from entitlements_app import beside_djstripe, conf
from entitlements_app.access import has_entitlement
from entitlements_app.linking import link
from entitlements_app.sync import sync_customer
from entitlements_app.testing import StripeSimulator, WebhookClient
from tests.rows import customer, held, make_subscriber
from tests.shop import Shop

UNSET = "not in the settings at all"
ALL = ("ENTITLEMENTS_STRIPE_API_KEY", "ENTITLEMENTS_LIVEMODE", *beside_djstripe.KEYS, beside_djstripe.LIVE_MODE)


def keys(letter: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([UNSET, None, "", f"sk_test_{letter}", f"rk_live_{letter}"])


@contextmanager
def site(**values: Any) -> Iterator[None]:
    with override_settings():
        for name in ALL:
            if hasattr(django_settings, name):
                delattr(django_settings, name)
        with override_settings(**{name: value for name, value in values.items() if value != UNSET}):
            yield


@settings(max_examples=400, deadline=None)
@given(
    own=keys("own"),
    own_mode=st.sampled_from([UNSET, None, True, False]),
    secret=keys("secret"),
    test=keys("test"),
    live=keys("live"),
    live_mode=st.sampled_from([UNSET, None, "", True, False]),
)
def test_the_key_and_the_mode_are_dj_stripe_s(
    own: Any, own_mode: Any, secret: Any, test: Any, live: Any, live_mode: Any
) -> None:
    with site(
        ENTITLEMENTS_STRIPE_API_KEY=own,
        ENTITLEMENTS_LIVEMODE=own_mode,
        STRIPE_SECRET_KEY=secret,
        STRIPE_TEST_SECRET_KEY=test,
        STRIPE_LIVE_SECRET_KEY=live,
        STRIPE_LIVE_MODE=live_mode,
    ):
        own, secret = (None if key in (UNSET, "") else key for key in (own, secret))
        said = [own_mode, own and "_live_" in own, live_mode, secret and "_live_" in secret, False]
        mode = next(bool(value) for value in said if value not in (UNSET, None, ""))
        key = own or djstripe_settings.get_default_api_key(mode) or None
        assert conf.stripe_api_key() == key
        if key is not None and ("_live_" in key) is not mode:
            with pytest.raises(ImproperlyConfigured, match="contradicts the prefix of"):
                conf.livemode()
        else:
            assert conf.livemode() is mode


def test_the_subscriber_and_the_callback_are_dj_stripe_s(settings: Any) -> None:
    del settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST, settings.ENTITLEMENTS_SUBSCRIBER_MODEL
    assert conf.subscriber_model() == djstripe_settings.get_subscriber_model_string()
    if conf.subscriber_from_request() is not None:
        assert conf.subscriber_from_request() is djstripe_settings.subscriber_request_callback


@pytest.fixture
def one_setting_up(settings: Any) -> Iterator[StripeSimulator]:
    """A simulated Stripe that only dj-stripe's settings name."""
    for name in ("ENTITLEMENTS_STRIPE_API_KEY", "ENTITLEMENTS_STRIPE_API_BASE"):
        delattr(settings, name)
    with StripeSimulator() as simulator:
        settings.STRIPE_TEST_SECRET_KEY = simulator.api_key
        settings.STRIPE_API_HOST = simulator.url
        yield simulator


@pytest.mark.django_db
def test_stripe_is_asked_with_dj_stripe_s_key_at_its_host(one_setting_up: StripeSimulator) -> None:
    shop, subscriber = Shop(one_setting_up), make_subscriber()
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    link(subscriber, stripe_id)
    sync_customer(customer(stripe_id))
    assert has_entitlement(subscriber, "sso", "export")
    assert any("active_entitlements" in path for path in shop.calls())


@pytest.mark.django_db
def test_a_delivery_of_the_webhook_client_asks_stripe_nothing(one_setting_up: StripeSimulator) -> None:
    link(make_subscriber(), "cus_acme")
    client = WebhookClient()
    assert client.deliver(client.summary("cus_acme", "sso")).status_code == 200
    assert client.deliver(client.subscription_updated("cus_acme")).status_code == 200
    assert held() == {"sso"}
    assert one_setting_up.requests == []
