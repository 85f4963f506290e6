"""Edits from here and in Stripe's Dashboard, in any order, with answers that get lost: a search for one that is wrong.

Whatever happened before, an edit succeeds if Stripe allows it and is refused if it does not; afterwards it is true in
Stripe and in our copy. And a reading of the catalogue makes the copy equal to Stripe's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from entitlements_app import budget, catalog, stripe_changes
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.models import Feature, Product, ProductFeature
from entitlements_app.sync import sync_catalog
from entitlements_app.testing import StripeSimulator

FEATURES = "/v1/entitlements/features"
SOAK = os.environ.get("TEST_EXAMPLES")

keys = st.sampled_from(["sso", "audit", "export"])
names = st.sampled_from(["One", "Two"])
products = st.integers(0, 1)


def quiet(stripe: StripeSimulator) -> None:
    """Nothing goes wrong."""


Trouble = Callable[[StripeSimulator], None]
troubles = st.sampled_from(
    [
        quiet,
        quiet,
        lambda stripe: stripe.lose_answers(),
        lambda stripe: stripe.lose_answers(status=500),
        lambda stripe: stripe.fail_requests(500),
        lambda stripe: stripe.drop_connections(),
    ]
)


class CatalogueMachine(RuleBasedStateMachine):
    stripe: StripeSimulator

    @initialize()
    def begin(self) -> None:
        for model in (ProductFeature, Product, Feature):
            model.objects.all().delete()
        self.products = [self.stripe.create_product("P")["id"] for _ in range(2)]
        self.mine = {row["id"] for row in self.all_features()}  # of earlier examples: out of the way
        for feature in self.mine:
            if self.stripe.call("GET", f"{FEATURES}/{feature}")["active"]:
                self.stripe.archive_feature(feature)

    def all_features(self) -> list[dict[str, Any]]:
        rows = []
        for archived in ("false", "true"):
            rows += self.stripe._all(FEATURES, archived=archived)
        return rows

    def there(self, key: str) -> dict[str, Any] | None:
        """The feature in Stripe that has the key."""
        rows = self.stripe.call("GET", FEATURES, {"lookup_key": key, "archived": "false"})["data"]
        return rows[0] if rows else None

    def attached(self, product: int) -> set[str]:
        rows = self.stripe._all(f"/v1/products/{self.products[product]}/features")
        return {row["entitlement_feature"]["id"] for row in rows}

    def attempt(self, trouble: Trouble, allowed: bool, edit: Callable[..., Any], **key: str) -> Any:
        """Once, or if Stripe did not answer, once more. Returns what came of it, `None` if it was refused."""
        trouble(self.stripe)
        try:
            done = edit(**key)
        except StripeRefused:
            assert not allowed
            return None
        except StripeUnavailable as error:
            self.stripe.clear_faults()
            same = {"idempotency_key": error.idempotency_key} if error.idempotency_key else {}
            return self.attempt(quiet, allowed, edit, **same)
        finally:
            self.stripe.clear_faults()
        assert allowed
        return done

    def same(self, row: Feature) -> None:
        told = self.stripe.call("GET", f"{FEATURES}/{row.stripe_id}")
        held = Feature.objects.get(stripe_id=row.stripe_id)
        assert (held.name, held.active, held.metadata) == (told["name"], told["active"], told["metadata"])

    @rule(key=keys, name=names, trouble=troubles)
    def create(self, key: str, name: str, trouble: Trouble) -> None:
        before = self.there(key)
        row = self.attempt(
            trouble,
            before is None or (before["name"] == name and not self.knows(before)),
            lambda **again: catalog.create_feature(name, key, **again),
        )
        if row:
            assert self.there(key) is not None
            self.same(row)

    def knows(self, feature: dict[str, Any]) -> bool:
        return Feature.objects.filter(stripe_id=feature["id"], active=True).exists()

    @rule(key=keys, name=names, value=st.sampled_from(["", "1", "2"]), trouble=troubles)
    def update(self, key: str, name: str, value: str, trouble: Trouble) -> None:
        before = self.there(key)
        row = self.attempt(
            trouble,
            before is not None,
            lambda **again: catalog.update_feature(key, name=name, metadata={"n": value}, **again),
        )
        if row:
            assert (row.name, row.metadata) == (name, {"n": value} if value else {})
            self.same(row)

    @rule(key=keys, trouble=troubles, by_key=st.booleans())
    def archive(self, key: str, trouble: Trouble, by_key: bool) -> None:
        before = self.there(key)
        if before is None:
            return
        given = key if by_key else before["id"]
        row = self.attempt(trouble, True, lambda **again: catalog.archive_feature(given, **again))
        assert self.there(key) is None
        self.same(row)

    @rule(product=products, key=keys, trouble=troubles)
    def attach(self, product: int, key: str, trouble: Trouble) -> None:
        before = self.there(key)
        row = self.attempt(
            trouble, before is not None, lambda **again: catalog.attach_feature(self.products[product], key, **again)
        )
        if row:
            assert row.feature.stripe_id in self.attached(product)
            assert (
                ProductFeature.objects.filter(product__stripe_id=self.products[product], feature=row.feature).count()
                == 1
            )

    @rule(product=products, key=keys, trouble=troubles, by_key=st.booleans())
    def detach(self, product: int, key: str, trouble: Trouble, by_key: bool) -> None:
        before = self.there(key)
        if before is None:
            return
        given = key if by_key else before["id"]
        self.attempt(trouble, True, lambda **again: catalog.detach_feature(self.products[product], given))
        assert before["id"] not in self.attached(product)
        pair = {"product__stripe_id": self.products[product], "feature__stripe_id": before["id"]}
        assert not ProductFeature.objects.filter(**pair).exists()

    @rule(key=keys, name=names)
    def dashboard_creates(self, key: str, name: str) -> None:
        if self.there(key) is None:
            self.stripe.create_feature(key, name=name)

    @rule(key=keys)
    def dashboard_archives(self, key: str) -> None:
        if (there := self.there(key)) is not None:
            self.stripe.archive_feature(there)

    @rule(product=products, key=keys)
    def dashboard_attaches_or_detaches(self, product: int, key: str) -> None:
        if (there := self.there(key)) is None:
            return
        if there["id"] in self.attached(product):
            self.stripe.detach_feature(self.products[product], there)
        else:
            self.stripe.attach_feature(self.products[product], there)

    @rule()
    def read(self) -> None:
        sync_catalog()
        assert sync_catalog().changes == ()
        for feature in self.all_features():
            self.same(Feature.objects.get(stripe_id=feature["id"]))
        for number, product in enumerate(self.products):
            rows = ProductFeature.objects.filter(product__stripe_id=product)
            assert set(rows.values_list("feature__stripe_id", flat=True)) == self.attached(number)

    @invariant()
    def no_key_is_had_twice_by_what_is_not_archived(self) -> None:
        rows = [row["lookup_key"] for row in self.stripe.call("GET", FEATURES, {"archived": "false"})["data"]]
        assert len(rows) == len(set(rows))


@pytest.mark.django_db(transaction=True)
def test_no_order_of_edits_leaves_us_with_something_else_than_stripe(
    stripe: StripeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FIRST_PAUSE", timedelta(milliseconds=5))
    monkeypatch.setattr(stripe_changes, "WAIT", 0.01)
    CatalogueMachine.stripe = stripe
    run_state_machine_as_test(
        CatalogueMachine,
        settings=settings(
            max_examples=int(SOAK or 8),
            stateful_step_count=20,
            derandomize=SOAK is None,  # the same cases each time; a soak looks for new ones
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a case takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
