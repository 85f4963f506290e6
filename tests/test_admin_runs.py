"""Sync runs and the catalogue in the admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from entitlements_app import runs
from entitlements_app.models import Feature, FeatureCount, Product, ProductFeature, SyncRun
from tests.staff import html_of, listed, staff, url

pytestmark = pytest.mark.django_db

Kind = SyncRun.Kind
VIEW = ("view_syncrun", "view_entitlementchange")


def run(kind: str = Kind.ALL, **fields: Any) -> SyncRun:
    now = timezone.now()
    began = {"started_at": now - timedelta(minutes=10), "seen_at": now, "livemode": False}
    return SyncRun.objects.create(kind=kind, **began | fields)


def page_of(row: SyncRun, *may: str) -> str:
    return html_of(staff(*(may or VIEW)).get(url(SyncRun, row.pk, "change")))


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        (Kind.ALL, {}, "at work"),
        (Kind.ALL, {"silent": timedelta(hours=1)}, "broke off"),
        (Kind.CONFIRM, {"silent": timedelta(hours=1)}, "nothing more to do yet"),
        (Kind.ALL, {"finished": True}, "done"),
        (Kind.CATALOG, {"finished": True, "error": "Stripe <said> no"}, "failed"),
        (Kind.ALL, {"finished": True, "error": runs.KILLED}, "broke off"),
    ],
)
def test_a_run_s_state_is_a_word(kind: str, fields: dict[str, Any], word: str) -> None:
    now = timezone.now()
    silent = fields.pop("silent", timedelta(0))
    finished = now if fields.pop("finished", False) else None
    row = run(kind, seen_at=now - silent, finished_at=finished, started_at=now - timedelta(hours=2), **fields)
    assert f">{word}</span>" in page_of(row)
    assert f">{word}</span>" in html_of(staff(*VIEW).get(url(SyncRun)))
    if "error" in fields:
        assert "<said>" not in page_of(row)


def test_a_run_that_the_next_one_found_dead_is_told_so() -> None:
    old = run(seen_at=timezone.now() - timedelta(hours=1))
    assert runs.start(Kind.ALL)
    assert ">broke off</span>" in page_of(old)


def test_progress_is_a_bar_and_words() -> None:
    page = page_of(run(done=1200, total=5000))
    assert 'max="5000" value="1200"' in page
    assert "1,200 of 5,000</" in page
    assert "style=" not in page.partition("<progress")[2].partition(">")[0]
    assert "<progress" not in page_of(run(Kind.BACKFILL, done=3))


def test_how_long_it_took() -> None:
    now = timezone.now()
    assert "7 seconds" in page_of(run(started_at=now - timedelta(seconds=7), finished_at=now))
    assert "10\xa0minutes" in page_of(run(Kind.PURGE, finished_at=now + timedelta(seconds=1)))


def test_drift_leads_to_its_changes() -> None:
    row = run(Kind.CONFIRM, drift_event_lost=3, drift_unknown=1)
    address = "/admin/entitlements_app/entitlementchange/?drift__exact=event_lost&amp;livemode__exact=0"
    assert f'<a href="{address}">event lost: 3</a>' in page_of(row)
    without = page_of(row, "view_syncrun")
    assert "event lost: 3, unknown: 1" in without
    assert address not in without


def test_runs_are_found_by_kind_state_and_error() -> None:
    now = timezone.now()
    done, open_one = run(finished_at=now), run(Kind.CONFIRM)
    failed = run(Kind.CATALOG, finished_at=now, error="no permission")
    other = run(Kind.CATALOG, finished_at=now, livemode=True)
    support = staff(*VIEW)
    for query, found in (
        ({"kind__exact": "catalog"}, {failed, other}),
        ({"state": "failed"}, {failed}),
        ({"state": "done"}, {done, other}),
        ({"state": "open"}, {open_one}),
        ({"livemode__exact": "1"}, {other}),
        ({"q": "permission"}, {failed}),
    ):
        assert listed(support, SyncRun, **query) == {row.pk for row in found}, query


# --- the catalogue


@pytest.fixture
def sso() -> Feature:
    """Archived, with two products, and counted."""
    feature = Feature.objects.create(
        stripe_id="feat_sso", lookup_key="sso", name="<i>Single</i> sign-on", active=False, livemode=False
    )
    for name in ("Team", "Enterprise"):
        product = Product.objects.create(stripe_id=f"prod_{name}", name=name, livemode=False)
        ProductFeature.objects.create(stripe_id=f"prodft_{name}", product=product, feature=feature, livemode=False)
    at = timezone.now() - timedelta(minutes=5)
    FeatureCount.objects.create(feature=feature, customers=12345, of_customers=20000, counted_at=at)
    return feature


def test_a_feature_says_whether_it_is_active_its_products_and_how_many_have_it(sso: Feature) -> None:
    may = ("view_feature", "view_product", "view_activeentitlement")
    for address in (url(Feature), url(Feature, sso.pk, "change")):
        page = html_of(staff(*may).get(address))
        assert ">archived</span>" in page
        assert "<i>Single" not in page
        assert f'/activeentitlement/?feature__id__exact={sso.pk}">12,345 (5\xa0minutes ago)</a>' in page
    products = html_of(staff(*may).get(url(Feature)))
    assert products.index(">Enterprise</a>") < products.index(">Team</a>")
    page = html_of(staff("view_feature").get(url(Feature)))
    assert "12,345 (5\xa0minutes ago)" in page
    assert "Enterprise, Team" in page
    assert "/product/" not in page


def test_a_feature_that_nobody_counted_says_so(sso: Feature) -> None:
    FeatureCount.objects.all().delete()
    assert "not counted yet" in html_of(staff("view_feature").get(url(Feature)))


def test_a_product_lists_its_features(sso: Feature) -> None:
    page = html_of(staff("view_product", "view_feature").get(url(Product)))
    assert page.count(f'/feature/{sso.pk}/change/">sso</a>') == 2
    assert listed(staff("view_product"), Product, q="sso") == set(Product.objects.values_list("pk", flat=True))


def test_features_are_found_by_state_and_mode(sso: Feature) -> None:
    live = Feature.objects.create(stripe_id="feat_sso", lookup_key="sso", livemode=True)
    support = staff("view_feature")
    assert listed(support, Feature, active__exact="0") == {sso.pk}
    assert listed(support, Feature, livemode__exact="1") == {live.pk}
    assert listed(support, Feature, q="sign-on") == {sso.pk}


def test_lists_cost_the_same_for_many_rows(sso: Feature, django_assert_max_num_queries: Any) -> None:
    for number in range(10):
        feature = Feature.objects.create(stripe_id=f"feat_{number}", lookup_key=f"key{number}", livemode=False)
        for product in Product.objects.all():
            ProductFeature.objects.create(
                stripe_id=f"{product.pk}-{number}", product=product, feature=feature, livemode=False
            )
        run(Kind.PURGE, finished_at=timezone.now(), drift_unknown=1)
    assert "and 3 more" in html_of(staff("view_product").get(url(Product)))
    support = staff("view_feature", "view_product", "view_syncrun", "view_productfeature", "view_entitlementchange")
    for address in (url(Feature), url(Product), url(SyncRun), url(ProductFeature), url(Feature, sso.pk, "change")):
        with django_assert_max_num_queries(12):
            assert support.get(address).status_code == 200
