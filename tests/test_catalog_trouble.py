"""The catalogue cannot be read, or not whole: nothing is written, least of all deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from entitlements_app import budget, catalog_sync
from entitlements_app.catalog_sync import Busy
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.linking import link
from entitlements_app.models import Feature, Product, ProductFeature, SyncRun
from entitlements_app.sync import sync_catalog, sync_customer
from tests.rows import customer, held, make_subscriber
from tests.shop import Shop
from tests.test_strange_answers import StrangeStripe
from tests.threads import Crowd, closed, together

pytestmark = pytest.mark.django_db

FEATURES = "/v1/entitlements/features"

Rows = list[dict[str, Any]]


def rows() -> tuple[Rows, Rows, Rows]:
    return tuple(list(model.objects.order_by("pk").values()) for model in (Feature, Product, ProductFeature))  # type: ignore[return-value]


def last_run() -> SyncRun:
    return SyncRun.objects.filter(kind=SyncRun.Kind.CATALOG).latest("pk")


@pytest.fixture
def synced(shop: Shop) -> Shop:
    """The catalogue was read, and then all of it changed."""
    sync_catalog()
    shop.stripe.detach_feature(shop.prices["pro"]["product"], shop.features["sso"])
    shop.stripe.archive_feature(shop.features["audit"])
    shop.plan("team", "seats")
    return shop


@pytest.mark.parametrize("status", [500, 503, 429, 409])
@pytest.mark.parametrize("path", [FEATURES, "/v1/products", "/v1/products/*/features"])
def test_an_error_anywhere_writes_nothing(synced: Shop, path: str, status: int) -> None:
    before = rows()
    synced.stripe.fail_requests(status, path=path)
    with pytest.raises(StripeUnavailable):
        sync_catalog()
    assert rows() == before
    run = last_run()
    assert run.finished_at is not None
    assert (run.failed, run.changed, f"HTTP {status}" in run.error) == (1, 0, True)
    assert run.calls > 0
    if status == 429:
        budget.resume()
        budget._row().update(next_call_at=None)
    assert sync_catalog().changes


def test_an_error_on_the_second_page_writes_nothing(synced: Shop) -> None:
    for number in range(110):
        synced.stripe.create_feature(f"key_{number}")
    before = rows()
    synced.stripe.between_pages(lambda: synced.stripe.fail_requests(500))
    with pytest.raises(StripeUnavailable, match="HTTP 500"):
        sync_catalog()
    assert rows() == before


def test_no_answer_writes_nothing(synced: Shop) -> None:
    before = rows()
    synced.stripe.drop_connections(1)
    with pytest.raises(StripeUnavailable):
        sync_catalog()
    assert rows() == before


def test_an_archiving_between_two_pages_is_not_missed(shop: Shop) -> None:
    """The feature leaves the list that is being read, for the one that is read next."""
    first = shop.stripe.create_feature("oldest")
    many = [shop.stripe.create_feature(f"key_{number}") for number in range(120)]
    sync_catalog()
    shop.stripe.between_pages(
        lambda: [shop.stripe.archive_feature(row) for row in (first, many[0], many[-1], many[20])]
    )
    sync_catalog()
    assert Feature.objects.filter(active=False).count() == 4


def test_a_product_list_that_changes_between_two_pages_is_read_anew(shop: Shop) -> None:
    products = [shop.stripe.create_product(f"product {number}") for number in range(120)]
    # The last row of the first page, which lists the newest first.
    shop.stripe.between_pages(lambda: shop.stripe.call("DELETE", f"/v1/products/{products[20]['id']}"))
    sync_catalog()
    assert Product.objects.count() == 3 + 119
    assert not Product.objects.filter(name="product 20").exists()


def test_attachments_that_change_between_two_pages_are_read_anew(shop: Shop) -> None:
    features = [shop.stripe.create_feature(f"key_{number}") for number in range(120)]
    product = shop.stripe.create_product("All", features=features)
    for row in features[:60]:  # so that only this product's list has two pages
        shop.stripe.archive_feature(row)
    sync_catalog()
    shop.stripe.between_pages(lambda: shop.stripe.detach_feature(product, features[20]))
    sync_catalog()
    attached = ProductFeature.objects.filter(product__name="All")
    assert attached.count() == 119
    assert not attached.filter(feature__lookup_key="key_20").exists()


@pytest.mark.django_db(transaction=True)
def test_a_product_deleted_while_we_read_is_left_out(shop: Shop) -> None:
    product = shop.stripe.create_product("Sample")
    with shop.stripe.hold("GET", "/v1/products") as hold:
        crowd = Crowd().start(sync_catalog)
        hold.wait_for_request()
        shop.stripe.call("DELETE", f"/v1/products/{product['id']}")
        hold.release()
        crowd.join()
    assert Product.objects.count() == 3


class StrangeCatalogue:
    """Answers like Stripe's for one feature and one product, but for what a test changes."""

    feature: dict[str, Any] = {
        "id": "feat_1",
        "object": "entitlements.feature",
        "active": True,
        "livemode": False,
        "lookup_key": "sso",
        "metadata": {},
        "name": "SSO",
    }
    product: dict[str, Any] = {"id": "prod_1", "object": "product", "active": True, "livemode": False, "name": "Pro"}

    def __init__(self) -> None:
        self.attachment = {
            "id": "prodft_1",
            "object": "product_feature",
            "livemode": False,
            "entitlement_feature": self.feature,
        }

    def __call__(self, number: int, path: str) -> tuple[int, bytes]:
        if path.startswith("/v1/products/"):
            return self.page([self.attachment])
        if "archived=true" in path:
            return self.page([])
        return self.page([self.feature] if path.startswith(FEATURES) else [self.product])

    @staticmethod
    def page(data: Any, **changed: Any) -> tuple[int, bytes]:
        return 200, json.dumps({"object": "list", "data": data, "has_more": False, "url": "/"} | changed).encode()


@pytest.fixture
def strange(settings: Any) -> Any:
    stripe = StrangeStripe()
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_strange"
    settings.ENTITLEMENTS_STRIPE_API_BASE = f"http://127.0.0.1:{stripe.server.server_port}"
    settings.ENTITLEMENTS_STRIPE_RATE = 10_000
    stripe.answer = StrangeCatalogue()
    sync_catalog()
    yield stripe
    stripe.server.shutdown()
    stripe.server.server_close()


FEATURE, PRODUCT = StrangeCatalogue.feature, StrangeCatalogue.product
STRANGE: dict[str, dict[str, Any]] = {
    "a feature without a name": {"feature": {key: value for key, value in FEATURE.items() if key != "name"}},
    "a feature whose metadata are none": {"feature": FEATURE | {"metadata": None}},
    "a feature that may be active": {"feature": FEATURE | {"active": "yes"}},
    "a feature without a key": {"feature": FEATURE | {"lookup_key": ""}},
    "a feature of the other mode": {"feature": FEATURE | {"livemode": True}},
    "a feature that is none": {"feature": FEATURE | {"object": "product"}},
    "a feature that is a text": {"feature": "feat_1"},
    "a product without an id": {"product": PRODUCT | {"id": None}},
    "a product that is none": {"product": PRODUCT | {"object": "feature"}},
    "a product of the other mode": {"product": PRODUCT | {"livemode": True}},
    "an attachment without its feature": {"attachment": {"id": "prodft_1", "entitlement_feature": "feat_1"}},
    "an attachment of the other mode": {
        "attachment": {"id": "prodft_1", "entitlement_feature": FEATURE | {"livemode": True}}
    },
    "an attachment without an id": {"attachment": {"entitlement_feature": FEATURE}},
}


@pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE)
def test_a_row_that_cannot_be_read_writes_nothing(strange: StrangeStripe, change: dict[str, Any]) -> None:
    before = rows()
    assert [len(table) for table in before] == [1, 1, 1]
    for name, value in change.items():
        setattr(strange.answer, name, value)
    with pytest.raises(StripeUnavailable, match="could not be read"):
        sync_catalog()
    assert rows() == before
    assert "could not be read" in last_run().error


def test_a_list_that_does_not_end_writes_nothing(strange: StrangeStripe) -> None:
    before = rows()
    strange.answer = lambda number, path: StrangeCatalogue.page([], has_more=True)
    with pytest.raises(StripeUnavailable, match="does not end"):
        sync_catalog()
    assert rows() == before


def test_a_list_that_is_too_long_is_named(strange: StrangeStripe) -> None:
    before = rows()
    strange.answer = lambda number, path: StrangeCatalogue.page([FEATURE | {"id": f"feat_{number}"}], has_more=True)
    with pytest.raises(StripeUnavailable, match="list /v1/entitlements/features has more than 100 pages of 100"):
        sync_catalog()
    assert rows() == before


def test_empty_lists_keep_features_and_take_attachments_only_from_products_that_are_there(
    strange: StrangeStripe,
) -> None:
    """As with the key of another account: what nobody can confirm stays, but is no longer sold."""

    def empty(number: int, path: str) -> tuple[int, bytes]:
        if path.startswith(("/v1/products/", f"{FEATURES}/")):
            return 404, json.dumps({"error": {"code": "resource_missing", "message": ""}}).encode()
        return StrangeCatalogue.page([])

    strange.answer = empty
    sync_catalog()
    assert Feature.objects.get().active
    assert (Product.objects.count(), ProductFeature.objects.count()) == (0, 0)


def test_a_refused_key_stops_all_calls(synced: Shop) -> None:
    before = rows()
    synced.stripe.fail_requests(401)
    with pytest.raises(StripeRefused, match="refused the API key"):
        sync_catalog()
    assert rows() == before
    assert budget.stopped_reason()
    SyncRun.objects.all().delete()
    assert catalog_sync.sync_if_due(deadline=time.monotonic() + 30) is None
    assert not SyncRun.objects.exists(), "no row a minute of a sync that cannot be"


def test_a_key_that_may_not_read_products_still_fetches_customers(shop: Shop, settings: Any, caplog: Any) -> None:
    link(make_subscriber(), stripe_id := shop.customer())
    shop.subscribe(stripe_id, "pro")
    shop.stripe.add_restricted_key("rk_test_reader", "entitlement_read", "customer_read")
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_reader"
    report = catalog_sync.sync_if_due(deadline=time.monotonic() + 30)
    assert report is not None
    assert "must be allowed to read Entitlements and Products" in report.problem
    assert not budget.stopped_reason()
    sync_customer(customer(stripe_id))
    assert held(stripe_id) == {"sso", "export"}
    assert catalog_sync.sync_if_due(deadline=time.monotonic() + 30) is None, "not before an hour has passed"


def test_a_failed_periodic_run_is_tried_again_after_an_hour(shop: Shop, caplog: Any) -> None:
    shop.stripe.fail_requests(500)
    report = catalog_sync.sync_if_due(deadline=time.monotonic() + 30)
    assert report is not None
    assert "HTTP 500" in report.problem
    assert report.as_line() == "Catalogue: not read."
    assert "HTTP 500" in caplog.text
    assert catalog_sync.sync_if_due(deadline=time.monotonic() + 30) is None
    earlier = timezone.now() - timedelta(minutes=61)
    SyncRun.objects.update(started_at=earlier, finished_at=earlier)
    report = catalog_sync.sync_if_due(deadline=time.monotonic() + 30)
    assert report is not None
    assert (report.problem, Product.objects.count()) == ("", 3)


def test_without_any_time_left_it_is_not_begun(shop: Shop) -> None:
    assert catalog_sync.sync_if_due(deadline=time.monotonic() - 1) is None
    assert not SyncRun.objects.exists()


def test_a_question_asked_in_time_may_be_answered_later(shop: Shop) -> None:
    shop.stripe.slow(1.6, path="/v1/products/*/features")
    report = catalog_sync.sync_if_due(deadline=time.monotonic() + 3)
    assert report is not None
    assert report.problem == ""
    assert report.asked in (1, 2), "fewer on a slow machine"
    assert report.waiting == 3 - report.asked


def test_it_refuses_to_run_inside_a_transaction(shop: Shop) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="on_commit"):
        sync_catalog()
    with transaction.atomic(), pytest.raises(RuntimeError, match="on_commit"):
        catalog_sync.sync_if_due(deadline=time.monotonic() + 30)
    assert not SyncRun.objects.exists()


def test_without_a_key_nothing_is_due() -> None:
    assert catalog_sync.sync_if_due(deadline=time.monotonic() + 30) is None
    with pytest.raises(StripeRefused, match="ENTITLEMENTS_STRIPE_API_KEY"):
        sync_catalog()


@pytest.mark.django_db(transaction=True)
def test_two_at_once_are_one(shop: Shop) -> None:
    with shop.stripe.hold("GET", FEATURES) as hold:
        crowd = Crowd().start(sync_catalog)
        hold.wait_for_request()
        with pytest.raises(Busy, match="another process"):
            sync_catalog()
        assert catalog_sync.sync_if_due(deadline=time.monotonic() + 30) is None
        hold.release()
        crowd.join()
    assert SyncRun.objects.filter(kind=SyncRun.Kind.CATALOG).count() == 1
    assert Product.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_process_that_was_killed_is_followed_by_another(shop: Shop) -> None:
    long_ago = timezone.now() - timedelta(minutes=6)
    SyncRun.objects.create(kind=SyncRun.Kind.CATALOG, livemode=False, started_at=long_ago, seen_at=long_ago)
    assert sync_catalog().changes


@pytest.mark.django_db(transaction=True)
def test_catalogue_and_customers_are_written_at_once(shop: Shop) -> None:
    """Both write the same features: neither waits for the other for ever, and nothing is lost."""
    customers = [shop.customer() for _ in range(6)]
    for stripe_id in customers:
        link(make_subscriber(), stripe_id)
        shop.subscribe(stripe_id, "enterprise")
    work: list[Callable[[], Any]] = [
        lambda stripe_id=stripe_id: sync_customer(customer(stripe_id)) for stripe_id in customers
    ]
    together(sync_catalog, *work)
    assert all(held(stripe_id) == {"sso", "export", "audit"} for stripe_id in customers)
    assert ProductFeature.objects.count() == 6
    assert Feature.objects.count() == 4


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_new_grants_do_not_wait_for_the_catalogue(shop: Shop) -> None:
    """While it is written, its features are locked, but not against those who refer to them."""
    link(make_subscriber(), stripe_id := shop.customer())
    sync_catalog()
    shop.subscribe(stripe_id, "pro")
    shop.stripe.detach_feature(shop.prices["enterprise"]["product"], shop.features["audit"])
    with closed("productfeature") as wait_for:
        crowd = Crowd().start(sync_catalog)
        wait_for(1)
        sync_customer(customer(stripe_id))
        assert held(stripe_id) == {"sso", "export"}
    crowd.join()


@pytest.mark.django_db(transaction=True)
def test_a_failure_that_is_not_stripe_s_ends_the_run_too(shop: Shop, caplog: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE entitlements_app_productfeature RENAME TO out_of_the_way")
    try:
        with pytest.raises(DatabaseError):
            sync_catalog()
        assert last_run().error.endswith("Error; see the log.")
        SyncRun.objects.all().delete()
        report = catalog_sync.sync_if_due(deadline=time.monotonic() + 30)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE out_of_the_way RENAME TO entitlements_app_productfeature")
    assert report is not None
    assert report.problem == "Reading the catalogue failed; see the log."
    assert "Reading the catalogue failed." in caplog.text
    assert last_run().finished_at is not None
