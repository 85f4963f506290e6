"""The catalogue: our features, products and attachments are made equal to Stripe's."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

from entitlements_app import catalog_sync
from entitlements_app.access import get_entitlements
from entitlements_app.linking import link
from entitlements_app.models import ActiveEntitlement, Feature, Product, ProductFeature, SyncRun
from entitlements_app.overrides import grant
from entitlements_app.sync import sync_catalog, sync_customer
from tests.delivery import SUMMARY, deliver, summary
from tests.rows import customer, held, make_subscriber
from tests.shop import PLANS, Shop

pytestmark = pytest.mark.django_db

FEATURES = "/v1/entitlements/features"


def sold() -> dict[str, set[str]]:
    """Our rows: the lookup keys that each product has."""
    rows: dict[str, set[str]] = {name: set() for name in Product.objects.values_list("name", flat=True)}
    for row in ProductFeature.objects.select_related("product", "feature"):
        rows[row.product.name].add(row.feature.lookup_key)
    return rows


def feature(lookup_key: str) -> Feature:
    return Feature.objects.get(lookup_key=lookup_key)


def writes(queries: Any) -> list[str]:
    statements = [query["sql"] for query in queries]
    ours = [sql for sql in statements if "_feature" in sql or "_product" in sql]
    return [sql for sql in ours if sql.startswith(("INSERT", "UPDATE", "DELETE")) and "accountstate" not in sql]


def test_the_first_sync_brings_it_all(shop: Shop) -> None:
    shop.stripe.call(
        "POST", f"{FEATURES}/{shop.features['sso']['id']}", {"name": "Single sign-on", "metadata": {"a": "1"}}
    )
    report = sync_catalog()
    assert sold() == {name: set(keys) for name, keys in PLANS.items()}
    row = feature("sso")
    assert (row.stripe_id, row.name, row.active, row.metadata) == (
        shop.features["sso"]["id"],
        "Single sign-on",
        True,
        {"a": "1"},
    )
    assert (report.features, report.products, report.asked, report.waiting) == (4, 3, 3, 0)
    assert len(report.changes) == 4 + 3 + 6
    assert feature("sso").attached_at is None, "nobody knows since when"


def test_the_second_sync_changes_nothing(shop: Shop) -> None:
    sync_catalog()
    with CaptureQueriesContext(connection) as queries:
        report = sync_catalog()
    assert report.changes == ()
    assert [sql.split(" SET ")[1].split(" = ")[0] for sql in writes(queries)] == ['"features_read_at"']


def test_queries_do_not_grow_with_the_catalogue(shop: Shop) -> None:
    def queries_beside_calls() -> int:
        with CaptureQueriesContext(connection) as queries:
            sync_catalog()
        return len([query for query in queries if "accountstate" not in query["sql"]])

    queries_beside_calls()
    few = queries_beside_calls()
    for number in range(30):
        shop.plan(f"plan {number}", f"key_{number}", f"other_{number}")
    assert queries_beside_calls() < few + 10
    assert queries_beside_calls() == few


def test_a_run_is_noted(shop: Shop) -> None:
    shop.calls()
    report = sync_catalog()
    run = SyncRun.objects.get(kind=SyncRun.Kind.CATALOG)
    assert run.finished_at is not None
    assert (run.error, run.failed, run.changed, run.done) == ("", 0, 13, 4 + 3 + 6)
    assert run.calls == report.calls == len(shop.calls()) == 2 + 1 + 3


def test_what_is_new_changed_and_gone_is_told(shop: Shop) -> None:
    sync_catalog()
    stripe, features = shop.stripe, shop.features
    stripe.call("POST", f"{FEATURES}/{features['sso']['id']}", {"name": "Single sign-on", "metadata": {"a": "1"}})
    stripe.archive_feature(features["audit"])
    price = shop.plan("team", "seats")
    stripe.call("POST", f"/v1/products/{price['product']}", {"name": "Team"})
    stripe.detach_feature(shop.prices["pro"]["product"], features["export"])
    assert set(sync_catalog().changes) == {
        f"archived feature audit ({features['audit']['id']})",
        f"changed feature sso ({features['sso']['id']}): name, metadata",
        f"new feature seats ({features['seats']['id']})",
        f"new product Team ({price['product']})",
        f"attached feature seats ({features['seats']['id']}), product Team ({price['product']})",
        f"detached feature export ({features['export']['id']}), product pro ({shop.prices['pro']['product']})",
    }


@pytest.mark.parametrize("archived_in_list", [False, True])
def test_archived_features_are_kept_and_found(shop: Shop, archived_in_list: bool) -> None:
    shop.stripe.archived_in_list = archived_in_list
    shop.stripe.archive_feature(shop.features["audit"])
    sync_catalog()
    assert (feature("audit").active, feature("sso").active) == (False, True)
    shop.stripe.archive_feature(shop.features["sso"])
    sync_catalog()
    assert feature("sso").active is False
    assert sold()["pro"] == {"sso", "export"}, "it is still attached"


@pytest.mark.parametrize("archived_in_list", [False, True])
def test_a_key_that_is_used_again_after_archiving(shop: Shop, acme: Any, archived_in_list: bool) -> None:
    stripe = shop.stripe
    stripe.archived_in_list = archived_in_list
    old = stripe.create_feature("seats", metadata={"max": "5"})
    sync_catalog()
    stripe.archive_feature(old)
    new = stripe.create_feature("seats", metadata={"max": "10"})
    sync_catalog()
    rows = Feature.objects.filter(lookup_key="seats").order_by("pk")
    assert list(rows.values_list("stripe_id", "active")) == [(old["id"], False), (new["id"], True)]
    grant(acme, "seats")
    assert get_entitlements(acme).metadata("seats") == {"max": "10"}


def test_two_unarchived_rows_may_have_one_key_for_a_while(shop: Shop) -> None:
    """A fetch brought the new feature before the catalogue told that the old one is archived."""
    old = shop.stripe.create_feature("seats")
    sync_catalog()
    shop.stripe.archive_feature(old)
    new = shop.stripe.create_feature("seats")
    price = shop.stripe.create_price(shop.stripe.create_product("Team", features=[new]))
    link(make_subscriber(), stripe_id := shop.customer())
    shop.stripe.subscribe(stripe_id, price)
    sync_customer(customer(stripe_id))
    assert Feature.objects.filter(lookup_key="seats", active=True).count() == 2
    sync_catalog()
    assert [row.stripe_id for row in Feature.objects.filter(lookup_key="seats", active=True)] == [new["id"]]
    assert held(stripe_id) == {"seats"}


def test_placeholders_are_filled(shop: Shop) -> None:
    link(make_subscriber(), stripe_id := shop.customer())
    shop.subscribe(stripe_id, "pro")
    with override_settings(ENTITLEMENTS_STRIPE_API_KEY=None):  # so that no fetch follows
        shop.deliver(only=SUMMARY)
    assert feature("sso").name == ""
    assert "changed feature sso" in " ".join(sync_catalog().changes)
    assert feature("sso").name == "sso"
    assert ActiveEntitlement.objects.filter(feature__name="sso").count() == 1


def test_a_feature_that_no_list_has_is_asked_for_by_itself_and_kept(shop: Shop, acme: Any) -> None:
    with override_settings(ENTITLEMENTS_STRIPE_API_KEY=None):
        deliver(summary("cus_acme", "lost"))
    shop.calls()
    sync_catalog()
    row = feature("lost")
    assert f"{FEATURES}/{row.stripe_id}" in shop.calls()
    assert (row.active, row.name) == (True, "")
    assert held() == {"lost"}


def test_a_known_key_is_not_reported_before_anybody_has_it(shop: Shop, acme: Any, caplog: Any) -> None:
    shop.plan("team", "seats")
    e = get_entitlements(acme)
    with override_settings(ENTITLEMENTS_STRIPE_API_KEY=None):
        deliver(summary("cus_acme", "sso"))
    sync_catalog()
    assert (e.seats, e.typo) == (False, False)
    [said] = [record.args[0] for record in caplog.records if record.name == "entitlements_app.known_features"]
    assert "'typo'" in said
    assert "entitlements_sync --catalog" in said


def test_attaching_and_detaching_are_dated(shop: Shop) -> None:
    stripe, pro = shop.stripe, shop.prices["pro"]["product"]
    sync_catalog()
    began = timezone.now()
    stripe.attach_feature(pro, shop.features["audit"])
    stripe.detach_feature(pro, shop.features["export"])
    shop.plan("team", "seats")
    sync_catalog()
    assert sold()["pro"] == {"sso", "audit"}
    for key, attached, detached in (
        ("audit", True, False),
        ("seats", True, False),
        ("export", False, True),
        ("sso", False, False),
    ):
        row = feature(key)
        assert (row.attached_at is not None and row.attached_at >= began) is attached, key
        assert (row.detached_at is not None and row.detached_at >= began) is detached, key


def test_detaching_and_attaching_again_is_no_change(shop: Shop) -> None:
    pro = shop.prices["pro"]["product"]
    sync_catalog()
    shop.stripe.detach_feature(pro, shop.features["sso"])
    shop.stripe.attach_feature(pro, shop.features["sso"])
    assert sync_catalog().changes == ()
    assert (feature("sso").attached_at, feature("sso").detached_at) == (None, None)
    [theirs] = [
        row["id"]
        for row in shop.stripe.call("GET", f"/v1/products/{pro}/features")["data"]
        if row["entitlement_feature"]["lookup_key"] == "sso"
    ]
    assert ProductFeature.objects.filter(stripe_id=theirs).exists()


def test_detaching_takes_nothing_from_those_who_have_it(shop: Shop) -> None:
    link(make_subscriber(), stripe_id := shop.customer())
    shop.subscribe(stripe_id, "pro")
    sync_customer(customer(stripe_id))
    sync_catalog()
    shop.stripe.detach_feature(shop.prices["pro"]["product"], shop.features["sso"])
    sync_catalog()
    assert held(stripe_id) == {"sso", "export"}


def test_a_product_that_is_archived_keeps_its_features(shop: Shop) -> None:
    sync_catalog()
    product = shop.prices["pro"]["product"]
    shop.stripe.call("POST", f"/v1/products/{product}", {"active": False})
    assert sync_catalog().changes == (f"archived product pro ({product})",)
    assert (Product.objects.get(name="pro").active, sold()["pro"]) == (False, {"sso", "export"})
    shop.stripe.detach_feature(product, shop.features["sso"])
    sync_catalog()
    assert sold()["pro"] == {"export"}
    shop.stripe.call("POST", f"/v1/products/{product}", {"active": True})
    assert sync_catalog().changes == (f"changed product pro ({product})",)
    assert Product.objects.get(name="pro").active


def test_a_product_archived_before_we_knew_it_is_left_out(shop: Shop) -> None:
    shop.stripe.call("POST", f"/v1/products/{shop.prices['pro']['product']}", {"active": False})
    sync_catalog()
    assert "pro" not in sold()


def test_a_product_that_is_deleted_goes_with_what_was_attached(shop: Shop) -> None:
    product = shop.stripe.create_product("Sample", features=[shop.features["sso"]])
    sync_catalog()
    shop.stripe.call("DELETE", f"/v1/products/{product['id']}")
    changes = sync_catalog().changes
    assert changes == (
        f"deleted product Sample ({product['id']})",
        f"detached feature sso ({shop.features['sso']['id']}), product Sample ({product['id']})",
    )
    assert "Sample" not in sold()
    assert feature("sso").detached_at is not None
    assert sync_catalog().changes == ()


def test_more_than_a_page_of_everything(shop: Shop) -> None:
    features = [shop.stripe.create_feature(f"key_{number}") for number in range(230)]
    for number in range(110):
        shop.stripe.create_product(f"product {number}")
    shop.stripe.create_product("All", features=features[:150])
    shop.stripe.archive_feature(features[0])
    report = sync_catalog()
    assert (report.features, report.products) == (234, 114)
    assert len(sold()["All"]) == 150
    assert Feature.objects.filter(active=False).count() == 1


def test_the_other_mode_s_rows_are_left_alone(shop: Shop) -> None:
    live = {"stripe_id": shop.features["sso"]["id"], "livemode": True}
    theirs = Feature.objects.create(**live, lookup_key="sso", name="Live")
    product = Product.objects.create(stripe_id=shop.prices["pro"]["product"], livemode=True, name="Live")
    ProductFeature.objects.create(stripe_id="prodft_live", livemode=True, product=product, feature=theirs)
    sync_catalog()
    sync_catalog()
    theirs.refresh_from_db()
    assert (theirs.name, theirs.attached_at, theirs.detached_at) == ("Live", None, None)
    assert ProductFeature.objects.filter(livemode=True).get().product.name == "Live"
    assert Product.objects.filter(livemode=False).count() == 3


def test_periodic_passes_read_it_once_a_day(shop: Shop) -> None:
    report = catalog_sync.sync_if_due(deadline=deadline())
    assert report is not None
    assert sold()["pro"] == {"sso", "export"}
    assert catalog_sync.sync_if_due(deadline=deadline()) is None
    a_day_ago = timezone.now() - timedelta(hours=25)
    SyncRun.objects.update(started_at=a_day_ago, finished_at=a_day_ago)
    assert catalog_sync.sync_if_due(deadline=deadline()) is not None


def deadline(seconds: float = 30) -> float:
    return time.monotonic() + seconds


def test_many_products_are_asked_about_in_portions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_sync, "PRODUCTS_AT_ONCE", 2)
    first = catalog_sync.sync_if_due(deadline=deadline())
    assert first is not None
    assert (first.asked, first.waiting) == (2, 1)
    assert "1 product(s) wait" in first.as_line()
    assert Product.objects.count() == 3, "all are known"
    assert catalog_sync.sync_if_due(deadline=deadline()) is None, "an hour later it goes on"
    earlier = timezone.now() - timedelta(minutes=61)
    SyncRun.objects.update(started_at=earlier, finished_at=earlier)
    second = catalog_sync.sync_if_due(deadline=deadline())
    assert second is not None
    assert second.waiting == 0
    assert sold() == {name: set(keys) for name, keys in PLANS.items()}
    assert not Feature.objects.exclude(attached_at=None).exists(), "they had them before we looked"


def test_a_product_without_features_waits_longer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        shop.stripe.create_product(f"empty {number}")
    sync_catalog()
    monkeypatch.setattr(catalog_sync, "PRODUCTS_AT_ONCE", 3)

    def asked_after(days: int) -> set[str]:
        earlier = timezone.now() - timedelta(days=days)
        SyncRun.objects.update(started_at=earlier, finished_at=earlier)
        began = timezone.now()
        catalog_sync.sync_if_due(deadline=deadline())
        return set(Product.objects.filter(features_read_at__gte=began).values_list("name", flat=True))

    assert asked_after(2) == set(PLANS)
    Product.objects.filter(name__startswith="empty").update(features_read_at=timezone.now() - timedelta(days=31))
    assert asked_after(2) == {"empty 0", "empty 1", "empty 2"}


def test_without_time_for_products_the_lists_are_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_sync, "PRODUCT_SECONDS", -1.0)
    report = catalog_sync.sync_if_due(deadline=deadline())
    assert report is not None
    assert (report.asked, report.waiting, report.features) == (0, 3, 4)
