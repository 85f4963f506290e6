"""The admin shows rows and changes none."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from entitlements_app.models import (
    ActiveEntitlement,
    Customer,
    EntitlementChange,
    EntitlementOverride,
    Feature,
    Product,
    ProductFeature,
    SyncRun,
    WebhookEvent,
)
from entitlements_app.overrides import grant
from tests.delivery import customer_deleted, deliver, summary
from tests.rows import BY_ORGANISATION, make_subscriber
from tests.staff import staff_for_all, url

pytestmark = pytest.mark.django_db

MODELS = [ActiveEntitlement, Customer, EntitlementChange, EntitlementOverride, Feature, WebhookEvent]
MODELS += [Product, ProductFeature, SyncRun]


@pytest.fixture
def support(acme: Any) -> Client:
    """Support staff who may view, on a site with one of everything."""
    deliver(summary("cus_acme", "sso"))
    grant(acme, "sso")
    product = Product.objects.create(stripe_id="prod_pro", name="Pro, with sso", livemode=False)
    ProductFeature.objects.create(
        stripe_id="prodft_pro", product=product, feature=Feature.objects.get(), livemode=False
    )
    SyncRun.objects.create(kind=SyncRun.Kind.CATALOG, livemode=False, finished_at=timezone.now(), error="no sso")
    return staff_for_all()


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_listed_found_and_shown(support: Client, model: Any) -> None:
    listed = support.get(url(model))
    assert listed.status_code == 200
    assert b"1 " in listed.content
    needle = {WebhookEvent: WebhookEvent.objects.get().stripe_id, Customer: "cus_acme"}.get(model, "sso")
    assert b"0 results" not in support.get(url(model), {"q": needle}).content
    shown = support.get(url(model, model.objects.get().pk, "change"))
    assert shown.status_code == 200
    assert b'name="_save"' not in shown.content


@pytest.mark.parametrize("model", MODELS)
def test_nobody_adds_changes_or_deletes_even_by_url(support: Client, admin_client: Client, model: Any) -> None:
    pk = model.objects.get().pk
    for client in (support, admin_client):
        if model is not EntitlementOverride:  # see tests/test_admin_overrides.py
            assert client.get(url(model, "add")).status_code == 403
            assert client.post(url(model, "add"), {}).status_code == 403
        assert client.post(url(model, pk, "change"), {"lookup_key": "stolen"}).status_code == 403
        assert client.post(url(model, pk, "delete"), {"post": "yes"}).status_code == 403
        client.post(url(model), {"action": "delete_selected", "_selected_action": pk, "post": "yes"})
    assert model.objects.filter(pk=pk).exists()


def test_a_feature_shows_its_products_and_a_product_its_features(support: Client) -> None:
    assert b"Pro, with sso" in support.get(url(Feature, Feature.objects.get().pk, "change")).content
    assert b">sso</a>" in support.get(url(Product, Product.objects.get().pk, "change")).content


@pytest.mark.parametrize(
    ("model", "query"),
    [
        (Customer, {"claim__startswith": "a"}),
        (Customer, {"metadata__icontains": "a"}),
        (Customer, {"subscriber__password__startswith": "a"}),
        (ActiveEntitlement, {"customer__subscriber__password__startswith": "a"}),
        (EntitlementChange, {"error__regex": "("}),
        (EntitlementOverride, {"author__password__startswith": "a"}),
        (WebhookEvent, {"payload__contains": "{"}),
        (WebhookEvent, {"id__in": "9" * 30}),
        (Customer, {"next_fetch_at__lte": "0001-01-01T00:00:00+14:00"}),
        (WebhookEvent, {"next_attempt_at__lte": "9999-12-31T23:59:59-14:00"}),
        (EntitlementChange, {"created_at__gte": "2026-02-30T00:00:00+00:00"}),
    ],
)
def test_a_list_is_asked_only_what_its_page_asks(support: Client, model: Any, query: dict[str, str]) -> None:
    assert support.get(url(model), query).status_code == 400


@pytest.mark.parametrize("term", ["\0", "a" * 60_000])
@pytest.mark.parametrize("column", ["activeentitlement feature", "productfeature product"])
def test_any_text_may_be_typed_where_rows_are_offered(support: Client, column: str, term: str) -> None:
    model, name = column.split()
    asked = {"app_label": "entitlements_app", "model_name": model, "field_name": name, "term": term}
    assert support.get("/admin/autocomplete/", asked).json()["results"] == []


@pytest.mark.parametrize("model", MODELS)
def test_no_search_is_too_long(support: Client, model: Any) -> None:
    assert b"0 results" in support.get(url(model), {"q": "a" * 60_000}).content


def test_private_tables_are_not_shown(support: Client) -> None:
    content = support.get("/admin/").content.decode().lower()
    assert "state" not in content.replace("statement", "")


@pytest.mark.parametrize("created", [None, 0, 1_790_000_000, 2**53])
def test_any_date_of_stripe_s_can_be_shown(support: Client, created: int | None) -> None:
    WebhookEvent.objects.update(created=created)
    assert support.get(url(WebhookEvent)).status_code == 200


@pytest.mark.parametrize("model", MODELS)
def test_a_list_costs_the_same_for_many_rows(support: Client, model: Any, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        deliver(summary(f"cus_{number}", "sso", "audit"))
    with django_assert_max_num_queries(12):
        support.get(url(model))


@pytest.mark.django_db(transaction=True)
def test_failed_events_are_tried_again_by_who_may(support: Client) -> None:
    deliver(customer_deleted("cus_acme"))
    WebhookEvent.objects.filter(type="customer.deleted").update(status="failed")
    chosen = {"action": "replay", "_selected_action": list(WebhookEvent.objects.values_list("pk", flat=True))}
    User.objects.get(username="chief").user_permissions.remove(permission("replay_webhookevent"))
    assert b'value="replay"' not in support.get(url(WebhookEvent)).content
    support.post(url(WebhookEvent), chosen)
    assert WebhookEvent.objects.filter(status="failed").exists()

    User.objects.get(username="chief").user_permissions.add(permission("replay_webhookevent"))
    said = support.post(url(WebhookEvent), chosen, follow=True).content.decode()
    assert "1 event is tried again." in said
    assert "1 event has not failed, or names no customer." in said
    assert set(WebhookEvent.objects.values_list("status", flat=True)) == {"processed"}


def permission(codename: str) -> Permission:
    return Permission.objects.get(content_type__app_label="entitlements_app", codename=codename)


def test_changes_that_wait_and_parked_ones_can_be_found(support: Client) -> None:
    waiting, parked = EntitlementChange.objects.filter(effective=True).first(), grant_again()
    EntitlementChange.objects.filter(pk=waiting.pk).update(delivered_at=None)
    EntitlementChange.objects.filter(pk=parked.pk).update(delivered_at=None, parked_at=timezone.now())
    for query, found in (
        ({"delivery": "waiting"}, {waiting.pk}),
        ({"delivery": "parked"}, {parked.pk}),
    ):
        listed = support.get(url(EntitlementChange), query).context["cl"].result_list
        assert {change.pk for change in listed} == found


def grant_again() -> EntitlementChange:
    grant(make_subscriber(), "audit", force=True)
    return EntitlementChange.objects.get(lookup_key="audit")


@pytest.mark.skipif(BY_ORGANISATION, reason="the organisations of these tests have no page in the admin")
def test_a_subscriber_with_overrides_is_deleted_on_its_own_page(acme: Any, admin_client: Client) -> None:
    grant(acme, "sso", force=True)
    answer = admin_client.post(f"/admin/auth/user/{acme.pk}/delete/", {"post": "yes"})
    assert answer.status_code == 302
    assert not EntitlementOverride.objects.exists()
