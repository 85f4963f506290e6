"""Rows that users' tests make are rows as the app makes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from entitlements_app import inbox
from entitlements_app.access import get_entitlements, has_entitlement, subscribers_with
from entitlements_app.models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    SubscriberState,
    WebhookEvent,
)
from entitlements_app.overrides import clear
from entitlements_app.reconcile import fetch_due
from entitlements_app.testing import (
    ActiveEntitlementFactory,
    CustomerFactory,
    EntitlementOverrideFactory,
    FeatureFactory,
    StripeSimulator,
    WebhookClient,
    WebhookEventFactory,
)
from entitlements_app.testing.factories import PRO
from tests.rows import effective, log, make_subscriber

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> Any:
    return make_subscriber()


@pytest.fixture
def stripe() -> WebhookClient:
    return WebhookClient()


def keys_of(subscriber: Any) -> list[str]:
    return list(get_entitlements(subscriber))


# --- customers


def test_pro_holds_its_features_and_the_log_says_so(ada: Any) -> None:
    customer = CustomerFactory(subscriber=ada, pro=True)
    assert keys_of(ada) == sorted(PRO)
    assert list(subscribers_with(PRO[0])) == [ada]
    assert sorted(log(customer=customer)) == [("granted", key, "fetch", True) for key in sorted(PRO)]
    assert SubscriberState.objects.get(subscriber=ada).announced == sorted(PRO)
    assert all(customer.active_entitlements.values_list("confirmed_at", flat=True))


def test_lapsed_had_them_and_lost_them(ada: Any) -> None:
    customer = CustomerFactory(subscriber=ada, lapsed=True)
    assert keys_of(ada) == []
    assert not customer.active_entitlements.exists()
    assert sorted(effective()) == sorted([*(f"+{key}" for key in PRO), *(f"-{key}" for key in PRO)])
    kinds = list(EntitlementChange.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["granted", "granted", "revoked", "revoked"]


@pytest.mark.parametrize("trait", [{}, {"pro": True}])
def test_keys_may_be_named(ada: Any, trait: dict[str, bool]) -> None:
    CustomerFactory(subscriber=ada, keys=["sso", "audit", "sso"], **trait)
    assert keys_of(ada) == ["audit", "sso"]


def test_a_lapsed_customer_s_keys_may_be_named(ada: Any) -> None:
    CustomerFactory(subscriber=ada, lapsed=True, keys=["sso"])
    assert effective() == ["+sso", "-sso"]


@pytest.mark.parametrize("bad", ["sso", [""], [None], [b"a"]])
def test_what_is_no_list_of_keys_is_a_type_error_and_writes_nothing(bad: Any) -> None:
    with pytest.raises(TypeError):
        CustomerFactory(keys=bad)
    assert not Customer.objects.exists()


def test_a_customer_of_nobody_holds_nothing_by_default() -> None:
    customer = CustomerFactory()
    assert customer.subscriber is None
    assert not log()
    assert not CustomerFactory(pro=True).changes.filter(effective=True).exists()


def test_many_customers_and_a_factory_of_one_s_own(ada: Any) -> None:
    class TeamFactory(CustomerFactory):
        keys = ("sso",)

    first, second = TeamFactory.create_batch(2, subscriber=ada)
    assert first.stripe_id != second.stripe_id
    assert effective() == ["+sso"], "the second adds nothing"


def test_one_that_is_only_built_is_no_row() -> None:
    assert CustomerFactory.build(pro=True).pk is None
    assert not Customer.objects.exists()


def test_it_is_settled_so_that_nothing_is_fetched(stripe_simulator: StripeSimulator) -> None:
    CustomerFactory(pro=True)
    assert fetch_due(deadline=float("inf")).fetched == 0
    assert not stripe_simulator.requests


def test_the_next_event_is_believed_and_logs_what_it_changes(ada: Any, stripe: WebhookClient) -> None:
    customer = CustomerFactory(subscriber=ada, keys=["sso", "audit"])
    assert stripe.deliver(stripe.summary(customer, "audit", "export")).status_code == 200
    assert keys_of(ada) == ["audit", "export"]
    assert effective()[2:] == ["+export", "-sso"]
    assert Feature.objects.count() == 3, "the features of events are those of the factories"
    stripe.deliver(stripe.customer_deleted(customer))
    assert keys_of(ada) == []
    assert sorted(effective()[4:]) == ["-audit", "-export"]


def test_a_cached_answer_ends(ada: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_CACHE = "default"
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    assert keys_of(ada) == []
    customer = CustomerFactory(subscriber=ada, keys=["sso"])
    assert keys_of(ada) == ["sso"]
    ActiveEntitlementFactory(customer=customer, lookup_key="audit")
    assert keys_of(ada) == ["audit", "sso"]
    EntitlementOverrideFactory(subscriber=ada, lookup_key="sso", denied=True)
    assert keys_of(ada) == ["audit"]


@pytest.mark.django_db(transaction=True)
def test_a_cached_answer_ends_with_the_commit(settings: Any) -> None:
    ada = make_subscriber()
    settings.ENTITLEMENTS_LOCAL_SECONDS = 60
    assert keys_of(ada) == []
    CustomerFactory(subscriber=ada, keys=["sso"])
    assert keys_of(ada) == ["sso"]


def test_rows_are_of_the_configured_mode(ada: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    customer = CustomerFactory(subscriber=ada, pro=True)
    assert customer.livemode
    assert set(Feature.objects.values_list("livemode", flat=True)) == {True}
    assert WebhookEventFactory().livemode
    assert has_entitlement(ada, *PRO)


# --- features


def test_an_archived_feature_is_granted_still_and_its_key_may_be_taken(ada: Any) -> None:
    archived = FeatureFactory(lookup_key="sso", archived=True)
    assert not archived.active
    CustomerFactory(subscriber=ada, keys=["sso"])
    assert ActiveEntitlement.objects.get().feature == archived
    assert keys_of(ada) == ["sso"]
    anew = FeatureFactory(lookup_key="sso", metadata={"seats": "5"})
    CustomerFactory(keys=["sso"])
    assert ActiveEntitlement.objects.latest("pk").feature == anew


def test_two_features_in_force_with_one_key_are_refused_as_stripe_does() -> None:
    FeatureFactory(lookup_key="sso")
    with pytest.raises(IntegrityError):
        FeatureFactory(lookup_key="sso")


def test_a_feature_s_metadata_is_found(ada: Any) -> None:
    FeatureFactory(lookup_key="sso", metadata={"seats": "5"})
    CustomerFactory(subscriber=ada, keys=["sso"])
    assert get_entitlements(ada).metadata("sso") == {"seats": "5"}


# --- active entitlements


def test_an_active_entitlement_adds_to_what_a_customer_holds(ada: Any, stripe: WebhookClient) -> None:
    customer = CustomerFactory(subscriber=ada, keys=["sso"])
    version = customer.version
    row = ActiveEntitlementFactory(customer=customer, lookup_key="audit")
    assert (row.lookup_key, row.feature.lookup_key, row.customer_id) == ("audit", "audit", customer.pk)
    assert keys_of(ada) == ["audit", "sso"]
    assert log(lookup_key="audit") == [("granted", "audit", "fetch", True)]
    assert customer.version == version + 1 == Customer.objects.get().version
    stripe.deliver(stripe.summary(customer, "audit"))
    assert effective() == ["+sso", "+audit", "-sso"]


def test_an_active_entitlement_of_a_feature_and_of_a_customer_of_its_own() -> None:
    feature = FeatureFactory(lookup_key="sso", archived=True)
    row = ActiveEntitlementFactory(feature=feature)
    assert (row.feature, row.lookup_key, row.customer.subscriber) == (feature, "sso", None)


def test_one_that_only_an_event_has_said_is_not_confirmed(ada: Any) -> None:
    customer = CustomerFactory(subscriber=ada)
    heard = ActiveEntitlementFactory(customer=customer, lookup_key="sso", confirmed_at=None)
    ActiveEntitlementFactory(customer=customer, lookup_key="audit")
    heard.refresh_from_db()
    assert heard.confirmed_at is None
    assert log(lookup_key="sso") == [("granted", "sso", "event", True)]


def test_the_customer_s_schedule_stays_when_the_row_at_hand_is_old() -> None:
    customer = CustomerFactory()
    now = timezone.now()
    Customer.objects.update(hinted_at=now, urgent=True)
    ActiveEntitlementFactory(customer=customer)
    assert Customer.objects.get().urgent
    assert Customer.objects.get().hinted_at == now


# --- overrides


def test_an_override_counts_and_is_logged(ada: Any) -> None:
    author = make_subscriber()
    row = EntitlementOverrideFactory(subscriber=ada, lookup_key="sso", reason="pilot")
    assert (row.effect, row.reason) == ("grant", "pilot")
    assert keys_of(ada) == ["sso"]
    assert keys_of(author) == []
    assert log() == [("granted", "sso", "override", True)]
    assert clear(ada, "sso") == 1
    assert effective() == ["+sso", "-sso"]


def test_a_denial_counts_more_than_what_is_paid_for(ada: Any) -> None:
    CustomerFactory(subscriber=ada, keys=["sso"])
    EntitlementOverrideFactory(subscriber=ada, lookup_key="sso", denied=True)
    assert keys_of(ada) == []
    assert effective() == ["+sso", "-sso"]


def test_one_that_is_over_changes_nothing(ada: Any) -> None:
    row = EntitlementOverrideFactory(subscriber=ada, expired=True)
    assert row.expires_at is not None
    assert row.expires_at < timezone.now()
    assert keys_of(ada) == []
    assert not log()
    EntitlementOverrideFactory(subscriber=ada, starts_at=timezone.now() + timedelta(days=1))
    assert keys_of(ada) == []
    state = SubscriberState.objects.get(subscriber=ada)
    assert state.next_boundary_at is not None


def test_an_override_needs_a_subscriber() -> None:
    with pytest.raises(ValueError, match="subscriber="):
        EntitlementOverrideFactory()
    with pytest.raises(TypeError):
        EntitlementOverrideFactory(subscriber="ada")
    assert not EntitlementOverride.objects.exists()


# --- events


def test_an_event_is_a_processed_row() -> None:
    event = WebhookEventFactory(customer_stripe_id="cus_acme", keys=["sso"])
    assert (event.status, event.type) == ("processed", "entitlements.active_entitlement_summary.updated")
    assert [row["lookup_key"] for row in event.payload["entitlements"]["data"]] == ["sso"]
    assert WebhookEventFactory(type="customer.deleted").payload is None
    assert not Customer.objects.exists()


def test_a_pending_event_is_processed_by_the_next_pass() -> None:
    event = WebhookEventFactory(pending=True, customer_stripe_id="cus_acme", keys=["sso"])
    assert inbox.process_overdue() == 1
    event.refresh_from_db()
    assert event.status == "processed"
    assert [row.lookup_key for row in Customer.objects.get(stripe_id="cus_acme").active_entitlements.all()] == ["sso"]


def test_a_truncated_event_has_ten_of_twelve_and_only_marks_its_customer() -> None:
    event = WebhookEventFactory(truncated=True, pending=True, customer_stripe_id="cus_acme")
    listing = event.payload["entitlements"]
    assert (len(listing["data"]), listing["has_more"]) == (10, True)
    inbox.process_overdue()
    customer = Customer.objects.get(stripe_id="cus_acme")
    assert customer.urgent
    assert not customer.active_entitlements.exists()


def test_a_failed_event_says_why_and_is_not_tried_again() -> None:
    event = WebhookEventFactory(failed=True)
    assert event.error
    assert inbox.process_overdue() == 0
    assert WebhookEvent.objects.get().status == "failed"
