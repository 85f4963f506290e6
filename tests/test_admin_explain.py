"""Explain, in the admin: who and which key, yes or no and why, in the words of the command."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from entitlements_app.linking import unlink
from entitlements_app.models import Customer
from entitlements_app.overrides import deny, grant
from entitlements_app.testing.factories import CustomerFactory, FeatureFactory, WebhookEventFactory
from tests.delivery import deliver, summary
from tests.rows import BY_ORGANISATION, customer, make_subscriber
from tests.staff import staff, text_of, url

pytestmark = pytest.mark.django_db

EXPLAIN = url(Customer, "explain")

of_users = pytest.mark.skipif(BY_ORGANISATION, reason="about users, who have names and e-mail addresses")


@pytest.fixture
def viewer(db: None) -> Client:
    return staff("view_customer")


def ask(client: Client, **question: Any) -> Any:
    return client.get(EXPLAIN, question, follow=True)


def verdict(response: Any) -> str:
    told = response.context["told"]
    assert told.reason in text_of(response)
    return told.reason


def command(who: str, key: str) -> list[str]:
    """The lines of the command without their labels, but for the one with the time."""
    out = StringIO()
    call_command("entitlements_explain", who, key, stdout=out)
    lines = [re.split("  +", line, maxsplit=1)[-1] for line in out.getvalue().splitlines()]
    return [line for line in lines if line and "; times are of " not in line]


def situations(subscriber: Any) -> None:
    deliver(summary("cus_acme", "sso", "audit"))
    author = User.objects.create_user("grace")
    grant(subscriber, "sso", reason="pilot", by=author)
    deny(subscriber, "sso", reason="abuse, ticket 4711", by=author)
    CustomerFactory.create(subscriber=subscriber, keys=["sso"], livemode=True)
    WebhookEventFactory.create(customer_stripe_id="cus_acme", failed=True)


@pytest.mark.parametrize("key", ["sso", "audit", "Audit", "nothing"])
def test_it_says_what_the_command_says(acme: Any, viewer: Client, key: str) -> None:
    situations(acme)
    shown = ask(viewer, who="cus_acme", key=key)
    said = text_of(shown)
    for line in command("cus_acme", key):
        assert line in said
    labels = [paragraph.label for paragraph in shown.context["paragraphs"]]
    assert labels[0] == "Subscriber"
    assert all(label in said for label in labels)


def test_a_customer_s_page_leads_to_it(acme: Any, viewer: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    page = viewer.get(url(Customer, customer().pk, "change")).content.decode()
    assert f'action="{EXPLAIN}"' in page
    assert f'<input type="hidden" name="customer" value="{customer().pk}">' in page
    assert '<option value="sso">' in page
    assert f'href="{EXPLAIN}"' in viewer.get(url(Customer)).content.decode()
    shown = ask(viewer, customer=customer().pk, key="sso")
    assert verdict(shown).startswith("Yes: cus_acme holds it")
    assert url(Customer, customer().pk, "change") in shown.content.decode()


def test_a_text_leads_to_an_address_that_can_be_kept(acme: Any, viewer: Client) -> None:
    response = viewer.get(EXPLAIN, {"who": " cus_acme ", "key": "a&b"})
    assert response.status_code == 302
    assert parse_qs(urlsplit(response.url).query) == {"subscriber": [str(acme.pk)], "key": ["a&b"]}


def test_a_subscriber_without_a_customer_is_explained(viewer: Client) -> None:
    ada = make_subscriber()
    FeatureFactory.create(lookup_key="sso")
    assert verdict(ask(viewer, subscriber=ada.pk, key="sso")) == "No: no Stripe customer is linked."
    grant(ada, "sso", reason="pilot")
    assert verdict(ask(viewer, who=f"pk:{ada.pk}", key="sso")) == "Yes: an override grants it for good, “pilot”."


def test_a_customer_that_is_nobody_s_is_explained_by_itself(acme: Any, viewer: Client) -> None:
    deliver(summary("cus_acme", "sso"))
    unlink("cus_acme")
    shown = ask(viewer, who="cus_acme", key="sso")
    assert verdict(shown).startswith("No: cus_acme is linked to nobody here")
    assert "Subscriber nobody Key sso" in text_of(shown)


@of_users
def test_a_text_that_could_be_several_offers_each(viewer: Client) -> None:
    ada, eve = (User.objects.create_user(name, "us@example.com") for name in ("ada", "eve"))
    shown = ask(viewer, who="us@example.com", key="sso")
    assert "'us@example.com' could be several. Say which:" in text_of(shown)
    for user in (ada, eve):
        assert f'href="{EXPLAIN}?subscriber={user.pk}&amp;key=sso"' in shown.content.decode()
    assert 'value="us@example.com"' in shown.content.decode()


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"who": "x@example.com", "key": "sso"}, "'x@example.com'. Tried as: Stripe customer, primary key"),
        ({"who": "cus_unseen", "key": "sso"}, "A customer is known from its first webhook event on"),
        ({"who": "a\0b", "key": "sso"}, "Tried as: "),
        ({"who": "9" * 5000, "key": "sso"}, "Tried as: "),
        ({"who": "x@" + "y" * 60_000, "key": "sso"}, "Tried as: "),
        ({"who": "", "key": "sso"}, "Say who: "),
        ({"customer": "x", "key": "sso"}, "There is no such customer."),
        ({"customer": "9" * 40, "key": "sso"}, "There is no such customer."),
        ({"subscriber": "\0", "key": "sso"}, "There is no such "),
        ({"who": "cus_acme", "key": " "}, "Name a lookup key."),
        ({"who": "cus_acme", "key": "a\0b"}, "A lookup key cannot contain the character NUL."),
        ({"who": "cus_acme", "key": "k" * 3000}, "no feature and no override has it"),
        ({"who": "cus_acme", "key": "<b>x</b>"}, "Key <b>x</b> no feature and no override has it"),
    ],
)
def test_a_question_without_an_answer_gets_a_sentence(
    acme: Any, viewer: Client, question: dict[str, str], words: str
) -> None:
    response = ask(viewer, **question)
    assert response.status_code == 200
    assert words in text_of(response)
    assert "<b>x" not in response.content.decode()


def test_the_bare_page_asks_who_and_which_key(viewer: Client) -> None:
    said = text_of(ask(viewer))
    assert "Who, and which key" in said
    assert "Yes:" not in said


def test_it_is_for_who_may_view_customers(acme: Any) -> None:
    assert ask(staff("view_feature", "view_entitlementoverride"), who="cus_acme", key="sso").status_code == 403
    response = Client().get(EXPLAIN)
    assert (response.status_code, response.url[:13]) == (302, "/admin/login/")
    assert staff("view_customer").post(EXPLAIN, {"who": "cus_acme", "key": "sso"}).status_code == 405


def test_it_writes_nothing_and_costs_at_most_twelve_queries(acme: Any, viewer: Client, settings: Any) -> None:
    situations(acme)
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    questions: list[dict[str, Any]] = [{"customer": customer().pk}, {"subscriber": acme.pk}]
    for question in questions:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert verdict(ask(viewer, **question, key="sso")).startswith("No: an override denies it")
        assert len(queries) <= 12
        assert {query["sql"].lstrip("(").split()[0] for query in queries} == {"SELECT"}
    for who in ("cus_acme", "nobody"):
        with CaptureQueriesContext(connection) as queries:
            viewer.get(EXPLAIN, {"who": who, "key": "sso"})
        assert len(queries) <= 12
