"""Features and products are changed from code: what Stripe has, what we hold of it, and how often it was done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from entitlements_app import budget, catalog, catalog_reads, catalog_writes, stripe_changes
from entitlements_app.budget import SideAllowance
from entitlements_app.catalog_reads import Catalog
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.models import AccountState, Customer, Feature, Product, ProductFeature
from entitlements_app.sync import sync_catalog, sync_customer
from entitlements_app.testing import StripeSimulator
from tests.threads import Crowd, wait_for_backends

pytestmark = pytest.mark.django_db(transaction=True)

FEATURES = "/v1/entitlements/features"
Do = Callable[[], Any]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe is left alone for a while after a call that it did not answer."""
    monkeypatch.setattr(budget, "FIRST_PAUSE", timedelta(seconds=0.05))
    monkeypatch.setattr(stripe_changes, "WAIT", 0.05)


class Catalogue:
    """Support is attached to Pro; Audit is not; Basic has nothing; Fax is archived, and still attached to Pro."""

    def __init__(self, stripe: StripeSimulator) -> None:
        self.stripe = stripe
        self.support = stripe.create_feature("support", name="Support", metadata={"hours": "24"})["id"]
        self.audit = stripe.create_feature("audit", name="Audit log")["id"]
        self.fax = stripe.create_feature("fax", name="Fax")["id"]
        self.pro = stripe.create_product("Pro", features=[self.support, self.fax])["id"]
        self.basic = stripe.create_product("Basic")["id"]
        stripe.archive_feature(self.fax)
        sync_catalog()
        stripe.clear_requests()

    def feature(self, key: str) -> dict[str, Any]:
        """The newest feature that has the key in Stripe."""
        both = ("false", "true")
        rows = [row for archived in both for row in self.stripe.call("GET", FEATURES, {"archived": archived})["data"]]
        return next(row for row in rows if row["lookup_key"] == key)

    def features_of(self, product: str) -> list[str]:
        rows = self.stripe.call("GET", f"/v1/products/{product}/features")["data"]
        return sorted(row["entitlement_feature"]["lookup_key"] for row in rows)

    def changes(self) -> list[str]:
        """What was asked of Stripe over HTTP, other than to tell."""
        return [f"{request.method} {request.path}" for request in self.stripe.requests if request.method != "GET"]


@pytest.fixture
def shop(stripe: StripeSimulator) -> Catalogue:
    return Catalogue(stripe)


def same_as_stripe() -> bool:
    """Whether our copy of the catalogue is what a reading finds."""
    return sync_catalog().changes == ()


def attached(product: str) -> list[str]:
    rows = ProductFeature.objects.filter(product__stripe_id=product)
    return sorted(rows.values_list("feature__lookup_key", flat=True))


# --- what the guide does


def test_a_feature_from_beginning_to_end(shop: Catalogue) -> None:
    made = catalog.create_feature("API access", "api_access", {"calls": "1000"})
    there = shop.feature("api_access")
    assert (there["id"], there["name"], there["metadata"]) == (made.stripe_id, "API access", {"calls": "1000"})
    assert catalog.attach_feature(shop.basic, "api_access").feature == made
    made = catalog.update_feature(made, name="API", metadata={"calls": "", "rate": "5"})
    assert (made.name, made.metadata) == ("API", {"rate": "5"})
    assert shop.feature("api_access")["metadata"] == {"rate": "5"}
    assert not catalog.archive_feature("api_access").active
    assert attached(shop.basic) == shop.features_of(shop.basic) == ["api_access"]
    catalog.detach_feature(shop.basic, made)
    assert attached(shop.basic) == shop.features_of(shop.basic) == []
    again = catalog.create_feature("API", "api_access")
    assert again != made
    assert same_as_stripe()


def test_what_is_attached_is_asked_for_and_written(shop: Catalogue) -> None:
    shop.stripe.attach_feature(shop.pro, shop.audit)
    shop.stripe.detach_feature(shop.pro, shop.fax)
    rows = catalog.list_product_features(shop.pro)
    assert [row.feature.lookup_key for row in rows] == attached(shop.pro) == ["audit", "support"]


def test_rows_will_do_as_well_as_ids_and_keys(shop: Catalogue) -> None:
    product, feature = Product.objects.get(stripe_id=shop.basic), Feature.objects.get(lookup_key="audit")
    assert catalog.attach_feature(product, feature).product == product
    assert catalog.update_feature(shop.audit, name="Audit").name == "Audit"
    catalog.detach_feature(product, "audit")
    assert shop.features_of(shop.basic) == []


def test_stripe_is_asked_for_what_is_not_known_here(shop: Catalogue) -> None:
    new = shop.stripe.create_feature("new")["id"]
    product = shop.stripe.create_product("New")["id"]
    assert catalog.attach_feature(product, "new").feature.stripe_id == new
    assert Product.objects.get(stripe_id=product).name == "New"
    assert same_as_stripe()


def test_nobody_loses_or_gains_here_and_now(shop: Catalogue) -> None:
    customer = shop.stripe.create_customer()
    shop.stripe.subscribe(customer, shop.stripe.create_price(shop.pro))
    before = shop.stripe.active_entitlements(customer)
    catalog.attach_feature(shop.pro, "audit")
    catalog.detach_feature(shop.pro, "support")
    assert shop.stripe.active_entitlements(customer) == before


def test_an_archived_feature_is_detached_by_its_key(shop: Catalogue) -> None:
    catalog.create_feature("Fax, again", "fax")
    catalog.detach_feature(shop.pro, "fax")
    assert attached(shop.pro) == shop.features_of(shop.pro) == ["support"]


# --- what is refused

REFUSED: dict[str, tuple[Callable[[Catalogue], Any], str]] = {
    "a key of 81 characters": (
        lambda shop: catalog.create_feature("A", "a" * 81),
        "at most 80 characters; this has 81",
    ),
    "a name of 81 characters": (lambda shop: catalog.create_feature("a" * 81, "a"), "at most 80 characters"),
    "a name of blanks": (lambda shop: catalog.create_feature("  ", "a"), "must not be empty"),
    "a NUL": (lambda shop: catalog.create_feature("a\x00", "a"), "cannot be sent"),
    "half a character": (lambda shop: catalog.create_feature("a", "\ud800"), "cannot be sent"),
    "51 keys": (lambda shop: catalog.create_feature("A", "a", dict.fromkeys(map(str, range(51)), "x")), "at most 50"),
    "a long metadata key": (lambda shop: catalog.create_feature("A", "a", {"k" * 41: "x"}), "at most 40"),
    "a long metadata value": (lambda shop: catalog.create_feature("A", "a", {"k": "x" * 501}), "at most 500"),
    "a metadata key in brackets": (lambda shop: catalog.create_feature("A", "a", {"k[0]": "x"}), "square brackets"),
    "an empty metadata value": (lambda shop: catalog.create_feature("A", "a", {"k": ""}), "leave the key out"),
    "a key in use": (lambda shop: catalog.create_feature("A", "support"), "has this lookup key already"),
    "a name too long, later": (lambda shop: catalog.update_feature("audit", name="a" * 81), "at most 80"),
    "51 keys, with those there": (
        lambda shop: catalog.update_feature("support", metadata=dict.fromkeys(map(str, range(50)), "x")),
        "would be 51",
    ),
    "an edit of an archived one": (
        lambda shop: catalog.update_feature("fax", name="F"),
        "cannot be edited. It is arch",
    ),
    "attaching an archived one": (lambda shop: catalog.attach_feature(shop.basic, "fax"), "cannot be attached. It is"),
    "an unknown feature": (lambda shop: catalog.archive_feature("nothing"), "No feature has"),
    "an unknown product": (lambda shop: catalog.attach_feature("prod_nothing", "audit"), "No product has"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_known_to_be_refused_is_not_tried(shop: Catalogue, what: str) -> None:
    do, said = REFUSED[what]
    with pytest.raises(StripeRefused, match=said):
        do(shop)
    assert shop.changes() == []
    assert same_as_stripe()


@pytest.mark.parametrize(
    "do",
    [
        lambda: catalog.create_feature("A", ""),
        lambda: catalog.create_feature("A", None),  # type: ignore[arg-type]
        lambda: catalog.create_feature(3, "a"),  # type: ignore[arg-type]
        lambda: catalog.create_feature("A", "a", {"seats": 3}),  # type: ignore[dict-item]
        lambda: catalog.create_feature("A", "a", ["x"]),  # type: ignore[arg-type]
        lambda: catalog.archive_feature(3),  # type: ignore[arg-type]
        lambda: catalog.attach_feature("", "audit"),
        lambda: catalog.detach_feature(None, "audit"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_text_is_a_mistake_in_code(shop: Catalogue, do: Do) -> None:
    with pytest.raises(TypeError):
        do()
    assert shop.changes() == []


def test_a_row_of_the_other_mode_or_of_another_account(shop: Catalogue) -> None:
    live = Feature.objects.create(stripe_id="feat_live", lookup_key="live", livemode=True)
    theirs = Product.objects.create(stripe_id="prod_theirs", account="acct_other", livemode=False)
    with pytest.raises(ValueError, match="another account or mode"):
        catalog.archive_feature(live)
    with pytest.raises(ValueError, match="another account or mode"):
        catalog.attach_feature(theirs, "audit")
    assert shop.changes() == []


def test_a_refusal_that_nobody_foresaw_is_a_sentence(shop: Catalogue) -> None:
    shop.stripe.fail_requests(400, path=f"{FEATURES}/{shop.audit}")
    with pytest.raises(StripeRefused) as refused:
        catalog.update_feature("audit", name="A")
    assert "HTTP 400" in str(refused.value)
    assert "It says: This request is not possible." in str(refused.value)
    assert shop.stripe.api_key not in str(refused.value)


def test_no_transaction_is_held_while_stripe_is_asked(shop: Catalogue) -> None:
    calls: list[Do] = [
        lambda: catalog.create_feature("A", "a"),
        lambda: catalog.update_feature("audit", name="A"),
        lambda: catalog.archive_feature("audit"),
        lambda: catalog.attach_feature(shop.basic, "audit"),
        lambda: catalog.detach_feature(shop.pro, "support"),
        lambda: catalog.list_product_features(shop.pro),
    ]
    for call in calls:
        with transaction.atomic(), pytest.raises(RuntimeError, match="calls Stripe"):
            call()
    assert shop.stripe.requests == []


def test_without_a_key_nobody_is_asked(shop: Catalogue, settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    with pytest.raises(StripeRefused, match="ENTITLEMENTS_STRIPE_API_KEY is not set"):
        catalog.create_feature("A", "a")


def test_a_key_that_may_only_read_says_what_it_lacks_and_goes_on_reading(shop: Catalogue) -> None:
    shop.stripe.fail_requests(403, path=FEATURES)
    with pytest.raises(StripeRefused, match="must be allowed to write Entitlements and Products"):
        catalog.create_feature("A", "a")
    assert budget.stopped_reason() == ""
    assert same_as_stripe()


def test_a_refused_key_stops_every_call(shop: Catalogue) -> None:
    shop.stripe.fail_requests(401, path=FEATURES)
    with pytest.raises(budget.Stopped):
        catalog.create_feature("A", "a")
    assert budget.stopped_reason() == "HTTP 401"


# --- changed elsewhere meanwhile


def test_archived_in_the_dashboard(shop: Catalogue) -> None:
    shop.stripe.archive_feature(shop.audit)
    with pytest.raises(StripeRefused, match="It is archived"):
        catalog.update_feature("audit", name="A")
    assert not Feature.objects.get(lookup_key="audit").active
    shop.stripe.archive_feature(shop.support)
    with pytest.raises(StripeRefused, match="It is archived"):
        catalog.attach_feature(shop.basic, "support")
    assert same_as_stripe()


def test_archiving_what_the_dashboard_has_archived(shop: Catalogue) -> None:
    shop.stripe.archive_feature(shop.audit)
    assert not catalog.archive_feature("audit").active
    assert shop.changes() == []
    assert same_as_stripe()


def test_a_key_whose_feature_the_dashboard_has_archived_is_free(shop: Catalogue) -> None:
    shop.stripe.archive_feature(shop.audit)
    assert catalog.create_feature("Audit log", "audit").stripe_id == shop.feature("audit")["id"] != shop.audit
    assert same_as_stripe()


def test_a_key_that_a_feature_has_which_is_not_known_here(shop: Catalogue) -> None:
    shop.stripe.create_feature("new", name="New")
    with pytest.raises(StripeRefused, match="has this lookup key already, under the name 'New'") as refused:
        catalog.create_feature("Newer", "new")
    assert refused.value.param == "lookup_key"
    assert same_as_stripe()


@pytest.mark.parametrize("known", [True, False])
def test_a_key_means_the_feature_that_has_it_in_stripe_now(shop: Catalogue, known: bool) -> None:
    """Archived and made anew in the Dashboard: here the key is still the old one's."""
    shop.stripe.archive_feature(shop.audit)
    new = shop.stripe.create_feature("audit", name="New")["id"]
    if known:
        catalog.list_product_features(shop.stripe.create_product("P", features=[new])["id"])
    assert catalog.update_feature("audit", name="Newer").stripe_id == new
    assert catalog.attach_feature(shop.basic, "audit").feature.stripe_id == new
    assert catalog.archive_feature("audit").stripe_id == new
    catalog.detach_feature(shop.basic, "audit")
    assert shop.features_of(shop.basic) == []


def test_attached_elsewhere(shop: Catalogue) -> None:
    there = shop.stripe.attach_feature(shop.basic, shop.audit)
    assert catalog.attach_feature(shop.basic, "audit").stripe_id == there["id"]
    assert same_as_stripe()


def test_detached_elsewhere(shop: Catalogue) -> None:
    shop.stripe.detach_feature(shop.pro, shop.support)
    catalog.detach_feature(shop.pro, "support")
    assert same_as_stripe()


def test_detached_and_attached_again_elsewhere(shop: Catalogue) -> None:
    shop.stripe.detach_feature(shop.pro, shop.support)
    shop.stripe.attach_feature(shop.pro, shop.support)
    catalog.detach_feature(shop.pro, "support")
    assert shop.features_of(shop.pro) == ["fax"]
    assert same_as_stripe()


# --- answers that are lost


def intents(shop: Catalogue) -> dict[str, Callable[..., Any]]:
    return {
        "create": lambda **key: catalog.create_feature("New", "new", {"a": "b"}, **key),
        "update": lambda **key: catalog.update_feature(shop.audit, name="Log", metadata={"a": "b"}, **key),
        "archive": lambda **key: catalog.archive_feature(shop.audit, **key),
        "attach": lambda **key: catalog.attach_feature(shop.basic, shop.audit, **key),
        "detach": lambda: catalog.detach_feature(shop.pro, shop.support),
    }


def is_done(shop: Catalogue, intent: str) -> bool:
    """In Stripe, once; and here."""
    audit = shop.feature("audit")
    news = [row for row in shop.stripe.call("GET", FEATURES)["data"] if row["lookup_key"] == "new"]
    done = {
        "create": [row["metadata"] for row in news] == [{"a": "b"}],
        "update": (audit["name"], audit["metadata"]) == ("Log", {"a": "b"}),
        "archive": audit["active"] is False,
        "attach": shop.features_of(shop.basic) == ["audit"],
        "detach": shop.features_of(shop.pro) == ["fax"],
    }
    return done.pop(intent) and not any(done.values()) and same_as_stripe()


Break = Callable[[StripeSimulator], None]
INTENTS = ["create", "update", "archive", "attach", "detach"]
LOST: dict[str, Break] = {
    "the answer is lost": lambda stripe: stripe.lose_answers(),
    "done, and a 500": lambda stripe: stripe.lose_answers(status=500),
    "not done, and a 500": lambda stripe: stripe.fail_requests(500),
    "no connection": lambda stripe: stripe.drop_connections(),
    "too many calls": lambda stripe: stripe.fail_requests(429),
    "the key is in use": lambda stripe: stripe.fail_requests(409),
}


@pytest.mark.parametrize("trouble", LOST)
@pytest.mark.parametrize("intent", INTENTS)
def test_one_trouble_is_got_over_and_it_is_done_once(shop: Catalogue, intent: str, trouble: str) -> None:
    LOST[trouble](shop.stripe)
    intents(shop)[intent]()
    assert is_done(shop, intent)


def nobody_can_look(stripe: StripeSimulator) -> None:
    stripe.lose_answers(status=500)
    stripe.fail_requests(503, times=100, method="GET")


@pytest.mark.parametrize("break_it", [lambda stripe: stripe.lose_answers(), nobody_can_look], ids=["lost", "500"])
@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize("intent", INTENTS)
def test_who_does_not_know_may_try_again(
    shop: Catalogue, intent: str, with_key: bool, break_it: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(catalog, "CHANGE_SECONDS", 1.0)
        impatient.setattr(budget, "FIRST_PAUSE", timedelta(seconds=30))
        break_it(shop.stripe)
        with pytest.raises(StripeUnavailable) as unknown:
            intents(shop)[intent]()
    shop.stripe.clear_faults()
    AccountState.objects.update(next_call_at=None, paused_at=None)
    key = unknown.value.idempotency_key
    assert (key is None) is (intent == "detach")
    intents(shop)[intent](**({"idempotency_key": key} if key and with_key else {}))
    assert is_done(shop, intent)


def test_what_was_surely_not_done_needs_no_key(shop: Catalogue) -> None:
    shop.stripe.fail_requests(429, times=9, path=FEATURES)
    with pytest.raises(StripeUnavailable) as error:
        catalog.create_feature("A", "a")
    assert error.value.idempotency_key is None
    shop.stripe.clear_faults()
    assert same_as_stripe()


def test_a_key_stands_for_one_change(shop: Catalogue) -> None:
    key = catalog.new_idempotency_key()
    made = catalog.create_feature("A", "a", idempotency_key=key)
    assert catalog.create_feature("A", "a", idempotency_key=key) == made
    with pytest.raises(StripeRefused, match="used for another call"):
        catalog.create_feature("B", "b", idempotency_key=key)
    with pytest.raises(ValueError, match="1 to 255 ASCII"):
        catalog.create_feature("B", "b", idempotency_key="")
    assert same_as_stripe()


def test_an_answer_that_is_told_again_is_old(shop: Catalogue) -> None:
    made, renamed, attached_ = (catalog.new_idempotency_key() for _ in range(3))
    catalog.create_feature("A", "a", idempotency_key=made)
    catalog.attach_feature(shop.basic, "a", idempotency_key=attached_)
    catalog.update_feature("a", name="B", idempotency_key=renamed)
    shop.stripe.call("POST", f"{FEATURES}/{shop.feature('a')['id']}", {"name": "C"})
    shop.stripe.detach_feature(shop.basic, shop.feature("a")["id"])
    assert catalog.update_feature("a", name="B", idempotency_key=renamed).name == "C"
    with pytest.raises(StripeRefused, match="was detached since"):
        catalog.attach_feature(shop.basic, "a", idempotency_key=attached_)
    assert same_as_stripe()
    shop.stripe.archive_feature(shop.feature("a")["id"])
    assert not catalog.create_feature("A", "a", idempotency_key=made).active
    assert same_as_stripe()


# --- at the same time


def test_a_slower_answer_does_not_undo_a_later_change(shop: Catalogue) -> None:
    with shop.stripe.hold("POST", f"{FEATURES}/{shop.audit}") as slow:
        crowd = Crowd().start(lambda: catalog.update_feature("audit", name="Earlier"))
        slow.wait_for_request()
        catalog.update_feature("audit", name="Later")
        slow.release()
        crowd.join()
    assert Feature.objects.get(lookup_key="audit").name == "Later"


@pytest.mark.parametrize("intent", ["update", "archive", "attach"])
def test_what_was_done_and_cannot_be_written_here_is_not_said_to_be_undone(shop: Catalogue, intent: str) -> None:
    paths = {"attach": f"/v1/products/{shop.basic}/features"}
    with shop.stripe.hold("POST", paths.get(intent, f"{FEATURES}/{shop.audit}")) as slow:
        crowd = Crowd().start(lambda: intents(shop)[intent]())
        slow.wait_for_request()
        Feature.objects.update(version=F("version") + 1)
        Product.objects.update(version=F("version") + 1)
        shop.stripe.fail_requests(500, times=9, method="GET")
        slow.release()
        with pytest.raises(StripeUnavailable, match="done in Stripe") as raised:
            crowd.join()
    shop.stripe.clear_faults()
    assert raised.value.idempotency_key is not None
    intents(shop)[intent](idempotency_key=raised.value.idempotency_key)
    assert is_done(shop, intent)


def test_what_was_attached_later_stays_attached(shop: Catalogue) -> None:
    with shop.stripe.hold("POST", f"/v1/products/{shop.basic}/features") as slow:
        crowd = Crowd().start(lambda: catalog.attach_feature(shop.basic, "audit"))
        slow.wait_for_request()
        catalog.detach_feature(shop.basic, "audit")
        catalog.attach_feature(shop.basic, "support")
        slow.release()
        with pytest.raises(StripeRefused, match="was detached since"):
            crowd.join()
    assert attached(shop.basic) == ["support"]


@pytest.mark.parametrize("held", [FEATURES, "/v1/products", "/v1/products/*/features"])
def test_a_reading_that_began_earlier_undoes_nothing(shop: Catalogue, held: str) -> None:
    with shop.stripe.hold("GET", held) as slow:
        crowd = Crowd().start(sync_catalog)
        slow.wait_for_request()
        catalog.create_feature("New", "new")
        catalog.update_feature("support", name="Help")
        catalog.archive_feature("audit")
        catalog.attach_feature(shop.basic, "new")
        catalog.attach_feature(shop.stripe.create_product("Later")["id"], "new")
        catalog.detach_feature(shop.pro, "support")
        slow.release()
        crowd.join()
    assert same_as_stripe()


def test_a_fetch_that_began_earlier_undoes_nothing(shop: Catalogue) -> None:
    payer = shop.stripe.create_customer()["id"]
    shop.stripe.subscribe(payer, shop.stripe.create_price(shop.pro))
    row = Customer.objects.create(stripe_id=payer, livemode=False)
    sync_customer(row)
    with shop.stripe.hold("GET", "/v1/entitlements/active_entitlements") as slow:
        crowd = Crowd().start(lambda: sync_customer(row))
        slow.wait_for_request()
        catalog.update_feature("support", name="Help", metadata={"hours": "8"})
        catalog.archive_feature("support")
        slow.release()
        crowd.join()
    assert same_as_stripe()


@pytest.mark.postgresql
def test_what_a_reading_writes_while_an_edit_waits_for_it(shop: Catalogue) -> None:
    new = shop.stripe.create_feature("new", name="New")["id"]
    shop.stripe.attach_feature(shop.pro, new)
    calls = SideAllowance(seconds=20, forbidden="")
    read = Catalog(
        catalog_reads.list_features(calls),
        catalog_reads.list_products(calls),
        {shop.pro: catalog_reads.list_attachments(shop.pro, calls)},
    )
    with transaction.atomic():
        versions = catalog_writes.get_versions()
        list(Feature.objects.order_by("stripe_id").select_for_update(no_key=True))
        crowd = Crowd().start(lambda: catalog.attach_feature(shop.pro, "audit"))
        wait_for_backends(1)
        catalog_writes.save(read, versions, now=timezone.now(), first=False)
    crowd.join()
    assert same_as_stripe()
