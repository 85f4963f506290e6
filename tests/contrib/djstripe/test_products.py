"""Products are called what dj-stripe was told last, as soon as it was, until the catalogue is read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from djstripe import models as theirs

from entitlements_app import catalog, sync
from entitlements_app.models import Product
from entitlements_app.testing import StripeSimulator
from tests.delivery import SECRET
from tests.owed import Debtor, report
from tests.shop import Shop
from tests.threads import Crowd

from .deliveries import KEY, account, djstripe_asks, make_endpoint, url_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stripe(settings: Any) -> Iterator[StripeSimulator]:
    """With a key that dj-stripe takes for one."""
    with StripeSimulator(api_key=KEY, webhook_secret=SECRET) as simulator:
        settings.ENTITLEMENTS_STRIPE_API_KEY = simulator.api_key
        settings.ENTITLEMENTS_STRIPE_API_BASE = simulator.url
        settings.ENTITLEMENTS_STRIPE_RATE = 1000
        yield simulator


@pytest.fixture
def endpoint(stripe: StripeSimulator, settings: Any, monkeypatch: pytest.MonkeyPatch) -> theirs.WebhookEndpoint:
    """dj-stripe's, which asks the same simulated Stripe and knows whose account it is."""
    settings.STRIPE_TEST_SECRET_KEY = stripe.api_key
    djstripe_asks(monkeypatch, stripe.url)
    return make_endpoint(account(stripe.account_id, stripe.api_key), secret=SECRET)


@pytest.fixture
def pro(shop: Shop) -> Product:
    """The plan, as our catalogue has it."""
    sync.sync_catalog()
    return Product.objects.get(name="pro")


def named(row: Product, **fields: Any) -> theirs.Product:
    """dj-stripe's row of the same product, saved once more with these fields."""
    defaults = {"livemode": False, "name": row.name, "active": True}
    product, _ = theirs.Product.objects.get_or_create(id=row.stripe_id, defaults=defaults)
    for name, value in fields.items():
        setattr(product, name, value)
    product.save()
    return product


def name_of(row: Product) -> str:
    return Product.objects.get(pk=row.pk).name


def test_a_product_that_is_renamed_in_stripe_is_renamed_here_by_djstripes_webhook(
    shop: Shop, pro: Product, endpoint: theirs.WebhookEndpoint
) -> None:
    shop.stripe.call("POST", f"/v1/products/{pro.stripe_id}", {"name": "Pro, now better", "active": "false"})
    event = next(event for event in shop.stripe.events() if event["type"] == "product.updated")
    delivery = shop.stripe.signed_delivery(event["id"])
    address = url_of(endpoint)
    answer = Client().post(address, data=delivery.body, content_type="application/json", headers=delivery.headers)
    assert answer.status_code == 200
    pro.refresh_from_db()
    assert (pro.name, pro.active) == ("Pro, now better", False)
    assert theirs.Product.objects.get().name == "Pro, now better"


def test_the_next_reading_of_the_catalogue_says_what_stripe_says(shop: Shop, pro: Product) -> None:
    named(pro, name="Edited in dj-stripe's admin")
    assert name_of(pro) == "Edited in dj-stripe's admin"
    sync.sync_catalog()
    assert name_of(pro) == "pro"
    assert theirs.Product.objects.get().name == "Edited in dj-stripe's admin"


def test_a_reading_that_began_before_does_not_undo_it(shop: Shop, pro: Product) -> None:
    with shop.stripe.hold("GET", "/v1/products") as slow:
        crowd = Crowd().start(sync.sync_catalog)
        slow.wait_for_request()
        named(pro, name="Newer")
        slow.release()
        crowd.join()
    assert name_of(pro) == "Newer"


def test_attaching_a_feature_meanwhile_does_not_undo_it(shop: Shop, pro: Product) -> None:
    with shop.stripe.hold("POST", f"/v1/products/{pro.stripe_id}/features") as slow:
        crowd = Crowd().start(lambda: catalog.attach_feature(pro.stripe_id, "reports"))
        slow.wait_for_request()
        named(pro, name="Newer")
        slow.release()
        crowd.join()
    assert name_of(pro) == "Newer"
    assert "reports" in pro.product_features.values_list("feature__lookup_key", flat=True)


def test_what_is_rolled_back_is_not_taken(pro: Product) -> None:
    with transaction.atomic():
        named(pro, name="Never")
        transaction.set_rollback(True)
    assert name_of(pro) == "pro"


def test_our_failure_does_not_end_what_djstripe_does(
    pro: Product, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "a key of no mode"
    with transaction.atomic():
        named(pro, name="Newer")
    assert theirs.Product.objects.get().name == "Newer"
    assert "take_name_as_it_is_by_then" in caplog.text


def test_nothing_is_made_for_a_product_that_is_not_known_here(pro: Product) -> None:
    theirs.Product.objects.create(id="prod_new", livemode=False, name="New", active=True)
    assert not Product.objects.filter(stripe_id="prod_new").exists()


def test_another_mode_and_another_account_are_other_products(pro: Product, endpoint: theirs.WebhookEndpoint) -> None:
    product = named(pro, name="Live", livemode=True)
    assert name_of(pro) == "pro"
    theirs.Account.objects.create(id="acct_theirs", livemode=False)
    product = named(
        pro, name="Theirs", livemode=False, djstripe_owner_account=theirs.Account.objects.get(id="acct_theirs")
    )
    assert name_of(pro) == "pro"
    product.djstripe_owner_account = endpoint.djstripe_owner_account
    product.save()
    assert name_of(pro) == "Theirs"


def test_a_name_that_does_not_fit_is_cut_and_one_without_a_state_is_left(pro: Product) -> None:
    named(pro, name="N" * 5000)
    assert name_of(pro) == "N" * 255
    named(pro, name="Unknown state", active=None)
    assert name_of(pro) == "N" * 255


def test_saving_it_once_more_writes_nothing(pro: Product) -> None:
    product = named(pro, name="Newer")
    version = Product.objects.get(pk=pro.pk).version
    with CaptureQueriesContext(connection) as queries:
        product.save()
    assert Product.objects.get(pk=pro.pk).version == version
    assert len([each for each in queries if "entitlements_app_" in each["sql"]]) == 1


def test_the_report_of_gaps_names_the_product_so(shop: Shop) -> None:
    debtor = Debtor(shop)
    debtor.payer()
    debtor.attach()
    debtor.settle()
    row = Product.objects.get(stripe_id=debtor.product)
    named(row, name="Pro, now better")
    assert f"Pro, now better ({debtor.product}): 1 customer lacks “audit”" in report(code=2)
