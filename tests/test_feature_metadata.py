"""`e.metadata("seats")`: Stripe's only place for limits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection
from django.test.utils import CaptureQueriesContext

from entitlements_app.access import aget_entitlements, get_entitlements
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Feature
from entitlements_app.overrides import grant
from entitlements_app.sync import sync_customer
from tests.delivery import SUMMARY, deliver, summary
from tests.rows import customer, make_subscriber
from tests.shop import Shop

pytestmark = pytest.mark.django_db


@pytest.fixture
def seats(acme: Any) -> Any:
    """Acme holds `seats`, of whose feature Stripe's catalogue says `max = 5`."""
    deliver(summary("cus_acme", "seats", "sso"))
    Feature.objects.filter(lookup_key="seats").update(metadata={"max": "5"})
    return acme


def test_the_metadata_of_a_held_feature(seats: Any) -> None:
    e = get_entitlements(seats)
    assert e.metadata("seats") == {"max": "5"}
    assert e.metadata("sso") == {}


def test_what_is_not_held_has_none(seats: Any) -> None:
    Feature.objects.create(stripe_id="feat_other", lookup_key="other", livemode=False, metadata={"max": "9"})
    assert get_entitlements(seats).metadata("other") == {}
    assert get_entitlements(None).metadata("seats") == {}


def test_one_query_for_all_keys(seats: Any, django_assert_num_queries: Any) -> None:
    e = get_entitlements(seats)
    with django_assert_num_queries(1):
        assert (e.metadata("seats"), e.metadata("sso")) == ({"max": "5"}, {})


def test_the_feature_that_is_held_counts_not_a_newer_one_with_its_key(seats: Any) -> None:
    """Archived, and its key taken by a feature with another limit: who bought the old one has the old limit."""
    Feature.objects.filter(lookup_key="seats").update(active=False)
    Feature.objects.create(stripe_id="feat_new", lookup_key="seats", livemode=False, metadata={"max": "10"})
    assert get_entitlements(seats).metadata("seats") == {"max": "5"}


def test_of_two_that_are_held_the_one_that_is_not_archived(seats: Any) -> None:
    new = Feature.objects.create(stripe_id="feat_new", lookup_key="seats", livemode=False, metadata={"max": "10"})
    ActiveEntitlement.objects.create(customer=customer(), feature=new, stripe_id="ent_2", lookup_key="seats")
    Feature.objects.exclude(pk=new.pk).update(active=False)
    assert get_entitlements(seats).metadata("seats") == {"max": "10"}


def test_of_a_granted_key_the_feature_that_is_not_archived(acme: Any) -> None:
    for stripe_id, active, most in (("feat_1", False, "1"), ("feat_2", True, "2"), ("feat_3", False, "3")):
        Feature.objects.create(
            stripe_id=stripe_id, lookup_key="seats", livemode=False, active=active, metadata={"max": most}
        )
    grant(acme, "seats")
    assert get_entitlements(acme).metadata("seats") == {"max": "2"}


def test_another_s_feature_is_not_asked(seats: Any) -> None:
    archived = Feature.objects.create(
        stripe_id="feat_old", lookup_key="seats", livemode=False, active=False, metadata={"max": "99"}
    )
    link(seats, "cus_live", livemode=True)
    live = customer("cus_acme").__class__.objects.get(stripe_id="cus_live")
    ActiveEntitlement.objects.create(customer=live, feature=archived, stripe_id="ent_3", lookup_key="seats")
    assert get_entitlements(seats).metadata("seats") == {"max": "5"}


def test_what_is_returned_is_the_caller_s(seats: Any) -> None:
    e = get_entitlements(seats)
    e.metadata("seats")["max"] = "1000"
    assert e.metadata("seats") == {"max": "5"}


@pytest.mark.parametrize("bad", ["", None, 7, ["seats"]])
def test_what_is_no_key_is_a_type_error(seats: Any, bad: Any) -> None:
    with pytest.raises(TypeError):
        get_entitlements(seats).metadata(bad)


@pytest.mark.django_db(transaction=True)
def test_async_code_is_told_what_to_await(seats: Any) -> None:
    async def ask() -> dict[str, str]:
        e = await aget_entitlements(seats)
        with pytest.raises(SynchronousOnlyOperation, match="sync_to_async"):
            e.metadata("seats")
        await sync_to_async(e.metadata)("seats")
        return e.metadata("seats")

    assert async_to_sync(ask)() == {"max": "5"}


@pytest.mark.django_db(transaction=True)
def test_a_fetch_brings_names_and_metadata(shop: Shop, acme: Any) -> None:
    stripe = shop.stripe
    feature = stripe.create_feature("seats", name="Seats", metadata={"max": "5"})
    price = stripe.create_price(stripe.create_product("Team", features=[feature]))
    stripe_id = shop.customer()
    link(acme, stripe_id)
    stripe.subscribe(stripe_id, price)
    shop.deliver(only=SUMMARY)
    sync_customer(customer(stripe_id))
    assert get_entitlements(acme).metadata("seats") == {"max": "5"}
    row = Feature.objects.get(lookup_key="seats")
    assert (row.name, row.active) == ("Seats", True)

    stripe.call("POST", f"/v1/entitlements/features/{feature['id']}", {"name": "Places", "metadata": {"max": "6"}})
    stripe.call("POST", f"/v1/entitlements/features/{feature['id']}", {"active": False})
    version = customer(stripe_id).version
    assert not sync_customer(customer(stripe_id)).changed
    row.refresh_from_db()
    assert (row.name, row.active, row.metadata) == ("Places", False, {"max": "6"})
    assert customer(stripe_id).version == version + 1
    assert get_entitlements(acme).metadata("seats") == {"max": "6"}


@pytest.mark.django_db(transaction=True)
def test_what_has_not_changed_is_not_written(shop: Shop) -> None:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    shop.subscribe(stripe_id, "pro")
    sync_customer(customer(stripe_id))
    row = customer(stripe_id)
    with CaptureQueriesContext(connection) as queries:
        sync_customer(row)
    assert not [query for query in queries if "UPDATE" in query["sql"] and "_feature" in query["sql"]]


def test_an_event_leaves_them_alone(seats: Any) -> None:
    deliver(summary("cus_acme", "seats", created=int(time.time()) + 1), t=int(time.time()) + 1)
    assert get_entitlements(seats).metadata("seats") == {"max": "5"}
