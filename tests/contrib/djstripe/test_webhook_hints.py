"""Events that nobody vouches for: Stripe is asked about a customer that is known, and nothing else comes of them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import Client
from djstripe.models import APIKey, WebhookEndpoint, WebhookEventTrigger
from djstripe.models import Customer as DjstripeCustomer
from djstripe.signals import webhook_pre_process, webhook_processing_error

from entitlements_app.linking import link
from entitlements_app.models import Customer, WebhookEvent
from tests.delivery import customer_deleted, deliver, envelope_of, signature, subscription_updated, summary
from tests.rows import customer, held, make_subscriber
from tests.shop import Shop

from .deliveries import OTHER_KEY, SECRET, account, djstripe_asks, make_endpoint, to_djstripe

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.filterwarnings("ignore:WEBHOOK VALIDATION")]


@pytest.fixture
def open_endpoint(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """One of dj-stripe's that checks nothing."""
    return make_endpoint(account(), djstripe_validation_method="none")


@pytest.fixture
def buyer(endpoint: WebhookEndpoint, shop: Shop, monkeypatch: Any) -> str:
    """A customer who holds what the plan pro grants, as Stripe and our rows say."""
    djstripe_asks(monkeypatch, shop.stripe.url)
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    assert shop.new_events()
    assert deliver(subscription_updated(stripe_id)).status_code == 200
    assert held(stripe_id) == {"sso", "export"}
    WebhookEvent.objects.all().delete()
    shop.stripe.clear_requests()
    return stripe_id


def asked_long_ago(stripe_id: str) -> None:
    Customer.objects.filter(stripe_id=stripe_id).update(fetched_at="2026-01-01T00:00Z", hinted_at=None, urgent=False)


def fetches(shop: Shop) -> int:
    return sum("active_entitlements" in path for path in shop.calls())


def forged(stripe_id: str) -> dict[str, dict[str, Any]]:
    return {"deletion": customer_deleted(stripe_id), "summary": summary(stripe_id, "audit")}


@pytest.mark.parametrize("kind", ["deletion", "summary"])
def test_a_forged_event_takes_nothing_and_grants_nothing_and_stripe_is_asked(
    kind: str, open_endpoint: WebhookEndpoint, buyer: str, shop: Shop
) -> None:
    asked_long_ago(buyer)
    to_djstripe(open_endpoint, forged(buyer)[kind], secret="whsec_of_a_stranger")
    assert fetches(shop) == 1
    assert held(buyer) == {"sso", "export"}
    assert customer(buyer).deleted_at is None
    assert not WebhookEvent.objects.exists()


def test_a_true_deletion_is_found_by_asking(open_endpoint: WebhookEndpoint, buyer: str, shop: Shop) -> None:
    asked_long_ago(buyer)
    shop.stripe.delete_customer(buyer)
    to_djstripe(open_endpoint, customer_deleted(buyer))
    assert held(buyer) == set()
    assert customer(buyer).deleted_at is not None


@pytest.mark.parametrize("real_first", [True, False])
def test_a_forged_event_does_not_stand_for_the_real_one_of_its_id(
    real_first: bool, open_endpoint: WebhookEndpoint, acme: Any
) -> None:
    real, fake = summary("cus_acme", "sso"), summary("cus_acme", "audit")
    deliveries = [lambda: deliver(real), lambda: to_djstripe(open_endpoint, fake | {"id": real["id"]})]
    for delivery in deliveries if real_first else reversed(deliveries):
        assert delivery().status_code == 200
    assert WebhookEvent.objects.get().status == "processed"
    assert held() == {"sso"}
    assert customer().urgent, "and Stripe is asked"


def test_strangers_fill_no_table_of_ours(open_endpoint: WebhookEndpoint, caplog: Any) -> None:
    caplog.set_level("INFO", "entitlements_app")
    for number in range(3):
        to_djstripe(open_endpoint, summary(f"cus_{number}", "sso"))
        to_djstripe(open_endpoint, customer_deleted(f"cus_{number}"))
    assert not Customer.objects.exists()
    assert not WebhookEvent.objects.exists()
    assert caplog.text.count("of no customer that is known here") == 6


def test_strangers_do_not_spend_the_call_budget(open_endpoint: WebhookEndpoint, buyer: str, shop: Shop) -> None:
    asked_long_ago(buyer)
    for _ in range(10):
        to_djstripe(open_endpoint, summary(buyer, "audit"))
    assert fetches(shop) == 1


def test_a_hint_is_no_way_around_the_wait_after_a_failed_fetch(
    open_endpoint: WebhookEndpoint, buyer: str, shop: Shop
) -> None:
    asked_long_ago(buyer)
    shop.stripe.fail_requests(500, times=20)
    for _ in range(5):
        to_djstripe(open_endpoint, summary(buyer, "audit"))
    assert fetches(shop) == 1
    assert held(buyer) == {"sso", "export"}


@pytest.mark.parametrize(
    "elsewhere", [{"livemode": True}, {"account": "acct_connected"}], ids=["the other mode", "a connected account"]
)
def test_a_hint_for_somebody_else_is_none(elsewhere: dict[str, Any], open_endpoint: WebhookEndpoint, acme: Any) -> None:
    account("acct_connected", OTHER_KEY)
    Customer.objects.update(hinted_at=None, urgent=False)
    to_djstripe(open_endpoint, customer_deleted("cus_acme") | elsewhere)
    assert customer().hinted_at is None


def test_a_hint_to_the_endpoint_of_another_account_is_none(of_our_key: WebhookEndpoint, acme: Any) -> None:
    theirs = make_endpoint(account("acct_theirs", OTHER_KEY), djstripe_validation_method="none")
    Customer.objects.update(hinted_at=None, urgent=False)
    to_djstripe(theirs, customer_deleted("cus_acme"))
    assert customer().hinted_at is None


def test_where_signatures_are_not_verified_a_good_one_counts_for_nothing(endpoint: WebhookEndpoint, acme: Any) -> None:
    """The secret of such a row may be any text that somebody once typed."""
    unverified = make_endpoint(account(), djstripe_validation_method="none", secret="secret")
    to_djstripe(unverified, summary("cus_acme", "audit"), secret="secret")
    assert held() == set()
    assert customer().urgent


@pytest.mark.parametrize("secret", ["", " "])
def test_an_empty_secret_verifies_nothing(secret: str, endpoint: WebhookEndpoint, acme: Any) -> None:
    empty = make_endpoint(account(), secret=secret)
    assert to_djstripe(empty, summary("cus_acme", "audit"), secret=secret).status_code == (200 if secret else 500)
    assert held() == set()
    assert not WebhookEvent.objects.exists()


def test_a_retrieved_event_is_refused_by_djstripe_and_by_us(endpoint: WebhookEndpoint, buyer: str, shop: Shop) -> None:
    """It compares a dict with an object of stripe-python, which is none, and so believes nothing. Nor do we."""
    asked_long_ago(buyer)
    APIKey.objects.update(secret=shop.stripe.api_key)
    retrieving = make_endpoint(account(), djstripe_validation_method="retrieve_event")
    shop.stripe.call("POST", f"/v1/customers/{buyer}", {"name": "Ann"})
    [updated] = [event for event in shop.new_events() if event["type"] == "customer.updated"]
    answer = to_djstripe(retrieving, updated | {"type": "customer.deleted"}, secret="whsec_of_a_stranger")
    assert answer.status_code == 400
    assert f"/v1/events/{updated['id']}" in shop.calls()
    assert held(buyer) == {"sso", "export"}
    assert customer(buyer).deleted_at is None


def test_an_old_signature_that_djstripe_still_accepts_is_a_hint(endpoint: WebhookEndpoint, acme: Any) -> None:
    tolerant = make_endpoint(account(), djstripe_tolerance=0)
    now = int(time.time())
    assert to_djstripe(tolerant, summary("cus_acme", "audit", created=now - 400), t=now - 310).status_code == 200
    assert held() == set()
    assert customer().urgent
    assert not WebhookEvent.objects.exists()
    assert to_djstripe(tolerant, summary("cus_acme", "sso", created=now - 300), t=now - 290).status_code == 200
    assert held() == {"sso"}


def test_a_deletion_caught_long_ago_revokes_nothing(endpoint: WebhookEndpoint, buyer: str, shop: Shop) -> None:
    tolerant = make_endpoint(account(), djstripe_tolerance=0)
    asked_long_ago(buyer)
    to_djstripe(tolerant, customer_deleted(buyer), t=int(time.time()) - 100_000)
    assert held(buyer) == {"sso", "export"}
    assert fetches(shop) == 1


def test_under_debug_the_secret_that_the_request_names_counts_for_nothing(
    endpoint: WebhookEndpoint, acme: Any, settings: Any
) -> None:
    settings.DEBUG = True
    chosen = {"x-djstripe-webhook-secret": "whsec_chosen"}
    answer = to_djstripe(endpoint, customer_deleted("cus_acme"), secret="whsec_chosen", **chosen)
    assert WebhookEventTrigger.objects.latest("id").valid, answer.content
    assert customer().deleted_at is None
    assert customer().urgent
    assert not WebhookEvent.objects.exists()


def test_what_djstripe_refuses_is_not_even_a_hint(endpoint: WebhookEndpoint, acme: Any) -> None:
    Customer.objects.update(hinted_at=None, urgent=False)
    for header in ("", "garbage", "t=1,v1=0", f"t={int(time.time())},v1={'0' * 64}"):
        to_djstripe(endpoint, customer_deleted("cus_acme"), header=header)
    assert to_djstripe(endpoint, customer_deleted("cus_acme"), secret="whsec_other").status_code == 400
    assert customer().hinted_at is None


def test_a_signed_time_cannot_be_replaced_by_another(endpoint: WebhookEndpoint, acme: Any) -> None:
    body = json.dumps(summary("cus_acme", "sso")).encode()
    t, v1 = signature(body, secret=SECRET, t=int(time.time())).split(",")
    for header in (f"{t},t=9999999999,{v1}", f"{t}=9999999999,{v1}", f"{t},{v1},t=1"):
        assert to_djstripe(endpoint, body, header=header).status_code == 200
    assert WebhookEvent.objects.get().sent_at == int(t[2:])


def test_with_celery_a_hint_wakes_who_asks(open_endpoint: WebhookEndpoint, acme: Any, queue: Any) -> None:
    Customer.objects.update(hinted_at=None, urgent=False)
    queue.delete("celery")
    to_djstripe(open_endpoint, customer_deleted("cus_acme"))
    assert [b"confirm_customers" in message for message in queue.lrange("celery", 0, -1)] == [True]


@pytest.fixture
def payer(buyer: str, shop: Shop, settings: Any) -> Any:
    """Who pays for the buyer, here and at dj-stripe, which may ask Stripe."""
    settings.STRIPE_TEST_SECRET_KEY = shop.stripe.api_key
    payer = customer(buyer).subscriber
    DjstripeCustomer.objects.create(id=buyer, livemode=False, subscriber=payer)
    return payer


def names_payer(stripe_id: str, payer: Any) -> dict[str, Any]:
    """An event by whose metadata dj-stripe gives a customer that it knows to this subscriber."""
    metadata = {"djstripe_subscriber": str(payer.pk)}
    return envelope_of("customer.updated", {"id": stripe_id, "object": "customer", "metadata": metadata})


@pytest.mark.parametrize(
    "lenient", [{"djstripe_validation_method": "none"}, {"djstripe_tolerance": 0}], ids=["unverified", "replayed"]
)
def test_an_event_that_nobody_vouches_for_gives_nobody_a_customer(
    lenient: dict[str, Any], buyer: str, payer: Any, caplog: Any
) -> None:
    mallory = make_subscriber()
    assert to_djstripe(make_endpoint(**lenient), names_payer(buyer, mallory), t=1).status_code == 200
    assert DjstripeCustomer.objects.get().subscriber == mallory, "dj-stripe believes it"
    assert customer(buyer).subscriber == payer
    (told,) = [line for line in caplog.messages if "stays as it was here" in line]
    assert told.endswith("If dj-stripe is right: manage.py entitlements_link_djstripe --move")
    DjstripeCustomer.objects.get().save()
    assert customer(buyer).subscriber == payer


def test_after_such_an_event_djstripe_is_followed_again(
    buyer: str, payer: Any, monkeypatch: Any, client: Client
) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(webhook_processing_error, "receivers", [])  # as if one of the site had raised before ours
        webhook_pre_process.connect(refuse)
        forged = names_payer(buyer, make_subscriber())
        assert to_djstripe(make_endpoint(djstripe_validation_method="none"), forged).status_code == 500
        webhook_pre_process.disconnect(refuse)
    client.get("/")
    row = DjstripeCustomer.objects.get()
    row.subscriber = heir = make_subscriber()
    row.save()
    assert customer(buyer).subscriber == heir
