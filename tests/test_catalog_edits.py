from __future__ import annotations

import pytest

from entitlements_app import catalog
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.models import Feature, ProductFeature
from entitlements_app.testing import StripeSimulator

pytestmark = pytest.mark.django_db(transaction=True)

FEATURES = "/v1/entitlements/features"


def posts(stripe: StripeSimulator) -> list[str]:
    return [record.path for record in stripe.requests() if record.method != "GET"]


def test_a_feature_lives_from_creation_to_archive(stripe: StripeSimulator) -> None:
    feature = catalog.create_feature("Premium support", "premium_support", {"hours": "24"})
    there = stripe.call("GET", f"{FEATURES}/{feature.stripe_id}")
    assert (there["name"], there["lookup_key"], there["metadata"]) == ("Premium support", "premium_support", {"hours": "24"})
    product = stripe.create_product("Pro")
    attached = catalog.attach_feature(product["id"], "premium_support")
    assert attached.product.name == "Pro"
    assert [row.feature for row in catalog.list_product_features(product["id"])] == [feature]
    feature = catalog.update_feature(feature, name="Support", metadata={"hours": "", "days": "7"})
    assert (feature.name, feature.metadata) == ("Support", {"days": "7"})
    assert stripe.call("GET", f"{FEATURES}/{feature.stripe_id}")["metadata"] == {"days": "7"}
    assert not catalog.archive_feature("premium_support").active
    assert ProductFeature.objects.get().feature == feature
    catalog.detach_feature(product["id"], "premium_support")
    assert not ProductFeature.objects.exists()
    again = catalog.create_feature("Premium support", "premium_support")
    assert again != feature
    assert Feature.objects.filter(lookup_key="premium_support").count() == 2
