"""What does not fit between the two is said at the start; what dj-stripe does for both is not asked for twice."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.test import Client
from django.urls import include, path
from djstripe.enums import APIKeyType
from djstripe.models import Account, APIKey, WebhookEndpoint

from entitlements_app import conf
from entitlements_app.contrib.djstripe.checks import EVENT_TYPES
from entitlements_app.stripe_objects import SUMMARY_UPDATED
from tests.rows import BY_ORGANISATION
from tests.test_checks import found

from .deliveries import make_endpoint

pytestmark = pytest.mark.django_db

THEIRS = path("djstripe/", include("djstripe.urls", namespace="djstripe"))
OURS = path("stripe/", include("entitlements_app.urls"))


class OnlyTheirs:
    urlpatterns = [THEIRS]


class OnlyOurs:
    urlpatterns = [OURS]


class Neither:
    urlpatterns: list[Any] = []


class Both:
    urlpatterns = [THEIRS, OURS]


@pytest.fixture(autouse=True)
def well_set_up(settings: Any) -> None:
    """As the pages say: nothing but dj-stripe's settings and URL."""
    settings.ROOT_URLCONF = OnlyTheirs
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = []
    settings.STRIPE_TEST_SECRET_KEY = "sk_test_1"


def endpoint(*enabled: str, **fields: Any) -> WebhookEndpoint:
    """An endpoint that dj-stripe's admin has made."""
    return make_endpoint(enabled_events=list(enabled or ["*"]), **fields)


def message(id: str, **options: Any) -> checks.CheckMessage:  # noqa: A002  (Django's own name)
    [message] = [message for message in checks.run_checks(**options) if message.id == f"entitlements_app.{id}"]
    return message


def test_a_site_that_is_set_up_well_hears_nothing() -> None:
    endpoint()
    assert found() == found(databases=["default"]) == []


# --- the key


def test_a_key_in_dj_stripe_s_table_alone_is_none(settings: Any) -> None:
    settings.STRIPE_TEST_SECRET_KEY = ""
    APIKey.objects.create(secret="sk_test_" + "h" * 24, type=APIKeyType.secret, livemode=False)
    assert conf.stripe_api_key() is None
    assert found() == ["W001"]
    assert "STRIPE_TEST_SECRET_KEY" in message("W001").msg
    assert "dj-stripe's table are not used" in (message("W001").hint or "")


def test_the_other_mode_than_dj_stripe_s(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_live_1"
    assert found() == ["W013"]
    assert message("W013").hint.startswith("Set STRIPE_LIVE_MODE = True.")
    settings.STRIPE_LIVE_MODE = True
    assert found() == []
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_1"
    assert found() == ["W013"]


def test_a_key_of_live_mode_and_no_mode_said(settings: Any) -> None:
    del settings.STRIPE_LIVE_MODE
    settings.STRIPE_TEST_SECRET_KEY = ""
    settings.STRIPE_SECRET_KEY = "sk_live_1"
    assert conf.livemode() is True
    assert found() == ["W013"], "dj-stripe takes no mode for test mode"


def test_a_key_that_contradicts_dj_stripe_s_mode(settings: Any) -> None:
    settings.STRIPE_LIVE_MODE = True
    settings.STRIPE_LIVE_SECRET_KEY = "sk_test_hush"
    assert found() == found(databases=["default"]) == ["E002"]
    assert message("E002").msg.startswith("STRIPE_LIVE_MODE contradicts the prefix of STRIPE_LIVE_SECRET_KEY")
    assert "leave ENTITLEMENTS_LIVEMODE out" in message("E002").hint


# --- the subscribers


def test_other_subscribers_than_dj_stripe_s(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "auth.User" if BY_ORGANISATION else "testapp.Organisation"
    settings.ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = "tests.testapp.views.organisation_of"
    assert found() == ["E020"]


@pytest.mark.skipif(BY_ORGANISATION, reason="about users")
def test_a_proxy_of_dj_stripe_s_subscribers(settings: Any) -> None:
    settings.ENTITLEMENTS_SUBSCRIBER_MODEL = "testapp.Member"
    assert found(databases=["default"]) == ["W015"]


@pytest.mark.skipif(BY_ORGANISATION, reason="the tables are of users")
def test_tables_that_were_made_before_for_another_model(settings: Any) -> None:
    settings.DJSTRIPE_SUBSCRIBER_MODEL = "testapp.Organisation"
    settings.DJSTRIPE_SUBSCRIBER_MODEL_REQUEST_CALLBACK = "tests.testapp.views.organisation_of"
    endpoint()
    assert "E005" in found(databases=["default"])
    told = message("E005", databases=["default"])
    assert told.msg.startswith("DJSTRIPE_SUBSCRIBER_MODEL is another model than at the first migrate")
    assert told.hint.startswith("Take entitlements_app.contrib.djstripe, which has it read, out of INSTALLED_APPS")
    assert "do so all the same" in told.hint, "until then migrate refuses to go back, too"


# --- the webhook endpoint


@pytest.mark.parametrize(
    ("urls", "secrets", "expected"),
    [
        (OnlyTheirs, [], []),
        (OnlyTheirs, ["whsec_1"], []),
        (Both, [], []),
        (Both, ["whsec_1"], []),
        (OnlyOurs, ["whsec_1"], []),
        (OnlyOurs, [], ["W002"]),
        (Neither, [], ["W002", "W003"]),
        (Neither, ["whsec_1"], ["W003"]),
    ],
)
def test_one_of_the_two_endpoints_has_to_be_there(
    urls: Any, secrets: list[str], expected: list[str], settings: Any
) -> None:
    settings.ROOT_URLCONF = urls
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = secrets
    assert sorted(found()) == expected
    if "W002" in expected:
        assert "dj-stripe's endpoint needs none" in (message("W002").hint or "")
    if "W003" in expected:
        assert "djstripe.urls" in (message("W003").hint or "")


@pytest.mark.parametrize("method", ["retrieve_event", "none"])
def test_an_endpoint_that_does_not_verify(method: str) -> None:
    told = endpoint(djstripe_validation_method=method)
    assert found() == []
    assert found(databases=["default"]) == ["W014"]
    assert str(told.djstripe_uuid) in message("W014", databases=["default"]).msg


def test_an_endpoint_without_a_secret() -> None:
    """As `djstripe_sync_models` leaves one that it has not known: dj-stripe fails on each delivery."""
    told = endpoint(secret="")
    assert found(databases=["default"]) == ["W014"]
    said = f"does not have the secret of its webhook endpoint {told.djstripe_uuid}"
    assert said in message("W014", databases=["default"]).msg


def test_an_endpoint_that_nothing_of_ours_comes_by_is_not_told_of(settings: Any) -> None:
    account = Account.objects.create(id="acct_ours", livemode=False)
    other = Account.objects.create(id="acct_theirs", livemode=False)
    APIKey.objects.create(
        secret=settings.STRIPE_TEST_SECRET_KEY, type="secret", livemode=False, djstripe_owner_account=account
    )
    endpoint(djstripe_owner_account=account)
    unverified = {"djstripe_validation_method": "none"}
    endpoint(status="disabled", **unverified)
    endpoint(livemode=True, **unverified)
    endpoint(djstripe_owner_account=other, **unverified)
    assert found(databases=["default"]) == []


def test_endpoints_of_several_accounts_and_none_is_known_to_be_our_own(settings: Any) -> None:
    """As after the key was replaced, until dj-stripe asks Stripe with the new one."""
    ours, other = (Account.objects.create(id=f"acct_{name}", livemode=False) for name in ("ours", "theirs"))
    endpoint(djstripe_owner_account=ours)
    endpoint()
    assert found(databases=["default"]) == [], "there is one that is known"
    endpoint(djstripe_owner_account=other)
    assert found(databases=["default"]) == ["W017"]
    assert "acct_ours, acct_theirs" in message("W017", databases=["default"]).msg
    APIKey.objects.create(
        secret=settings.STRIPE_TEST_SECRET_KEY, type="secret", livemode=False, djstripe_owner_account=ours
    )
    assert found(databases=["default"]) == []


def test_events_that_no_endpoint_brings() -> None:
    assert found(databases=["default"]) == ["W015"]
    endpoint("invoice.paid", *EVENT_TYPES[1:])
    assert found(databases=["default"]) == ["W015"]
    told = message("W015", databases=["default"]).msg
    assert SUMMARY_UPDATED in told
    assert "customer.deleted" not in told
    endpoint(SUMMARY_UPDATED, status="disabled")
    assert found(databases=["default"]) == ["W015"]
    endpoint(SUMMARY_UPDATED, url="https://other.example/stripe/webhook/")
    assert found(databases=["default"]) == ["W015"], "which is of another site with this account"
    endpoint(SUMMARY_UPDATED)
    assert found(databases=["default"]) == [], "what one does not bring, another may"


def test_events_may_come_by_our_own_endpoint(settings: Any) -> None:
    settings.ROOT_URLCONF = Both
    assert found(databases=["default"]) == ["W015"], "which refuses all without a secret"
    settings.ENTITLEMENTS_WEBHOOK_SECRETS = ["whsec_1"]
    assert found(databases=["default"]) == []


def test_the_status_does_not_miss_a_secret(settings: Any, django_user_model: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):  # as nothing ran yet
        call_command("entitlements_status")
    assert "an API key is set; dj-stripe's webhook endpoint; processing" in capsys.readouterr().out
    settings.ROOT_URLCONF = "tests.urls"
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("operator"))
    page = client.get("/admin/entitlements_app/overview/").content.decode()
    assert "no webhook secret is set" not in page
