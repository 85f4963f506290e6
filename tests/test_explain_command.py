"""`entitlements_explain`, as a person at the support desk sees it."""

from __future__ import annotations

import json
from datetime import datetime
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Customer, EntitlementChange, EntitlementOverride, Feature
from entitlements_app.overrides import deny, grant
from entitlements_app.wording import format_moment
from tests.delivery import deliver, summary
from tests.documents import ROOT, blocks
from tests.rows import BY_ORGANISATION, customer, make_subscriber

pytestmark = pytest.mark.django_db

of_users = pytest.mark.skipif(BY_ORGANISATION, reason="about users, who have names and e-mail addresses")


def explained(*args: str) -> str:
    out = StringIO()
    call_command("entitlements_explain", *args, stdout=out)
    return out.getvalue()


def subscriber_in(text: str) -> str:
    """Whom it was taken for."""
    (line,) = [line for line in text.splitlines() if line.startswith("Subscriber")]
    return line.partition("  ")[2].strip()


def told(subscriber: Any) -> str:
    return f"{subscriber} ({'organisation' if BY_ORGANISATION else 'user'}, pk:{subscriber.pk})"


def user(name: str, email: str = "", pk: int | None = None) -> User:
    return User.objects.create_user(name, email, pk=pk) if pk else User.objects.create_user(name, email)


def test_the_whole_answer_can_be_read(acme: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    author = user("support")
    grant(acme, "sso", reason="pilot", by=author)
    deny(acme, "sso", reason="abuse, ticket 4711", by=author)
    text = explained("cus_acme", "sso")
    row, (granted, denied) = customer(), EntitlementOverride.objects.order_by("pk")
    entitlement = row.active_entitlements.get(lookup_key="sso")
    now = text.rpartition("As of")[2].split(", in test mode")[0].strip()
    assert row.hinted_at is not None
    happened = (row.hinted_at, entitlement.created_at, granted.starts_at, denied.starts_at)
    happened += tuple(EntitlementChange.objects.values_list("created_at", flat=True))
    moments = {format_moment(at) for at in happened} | {now}
    for moment in moments:  # a minute may have passed
        text = text.replace(moment, "NOW")
    assert (
        text
        == f"""\
No: an override denies it for good, “abuse, ticket 4711” (by support).

Subscriber     {told(acme)}
Key            sso
               feat_test_sso, whose name is not known yet
Customers      cus_acme: known from webhooks only, not confirmed yet
Held by        cus_acme since NOW ({entitlement.stripe_id}, feat_test_sso), not confirmed yet
Overrides      denies it since NOW, for good, “abuse, ticket 4711” (by support)
               grants it since NOW, for good, “pilot” (by support); but a denial wins
All keys held  audit
Last changes   NOW: lost, by an override
               NOW: gained, a webhook from Stripe said so (cus_acme)
Still to come  Stripe cannot be asked: ENTITLEMENTS_STRIPE_API_KEY is not set
               cus_acme: Stripe is to be asked as soon as possible, because of what happened on NOW
As of          NOW, in test mode; times are of America/New_York
"""
    )


@of_users
@pytest.mark.skipif(not django_settings.USE_TZ, reason="its times are of a time zone")
def test_the_example_in_the_docs_is_what_it_prints(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    ada, grace = user("ada", "ada@example.com", pk=42), user("grace")
    link(ada, "cus_NffrFeUfNV2Hib")
    deliver(summary("cus_NffrFeUfNV2Hib", "sso", "audit"))
    deny(ada, "sso", reason="abuse, ticket 4711", by=grace)
    _set_back_in_time()
    (example,) = [block.text for block in blocks(ROOT / "docs" / "explain.md") if block.language == "console"]
    command, _, printed = example.partition("\n")
    with time_machine.travel(_at(26, 10, 35), tick=False):
        assert explained(*command.split()[4:]) == printed


def _at(day: int, hour: int, minute: int, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=ZoneInfo("America/New_York"))


def _set_back_in_time() -> None:
    """What happened just now happened when the docs say, and with their ids."""
    Feature.objects.filter(lookup_key="sso").update(stripe_id="feat_Sso1", name="Single sign-on")
    ActiveEntitlement.objects.filter(lookup_key="sso").update(
        stripe_id="ent_4x9", created_at=_at(3, 8, 40), confirmed_at=_at(3, 8, 42)
    )
    EntitlementChange.objects.filter(cause="event").update(created_at=_at(3, 8, 40))
    EntitlementChange.objects.filter(cause="override").update(created_at=_at(26, 10, 2))
    EntitlementOverride.objects.update(starts_at=_at(26, 10, 2), expires_at=_at(30, 18, 0))
    Customer.objects.update(
        fetched_at=_at(25, 9, 12), hinted_at=None, urgent=False, next_fetch_at=_at(1, 7, 30, month=12)
    )


def test_yes_and_no_are_answers_and_no_errors(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    assert explained("cus_acme", "sso").startswith("Yes: ")
    assert explained("cus_acme", "audit").startswith("No: ")


def test_the_same_as_data(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    data = json.loads(explained("cus_acme", "sso", "--json"))
    assert (data["entitled"], data["case"], data["key"]) == (True, "held", "sso")
    assert (data["subscriber"], data["subscriber_id"]) == (str(acme), acme.pk if not BY_ORGANISATION else str(acme.pk))
    assert data["customers"][0]["stripe_id"] == "cus_acme"
    assert data["entitlements"][0]["feature"]["stripe_id"] == "feat_test_sso"


# Who is meant


def test_by_customer_and_by_primary_key(acme: Any) -> None:
    for text in ("cus_acme", "customer:cus_acme", str(acme.pk), f"pk:{acme.pk}"):
        assert subscriber_in(explained(text, "sso")) == told(acme)


@of_users
def test_by_name_and_by_email() -> None:
    ada = user("ada", "ada@example.com")
    for text in ("ada", "name:ada", "ada@example.com", "ADA@example.com", "email:ada@example.com"):
        assert subscriber_in(explained(text, "sso")) == told(ada)


@of_users
def test_who_is_called_as_another_one_s_key_must_be_told_apart() -> None:
    ada = user("ada", pk=4711)
    numbered = user("4711")
    with pytest.raises(CommandError) as caught:
        explained("4711", "sso")
    assert str(caught.value) == (
        f"'4711' could be several. Say which:\n  pk:4711  {told(ada)}\n  name:4711  {told(numbered)}"
    )
    assert subscriber_in(explained("name:4711", "sso")) == told(numbered)
    assert subscriber_in(explained("pk:4711", "sso")) == told(ada)


@of_users
def test_who_is_called_as_their_own_key_is_clear() -> None:
    numbered = user("4711", pk=4711)
    assert subscriber_in(explained("4711", "sso")) == told(numbered)


@of_users
def test_of_two_with_one_address_each_is_named_by_key() -> None:
    ada, eve = user("ada", "us@example.com"), user("eve", "us@example.com")
    with pytest.raises(CommandError) as caught:
        explained("us@example.com", "sso")
    assert str(caught.value) == (
        f"'us@example.com' could be several. Say which:\n  pk:{ada.pk}  {told(ada)}\n  pk:{eve.pk}  {told(eve)}"
    )


@of_users
def test_a_long_list_is_cut_short() -> None:
    for number in range(12):
        user(f"member-{number}", "team@example.com")
    with pytest.raises(CommandError) as caught:
        explained("team@example.com", "sso")
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (12, "  and more")


@of_users
def test_who_is_called_like_a_customer_is_told_apart_too(acme: Any) -> None:
    eve = user("cus_acme")
    with pytest.raises(CommandError, match="customer:cus_acme"):
        explained("cus_acme", "sso")
    assert subscriber_in(explained("name:cus_acme", "sso")) == told(eve)


@of_users
def test_a_name_may_look_like_a_prefix() -> None:
    odd = user("pk:7")
    assert subscriber_in(explained("name:pk:7", "sso")) == told(odd)
    with pytest.raises(CommandError, match=r"There is no user '7'\. Tried as: primary key\."):
        explained("pk:7", "sso")


def test_nobody_found_says_what_was_tried() -> None:
    with pytest.raises(CommandError) as caught:
        explained("bob", "sso")
    assert str(caught.value) == (
        "There is no organisation 'bob'. Tried as: Stripe customer, primary key."
        if BY_ORGANISATION
        else "There is no user 'bob'. Tried as: Stripe customer, primary key, name, e-mail address."
    )


def test_an_unknown_customer_is_told_how_it_becomes_known() -> None:
    with pytest.raises(CommandError, match="first webhook event"):
        explained("cus_typo", "sso")


@pytest.mark.parametrize("text", ["99999999999999999999999999", "-1", "1.5", "pk:", "", "é"])
def test_strange_texts_are_nobody(text: str) -> None:
    with pytest.raises(CommandError, match="There is no"):
        explained("--", text, "sso")


def test_an_empty_key_is_an_error(acme: Any) -> None:
    with pytest.raises(CommandError, match="KEY is empty"):
        explained("cus_acme", "")


def test_a_malformed_setting_is_a_command_error(acme: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "hello"
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY"):
        explained("cus_acme", "sso")


# Customers


def test_a_customer_of_nobody_is_explained_by_itself() -> None:
    deliver(summary("cus_acme", "sso"))
    text = explained("cus_acme", "sso")
    assert text.startswith("No: cus_acme is linked to nobody here, so what it holds counts for no one.\n")
    assert subscriber_in(text) == "nobody"
    assert "Held by        cus_acme since" in text
    assert json.loads(explained("cus_acme", "sso", "--json"))["subscriber"] is None


def test_a_customer_of_the_other_mode_leads_to_its_subscriber() -> None:
    subscriber = make_subscriber()
    link(subscriber, "cus_live", livemode=True)
    text = explained("cus_live", "sso")
    assert subscriber_in(text) == told(subscriber)
    assert text.startswith("No: all customers linked are in live mode (cus_live), and this site is in test mode.\n")


def test_of_a_customer_in_both_modes_the_site_s_own_counts(acme: Any) -> None:
    link(make_subscriber(), "cus_acme", livemode=True)
    assert subscriber_in(explained("cus_acme", "sso")) == told(acme)


def test_a_deleted_customer_still_leads_to_its_subscriber(acme: Any) -> None:
    Customer.objects.update(deleted_at=timezone.now(), next_fetch_at=None)
    text = explained("cus_acme", "sso")
    assert subscriber_in(text) == told(acme)
    assert "deleted in Stripe" in text.splitlines()[0]
