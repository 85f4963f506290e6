"""The page of a customer in the admin: what it says, and what staff may do there."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.test import Client
from django.utils import timezone

from entitlements_app.access import get_entitlements
from entitlements_app.linking import link, unlink
from entitlements_app.models import Customer, EntitlementOverride, Feature, Product, ProductFeature
from entitlements_app.overrides import deny, grant
from entitlements_app.testing.factories import (
    ActiveEntitlementFactory,
    CustomerFactory,
    EntitlementOverrideFactory,
    FeatureFactory,
    WebhookEventFactory,
)
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, customer, held, make_subscriber
from tests.shop import Shop
from tests.staff import staff, staff_for_all, text_of, url
from tests.threads import Crowd, wait_for_backends

pytestmark = pytest.mark.django_db

ACTIONS = {
    "confirm": "confirm_customer",
    "link": "link_customer",
    "unlink": "link_customer",
    "override": "add_entitlementoverride",
    "end": "end_entitlementoverride",
}


@pytest.fixture
def support(db: None) -> Client:
    return staff_for_all()


def page(row: Customer, name: str = "change") -> str:
    return url(Customer, row.pk, name)


def send(client: Client, row: Customer, name: str, **fields: Any) -> Any:
    """As the form on the page would, unless told otherwise."""
    shown = "" if row.subscriber_id is None else str(row.subscriber_id)
    return client.post(page(row, name), {"shown_subscriber": shown, **fields}, follow=True)


def answers(response: Any) -> dict[str, tuple[bool, bool]]:
    """By key: whether the page says yes, and whether it says denied."""
    return {row.key: (row.entitled, row.is_denied) for row in response.context["facts"].answer}


def is_refused(response: Any) -> bool:
    """Whether the page is there again, with the form as it was sent."""
    return "Nothing was changed. Please correct this:" in text_of(response)


def row_of(response: Any, key: str) -> str:
    """What the first table that has it says of a key."""
    row = next(row for row in re.findall(r"<tr>.*?</tr>", response.content.decode(), re.DOTALL) if f">{key}<" in row)
    return " ".join(re.sub(r"<[^>]*>", " ", row).split())


# What it says


def test_it_says_what_the_subscriber_is_entitled_to_and_where_each_key_comes_from(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    archived = FeatureFactory.create(lookup_key="legacy", name="Legacy export", archived=True)
    second = CustomerFactory.create(subscriber=acme, stripe_id="cus_second", keys=["sso"])
    ActiveEntitlementFactory.create(customer=second, feature=archived, lookup_key="legacy")
    product = Product.objects.create(stripe_id="prod_pro", name="Pro", livemode=False)
    feature = customer().active_entitlements.get(lookup_key="audit").feature
    ProductFeature.objects.create(stripe_id="prodft_1", product=product, feature=feature, livemode=False)
    author = User.objects.create_user("grace")
    deny(acme, "sso", reason="abuse, ticket 4711", by=author)
    grant(acme, "beta", until=timezone.now() + timedelta(days=4), reason="pilot", force=True)
    grant(acme, "soon", starts=timezone.now() + timedelta(days=2), force=True)
    EntitlementOverrideFactory.create(subscriber=acme, lookup_key="over", expired=True)

    shown = support.get(page(customer()))
    yes, no, denied = (True, False), (False, False), (False, True)
    assert answers(shown) == {"audit": yes, "beta": yes, "legacy": yes, "soon": no, "sso": denied}
    assert {row.key for row in shown.context["facts"].answer if row.entitled} == set(get_entitlements(acme))
    assert "comes with Pro" in row_of(shown, "audit")
    assert "held by cus_acme" in row_of(shown, "audit")
    assert "Legacy export archived held by cus_second" in row_of(shown, "legacy")
    sso = row_of(shown, "sso")
    assert "No: denied" in sso
    assert "by grace: “abuse, ticket 4711”" in sso
    assert "held by cus_acme" in sso
    assert "held by cus_second" in sso
    assert "Granted by an override" in row_of(shown, "beta")
    assert "until" in row_of(shown, "beta")
    assert "No: not yet Will be granted by an override" in row_of(shown, "soon")


def test_what_nobody_s_customer_holds_is_shown_to_count_for_nobody(support: Client) -> None:
    nobody = CustomerFactory.create(keys=["sso"])
    shown = support.get(page(nobody))
    said = text_of(shown)
    assert shown.context["facts"].answer == ()
    assert f"What {nobody} holds, which counts for nobody" in said
    assert "It counts as soon as the customer is linked to a subscriber." in said
    assert "sso" in row_of(shown, "sso")


def test_changes_are_told_with_their_causes_and_events_with_their_status(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    deny(acme, "audit", reason="abuse")
    WebhookEventFactory.create(customer_stripe_id="cus_acme", failed=True)
    shown = support.get(page(customer()))
    said = text_of(shown)
    last, *earlier = [(change.lookup_key, cause) for change, _, cause in shown.context["changes"]]
    assert last == ("audit", "by an override")
    assert sorted(earlier) == [(key, "a webhook from Stripe said so") for key in ("audit", "sso")]
    assert "failed DatabaseError: made by a factory" in said
    assert "processed" in said
    for model in ("entitlementchange", "webhookevent"):
        assert f'href="/admin/entitlements_app/{model}/?q=cus_acme"' in shown.content.decode()


def test_the_changes_of_a_customer_stay_when_it_moves(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    other = make_subscriber()
    link(other, "cus_acme", move=True)
    changes = text_of(support.get(page(customer()))).partition("Last changes")[2]
    assert "the customer was linked" in changes
    assert f"for {acme}" in changes


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"deleted_at": True}, "Deleted in Stripe on"),
        ({"missing_since": True}, "Unknown to Stripe since"),
        ({"window_from": None, "window_to": None}, "Not heard of yet"),
        ({"hinted_at": True}, "News not settled yet"),
        ({"livemode": True}, "Of live mode , and this site is configured for test mode"),
        ({"account": "acct_1"}, "Of another account , acct_1"),
        ({"fetch_failures": 3}, "Failed in a row 3 times"),
        ({}, "Stripe cannot be asked : ENTITLEMENTS_STRIPE_API_KEY is not set"),
    ],
)
def test_what_is_unusual_is_said_in_words(support: Client, fields: dict[str, Any], words: str) -> None:
    row = CustomerFactory.create()
    now = timezone.now()
    Customer.objects.update(
        **{name: now if name.endswith(("_at", "_since")) else value for name, value in fields.items()}
    )
    assert words in text_of(support.get(page(row)))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "test/customers/cus_1"),
        ({"livemode": True}, "customers/cus_1"),
        ({"account": "acct_1"}, "acct_1/test/customers/cus_1"),
        ({"account": "acct_1", "livemode": True}, "acct_1/customers/cus_1"),
    ],
)
def test_the_link_to_stripe_is_of_the_right_mode_and_account(
    support: Client, fields: dict[str, Any], path: str
) -> None:
    row = CustomerFactory.create(stripe_id="cus_1", **fields)
    content = support.get(page(row)).content.decode()
    assert f'<a href="https://dashboard.stripe.com/{path}" rel="noreferrer">' in content


@pytest.mark.skipif(BY_ORGANISATION, reason="organisations have no page in the admin")
def test_the_subscriber_s_page_is_linked_for_who_may_see_it(acme: Any, support: Client, admin_client: Client) -> None:
    address = f'href="/admin/auth/user/{acme.pk}/change/"'
    assert address not in support.get(page(customer())).content.decode()
    assert address in admin_client.get(page(customer())).content.decode()


def test_a_hostile_name_is_only_text(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "<b>sso</b>"))
    deny(acme, "<b>sso</b>", reason="<img src=x>", force=True)
    Customer.objects.update(name="<script>alert(1)</script>", email='"><svg onload=x>')
    content = support.get(page(customer())).content.decode()
    for hostile in ("<script>alert", "<svg onload", "<b>sso", "<img src=x"):
        assert hostile not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content


def test_nothing_on_it_needs_a_lax_policy(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    content = support.get(page(customer())).content.decode()
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", content)


@pytest.mark.parametrize("pk", ["0", "x", "9" * 40, "1.5", "%00"])
def test_a_page_that_is_not_there(support: Client, pk: str) -> None:
    assert support.get(url(Customer, pk, "change")).status_code == 404
    assert support.post(url(Customer, pk, "confirm")).status_code == 404


def test_it_costs_at_most_twelve_queries(
    acme: Any, support: Client, settings: Any, django_assert_max_num_queries: Any
) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    product = Product.objects.create(stripe_id="prod_pro", name="Pro", livemode=False)
    for number in range(4):
        row = CustomerFactory.create(subscriber=acme, keys=["sso", "audit", f"only_{number}"])
        WebhookEventFactory.create(customer_stripe_id=row.stripe_id)
    for feature in Feature.objects.all():
        ProductFeature.objects.create(
            stripe_id=f"prodft_{feature.pk}", product=product, feature=feature, livemode=False
        )
    for key in ("sso", "beta"):
        grant(acme, key, force=True, by=User.objects.first())
    with django_assert_max_num_queries(12):
        shown = support.get(page(row))
    assert len(answers(shown)) == 7
    assert "Confirm now" in shown.content.decode()


# Who may do what


def test_who_may_only_view_sees_everything_and_no_button(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    grant(acme, "beta", force=True)
    viewer = staff("view_customer")
    shown = viewer.get(page(customer())).content.decode()
    assert len(re.findall(r'<form[^>]*method="post"', shown)) == 1  # signs out
    assert "Granted by an override" in shown
    assert "entitlementchange/" not in shown
    more = support.get(page(customer())).content.decode()
    assert len(re.findall(r'<form[^>]*method="post"', more)) == 5  # Stripe cannot be asked, so no Confirm


@pytest.mark.parametrize(("name", "codename"), ACTIONS.items())
def test_an_action_is_refused_without_its_permission(acme: Any, name: str, codename: str) -> None:
    others = {"view_customer", *ACTIONS.values()} - {codename}
    before = list(Customer.objects.values())
    assert send(staff(*others), customer(), name).status_code == 403
    assert send(staff(codename), customer(), name).status_code == 403  # who may not even view
    assert list(Customer.objects.values()) == before
    assert staff_for_all().get(page(customer(), name)).status_code == 405


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_needs_someone_who_is_signed_in_and_a_token(acme: Any, name: str) -> None:
    response = Client().post(page(customer(), name))
    assert (response.status_code, response.url) == (302, f"/admin/login/?next={page(customer())}")
    assert staff_for_all(csrf=True).post(page(customer(), name)).status_code == 403
    assert LogEntry.objects.count() == 0


# Confirm


def test_confirm_shows_what_has_changed(shop: Shop, acme: Any, support: Client) -> None:
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    link(acme, stripe_id)
    deliver(summary(stripe_id, "sso", "audit"))
    row = customer(stripe_id)
    said = text_of(send(support, row, "confirm"))
    assert f"Stripe was asked about {stripe_id}, and this has changed: +export, −audit." in said
    assert held(stripe_id) == {"sso", "export"}
    assert f"Stripe has confirmed {stripe_id}: nothing has changed." in text_of(send(support, row, "confirm"))
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(row.pk)] * 2
    assert "+export, −audit" in text_of(support.get(page(row, "history")))


def test_confirm_learns_who_the_customer_is(shop: Shop, acme: Any, support: Client) -> None:
    stripe_id = shop.stripe.create_customer(email="ada@example.com", name="Ada")["id"]
    link(acme, stripe_id)
    assert "Ada" in text_of(send(support, customer(stripe_id), "confirm"))
    assert customer(stripe_id).email == "ada@example.com"


@pytest.mark.django_db(transaction=True)
def test_confirm_holds_no_transaction_while_stripe_is_asked(
    shop: Shop, acme: Any, support: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    stripe_id = shop.customer()
    shop.subscribe(stripe_id, "pro")
    link(acme, stripe_id)
    said = text_of(send(support, customer(stripe_id), "confirm"))
    assert "this has changed: +export, +sso." in said  # inside of a transaction it would have refused


@pytest.mark.parametrize(
    ("status", "words"),
    [(503, "Stripe has trouble (APIError, HTTP 503"), (401, "Stripe refused the API key (HTTP 401).")],
)
def test_confirm_while_stripe_gives_no_answer(shop: Shop, acme: Any, support: Client, status: int, words: str) -> None:
    row = CustomerFactory.create(subscriber=acme, keys=["sso"])
    shop.stripe.fail_requests(status=status, times=1)
    said = text_of(send(support, row, "confirm"))
    assert f"Stripe could not be asked about {row}, and nothing was changed." in said
    assert words in said
    assert held(row.stripe_id) == {"sso"}
    assert LogEntry.objects.count() == 0
    assert ("Calls to Stripe are stopped" in said) is (status == 401)


def test_confirm_without_an_api_key(acme: Any, support: Client) -> None:
    said = text_of(send(support, customer(), "confirm"))
    assert "ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked." in said


def test_confirm_of_a_customer_that_stripe_does_not_know(shop: Shop, acme: Any, support: Client) -> None:
    assert "Stripe does not know cus_acme in this mode." in text_of(send(support, customer(), "confirm"))


@pytest.mark.parametrize("fields", [{"livemode": True}, {"account": "acct_1"}, {"deleted_at": timezone.now()}])
def test_stripe_is_not_asked_about_what_this_key_does_not_know(
    shop: Shop, support: Client, fields: dict[str, Any]
) -> None:
    row = CustomerFactory.create(keys=["sso"], **fields)
    shop.calls()
    assert "Confirm now" not in support.get(page(row)).content.decode()
    said = text_of(send(support, row, "confirm"))
    assert "was deleted in Stripe" in said if "deleted_at" in fields else "is of another mode or account" in said
    assert shop.calls() == []
    assert row.active_entitlements.count() == 1


# Link and unlink


def ways_to_name(subscriber: Any) -> list[str]:
    return [str(subscriber.pk), f"pk:{subscriber.pk}"] + ([] if BY_ORGANISATION else [subscriber.username])


def test_a_customer_is_linked_to_who_is_named(support: Client) -> None:
    ada = make_subscriber()
    for number, text in enumerate(ways_to_name(ada)):
        row = CustomerFactory.create(keys=[f"key_{number}"])
        said = text_of(send(support, row, "link", subscriber=text))
        assert f"The customer {row} is linked to {ada}." in said
        assert f"key_{number}" in get_entitlements(ada)
    assert LogEntry.objects.count() == len(ways_to_name(ada))


@pytest.mark.parametrize("text", ["", "nobody@example.com", "pk:0", "a\0b", "x" * 300])
def test_a_subscriber_that_is_not_there_is_refused_and_the_text_kept(support: Client, text: str) -> None:
    row = CustomerFactory.create()
    response = send(support, row, "link", subscriber=text)
    content = response.content.decode()
    assert is_refused(response)
    assert '<a href="#id_subscriber">' in content
    assert "autofocus" in content
    if text and "\0" not in text:
        assert f'value="{text}"' in content
    assert customer(row.stripe_id).subscriber_id is None


@pytest.mark.skipif(BY_ORGANISATION, reason="about users, who have names and e-mail addresses")
def test_a_text_that_could_be_several_lists_them(support: Client) -> None:
    for name in ("ada", "eve"):
        User.objects.create_user(name, "us@example.com")
    said = text_of(send(support, CustomerFactory.create(), "link", subscriber="us@example.com"))
    assert "could be several. Say which:" in said
    assert "– ada (user, pk:" in said
    assert "– eve (user, pk:" in said


def test_a_customer_moves_only_if_it_is_said_so(acme: Any, support: Client) -> None:
    other = make_subscriber()
    refused = send(support, customer(), "link", subscriber=str(other.pk))
    assert is_refused(refused)
    assert "It is linked to another subscriber. Say that it moves." in text_of(refused)
    assert f"Take it from {acme}" in text_of(refused)
    assert customer().subscriber_id == acme.pk
    send(support, customer(), "link", subscriber=str(other.pk), move="on")
    assert customer().subscriber_id == other.pk
    said = text_of(send(support, customer(), "link", subscriber=str(other.pk)))
    assert f"cus_acme is linked to {other} already." in said


def test_what_was_deleted_is_linked_to_nobody(support: Client) -> None:
    ada, row = make_subscriber(), CustomerFactory.create(deleted_at=timezone.now())
    assert 'action="/admin/entitlements_app/customer/' not in support.get(page(row)).content.decode().split("events")[0]
    assert "was deleted in Stripe. Link the customer" in text_of(send(support, row, "link", subscriber=str(ada.pk)))


def test_unlinking_says_what_will_be_lost_and_wants_a_yes(acme: Any, support: Client) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    grant(acme, "audit")
    assert f"{acme} loses at once what only this customer holds: sso ." in text_of(support.get(page(customer())))
    assert is_refused(send(support, customer(), "unlink"))
    assert customer().subscriber_id == acme.pk
    said = text_of(send(support, customer(), "unlink", sure="on"))
    assert f"cus_acme is no longer linked to {acme}." in said
    assert set(get_entitlements(acme)) == {"audit"}
    assert LogEntry.objects.get().get_change_message().startswith("The customer cus_acme is no longer linked")


@pytest.mark.parametrize("name", ["link", "unlink", "override", "end"])
def test_what_was_meant_for_one_subscriber_is_not_done_to_another(acme: Any, support: Client, name: str) -> None:
    FeatureFactory.create(lookup_key="sso")
    shown, other = customer(), make_subscriber()
    grant(other, "sso")
    link(other, "cus_acme", move=True)
    fields = {"subscriber": str(acme.pk), "move": "on", "sure": "on", "effect": "deny", "lookup_key": "sso"}
    response = send(support, shown, name, reason="abuse", **fields)
    assert is_refused(response)
    assert "The customer was linked or unlinked since this page was shown to you." in text_of(response)
    assert customer().subscriber_id == other.pk
    assert set(get_entitlements(other)) == {"sso"}


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["link", "unlink"])
def test_nor_if_it_moves_while_the_form_is_looked_at(acme: Any, support: Client, name: str) -> None:
    other, shown = make_subscriber(), customer()
    fields = {"subscriber": str(make_subscriber().pk), "move": "on", "sure": "on"}
    said: list[str] = []
    with transaction.atomic():
        link(other, "cus_acme", move=True)
        crowd = Crowd().start(lambda: said.append(text_of(send(support, shown, name, **fields))))
        wait_for_backends(1)
    crowd.join()
    assert "The customer was linked or unlinked since this page was shown to you." in said[0]
    assert customer().subscriber_id == other.pk


# Grant, deny, end


def decide(client: Client, effect: str = "grant", **fields: Any) -> Any:
    return send(client, customer(), "override", **{"effect": effect, "lookup_key": "sso", "reason": "pilot", **fields})


def test_a_key_is_granted_and_denied_for_good(acme: Any, support: Client) -> None:
    FeatureFactory.create(lookup_key="sso")
    assert f"“sso” is granted to {acme}. Is it entitled now? Yes: an override grants it" in text_of(decide(support))
    assert "sso" in get_entitlements(acme)
    assert f"“sso” is denied to {acme}. Is it entitled now? No: an override denies it" in text_of(
        decide(support, "deny", reason="abuse")
    )
    assert "sso" not in get_entitlements(acme)
    granted, denied = EntitlementOverride.objects.order_by("pk")
    assert (granted.author.username, granted.reason, denied.reason) == ("chief", "pilot", "abuse")
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(
    ("day", "time", "end"),
    [
        ("2099-12-31", "", datetime(2100, 1, 1)),
        ("2099-12-31", "18:30", datetime(2099, 12, 31, 18, 30)),
        ("2099-12-31", "00:00", datetime(2099, 12, 31)),
    ],
)
def test_an_override_ends_at_a_moment_of_the_site_s_time_zone(
    acme: Any, support: Client, day: str, time: str, end: datetime
) -> None:
    FeatureFactory.create(lookup_key="sso")
    decide(support, until_0=day, until_1=time)
    expected = timezone.make_aware(end) if django_settings.USE_TZ else end
    assert EntitlementOverride.objects.get().expires_at == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"until_0": "2001-01-01"}, "This moment is over"),
        ({"until_0": "0001-01-01"}, "This moment is over"),
        ({"until_0": str(date.today()), "until_1": "00:00"}, "This moment is over"),
        ({"until_0": "9999-12-31"}, "leave it empty"),
        ({"until_0": "tomorrow"}, "Enter a valid date."),
        ({"until_0": "2099-01-01", "until_1": "noon"}, "Enter a valid time."),
        ({"until_1": "12:00"}, "Name the day as well."),
        ({"lookup_key": ""}, "This field is required."),
        ({"lookup_key": "x" * 256}, "at most 255 characters"),
        ({"lookup_key": "a\0b"}, "Null characters are not allowed."),
        ({"reason": ""}, "This field is required."),
        ({"effect": "steal"}, "Select a valid choice."),
    ],
)
def test_what_makes_no_override_is_refused(acme: Any, support: Client, fields: dict[str, str], words: str) -> None:
    FeatureFactory.create(lookup_key="sso")
    response = decide(support, **{"reason": "kept as typed", **fields})
    assert is_refused(response)
    assert words in text_of(response)
    assert "reason" in fields or 'value="kept as typed"' in response.content.decode()
    assert not EntitlementOverride.objects.exists()


def test_an_unknown_key_is_granted_only_to_who_insists(acme: Any, support: Client) -> None:
    refused = decide(support, lookup_key="soon")
    assert is_refused(refused)
    assert "No known feature has this key." in text_of(refused)
    assert 'name="force"' in refused.content.decode()
    assert 'name="force"' not in support.get(page(customer())).content.decode()
    decide(support, lookup_key="soon", force="on")
    assert "soon" in get_entitlements(acme)


def test_overrides_of_a_key_are_ended(acme: Any, support: Client) -> None:
    FeatureFactory.create(lookup_key="sso")
    deny(acme, "sso")
    grant(acme, "sso", starts=timezone.now() + timedelta(days=1))
    assert "End override" in row_of(support.get(page(customer())), "sso")
    said = text_of(send(support, customer(), "end", lookup_key="sso"))
    assert f"2 overrides of “sso” of {acme} have ended." in said
    assert "No override of “sso” was left to end." in text_of(send(support, customer(), "end", lookup_key="sso"))
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("name", ["override", "end", "unlink"])
def test_nobody_s_customer_has_no_subscriber_to_decide_about(acme: Any, support: Client, name: str) -> None:
    FeatureFactory.create(lookup_key="sso")
    unlink("cus_acme")
    fields = {"effect": "grant", "lookup_key": "sso", "reason": "pilot", "sure": "on"}
    assert "cus_acme is linked to nobody" in text_of(send(support, customer(), name, **fields))
    assert not EntitlementOverride.objects.exists()
