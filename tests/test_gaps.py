"""`entitlements_catalog gaps`: who pays for a product, and has not been granted a feature of it by Stripe."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app import catalog, sync
from entitlements_app.models import AccountState, Customer, EntitlementOverride, Feature, Product
from entitlements_app.testing import StripeSimulator
from tests.owed import Debtor, found, report
from tests.rows import held
from tests.shop import Shop

pytestmark = pytest.mark.django_db

SUBSCRIPTIONS = "/v1/subscriptions"
ENTITLEMENTS = "/v1/entitlements/active_entitlements"


@pytest.fixture
def debtor(shop: Shop) -> Debtor:
    return Debtor(shop)


# --- what is a gap


def test_a_feature_attached_later_is_a_gap_until_stripe_grants_it(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    assert found() == {(acme.customer, "audit")}
    debtor.pay(acme)
    debtor.shop.deliver()
    assert "No gaps: 1 live subscription, and nobody lacks a feature of their products." in report()


def test_it_tells_who_what_since_when_and_what_can_be_done(debtor: Debtor) -> None:
    payers = [debtor.payer() for _ in range(3)]
    debtor.settle()
    debtor.attach()
    debtor.settle()
    Feature.objects.filter(lookup_key="audit").update(
        attached_at=timezone.now() + timedelta(minutes=5)
    )  # not in one second
    out = report("--most", "2", code=2)
    assert f"pro ({debtor.product}): 3 customers lack “audit” (feat_test_" in out
    assert "It was attached to a product by " in out
    assert "3 of 3 subscriptions are older." in out
    assert f"{payers[0].customer}  {payers[0].subscriber} (" in out
    assert f"{payers[0].subscription} since " in out
    assert ", next period from " in out
    assert "… and 1 more; --most N lists more of them" in out
    assert "3 customers lack what Stripe owes: 3 gaps." in out
    assert "Features of products as last read on " in out
    assert "entitlements_sync --catalog" in out
    assert "Wait." in out
    assert "Touch the subscription" in out
    assert "--bridge until=2" in out


def test_as_data_it_lists_all(debtor: Debtor) -> None:
    acme, nobody = debtor.payer(), debtor.payer(linked=False)
    debtor.attach()
    debtor.settle()
    data = json.loads(report("--json", "--most", "0", code=2))
    assert data["counts"] == {"gaps": 2, "customers": 2}
    assert (data["livemode"], data["bridges"], data["subscriptions"]) == (False, None, {"live": 2, "other": 0})
    gaps = {gap["customer"]: gap for gap in data["gaps"]}
    assert gaps[acme.customer]["subscriber"] == str(acme.subscriber.pk)
    assert gaps[acme.customer]["product"] == debtor.product
    assert gaps[acme.customer]["subscription"] == acme.subscription
    assert gaps[nobody.customer]["subscriber"] is None


def test_an_archived_feature_that_is_attached_counts(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.stripe.archive_feature(debtor.shop.features["audit"])
    debtor.settle()
    assert found() == {(acme.customer, "audit")}
    assert "archived, which still grants" in report(code=2)


def test_who_holds_the_key_by_another_feature_lacks_nothing(debtor: Debtor) -> None:
    debtor.payer()
    debtor.stripe.archive_feature(debtor.shop.features["sso"])
    debtor.stripe.attach_feature(debtor.product, debtor.stripe.create_feature("sso"))
    debtor.settle()
    assert found(code=0) == set()


@pytest.mark.parametrize("status", ["trialing", "active", "past_due"])
def test_live_is_what_stripe_grants_for(debtor: Debtor, status: str) -> None:
    acme = debtor.payer()
    debtor.stripe.set_status(acme.subscription, status)
    debtor.attach()
    debtor.settle()
    assert found() == {(acme.customer, "audit")}


@pytest.mark.parametrize("status", ["incomplete", "unpaid", "paused"])
def test_nobody_is_owed_anything_for_another_status(debtor: Debtor, status: str) -> None:
    acme = debtor.payer()
    debtor.stripe.set_status(acme.subscription, status)
    debtor.attach()
    debtor.settle()
    out = report()
    assert "No gaps: there is no live subscription (trialing, active or past due) in this account" in out
    assert "Not looked at: 1 subscription neither trialing, active nor past due." in out


def test_two_subscriptions_to_a_product_are_one_gap(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.shop.subscribe(acme.customer, "pro")
    debtor.attach()
    debtor.settle()
    assert "1 customer lacks what Stripe owes: 1 gap." in report(code=2)


def test_another_customer_of_the_subscriber_may_have_it(debtor: Debtor) -> None:
    acme = debtor.payer()
    branch = debtor.payer("enterprise", of=acme.subscriber)
    debtor.attach()
    debtor.settle()
    assert f"{branch.customer}, of the same subscriber, has it" in report(code=2)


def test_deleted_customers_lack_nothing(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    Customer.objects.filter(stripe_id=acme.customer).update(deleted_at=timezone.now(), next_fetch_at=None)
    assert found(code=0) == set()


def test_rows_of_the_other_mode_and_of_other_accounts_are_left_alone(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    others = [
        Customer.objects.create(stripe_id=acme.customer, livemode=True),
        Customer.objects.create(stripe_id=acme.customer, livemode=False, account="acct_other"),
    ]
    assert found("--confirm") == {(acme.customer, "audit")}
    for row in others:
        row.refresh_from_db()
        assert (row.fetched_at, row.version) == (None, 0)


# --- our own lag is no gap


def test_who_is_marked_is_confirmed_first(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    debtor.pay(acme)  # and the event is lost
    Customer.objects.update(hinted_at=timezone.now() - 5 * sync.windows.SETTLE)
    assert found(code=0) == set()
    assert held(acme.customer) == {"sso", "export", "audit"}
    assert debtor.calls(ENTITLEMENTS) == 1


def test_all_are_confirmed_if_asked_for(debtor: Debtor) -> None:
    acme, other = debtor.payer(), debtor.payer()
    debtor.attach()
    debtor.settle()
    debtor.pay(acme)
    assert found() == {(acme.customer, "audit"), (other.customer, "audit")}
    assert found("--confirm") == {(other.customer, "audit")}


def test_a_customer_that_nobody_knew_is_known_from_now_on(debtor: Debtor) -> None:
    granted, owed = debtor.payer("enterprise", linked=False), debtor.payer(linked=False)
    debtor.attach()
    debtor.stripe.clock.advance(300)
    sync.sync_catalog()
    assert "linked to nobody" in report(code=2)
    assert held(granted.customer) == {"sso", "export", "audit"}
    assert held(owed.customer) == {"sso", "export"}
    assert found() == {(owed.customer, "audit")}


def test_news_of_the_last_minute_is_not_judged(debtor: Debtor) -> None:
    debtor.payer()
    debtor.attach()
    debtor.settle()
    Customer.objects.update(hinted_at=timezone.now())
    out = report()
    assert "nobody who can be judged lacks" in out
    assert "Not judged: 1 customer with news of the last minute. Run it again." in out


def test_a_subscription_that_has_just_begun_is_not_judged(debtor: Debtor) -> None:
    debtor.settle()
    debtor.stripe.lag_lists(600)
    debtor.payer()
    assert "Not judged: 1 subscription less than a minute old; Stripe may still compute." in report()


# --- what is read


def test_more_than_a_page_of_subscriptions(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.shop.prices["plain"] = debtor.shop.plan("plain")
    for _ in range(100):
        debtor.payer("plain", linked=False)
    debtor.attach()
    Customer.objects.exclude(stripe_id=acme.customer).delete()
    debtor.shop.new_events()
    debtor.settle()
    assert found() == {(acme.customer, "audit")}
    assert debtor.calls(SUBSCRIPTIONS) == 2


def test_more_items_than_a_subscription_shows(debtor: Debtor) -> None:
    acme = debtor.shop.customer()
    plain = [debtor.shop.plan(f"plain {number}") for number in range(10)]
    items = [{"price": price["id"]} for price in (*plain, debtor.shop.prices["pro"])]
    shown = debtor.stripe.call("POST", SUBSCRIPTIONS, {"customer": acme, "items": items})["items"]
    assert (len(shown["data"]), shown["has_more"]) == (10, True)
    debtor.attach()
    debtor.settle()
    assert found() == {(acme, "audit")}
    assert debtor.calls("/v1/subscription_items") == 1


def test_one_customer_or_one_product(debtor: Debtor) -> None:
    acme, other = debtor.payer(), debtor.payer()
    debtor.payer("reports")
    debtor.attach()
    debtor.stripe.attach_feature(debtor.shop.prices["reports"]["product"], debtor.shop.features["audit"])
    debtor.settle()
    assert found("--customer", acme.customer) == {(acme.customer, "audit")}
    debtor.shop.calls()
    assert found("--product", debtor.product) == {(acme.customer, "audit"), (other.customer, "audit")}
    assert debtor.shop.calls() == ["/v1/prices", SUBSCRIPTIONS]
    assert found("--product", debtor.product, "--customer", other.customer) == {(other.customer, "audit")}
    with pytest.raises(CommandError, match="The features of 'prod_wrong' are not known here"):
        report("--product", "prod_wrong")
    told = report("--customer", "cus_wrong")
    assert "there is no live subscription (trialing, active or past due) for cus_wrong, in test mode. This cust" in told


def test_products_whose_features_nobody_knows_are_told(debtor: Debtor) -> None:
    debtor.payer()
    debtor.settle()
    debtor.shop.prices["new"] = debtor.shop.plan("new", "audit")
    debtor.payer("new")
    debtor.stripe.clock.advance(300)
    out = report()
    assert "Not judged: 1 subscription to products whose features are not known here" in out
    assert debtor.shop.prices["new"]["product"] in out


def test_a_product_of_which_only_what_was_attached_here_is_known(debtor: Debtor) -> None:
    debtor.settle()
    debtor.shop.prices["new"] = debtor.shop.plan("new", "audit")
    catalog.attach_feature(debtor.shop.prices["new"]["product"], "reports")
    debtor.payer("new")
    debtor.stripe.clock.advance(300)
    assert "Not judged: 1 subscription to products whose features are not known here" in report()


def test_no_name_reaches_the_terminal_as_more_than_a_name(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    evil = "\x1b]0;evil\x07\n+ evil\u202e"
    name = acme.subscriber.USERNAME_FIELD if hasattr(acme.subscriber, "USERNAME_FIELD") else "name"
    type(acme.subscriber).objects.filter(pk=acme.subscriber.pk).update(**{name: evil})
    Product.objects.update(name=evil)
    out = report("--bridge", "until=30d", "--dry-run", code=2)
    assert out.count("\\u001b]0;evil\\u0007\\u000a+ evil\\u202e (") == 3
    assert not any(character in out for character in ("\x1b", "\x07", "\u202e", "\n+"))


def test_without_a_catalogue_it_says_how_to_read_it(debtor: Debtor) -> None:
    with pytest.raises(CommandError, match="entitlements_sync --catalog"):
        report()
    assert debtor.shop.calls() == []


def test_each_page_takes_the_same_queries(debtor: Debtor) -> None:
    counts = []
    for more in (1, 4):
        for _ in range(more):
            debtor.payer()
        debtor.attach("audit" if more == 1 else "reports")
        debtor.settle()
        with CaptureQueriesContext(connection) as queries:
            report("--most", "0", code=2)
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- trouble


def test_stripe_that_fails_in_the_middle_leaves_no_report(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.settle()
    for _ in range(100):
        debtor.stripe.subscribe(acme.customer, debtor.shop.prices["reports"])
    debtor.stripe.between_pages(lambda: debtor.stripe.fail_requests(500, times=9, path=SUBSCRIPTIONS))
    with pytest.raises(CommandError, match=r"HTTP 500.*Nothing is reported: some would be missing") as caught:
        report()
    assert caught.value.returncode == 1


def test_a_moment_of_trouble_is_waited_for(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.attach()
    debtor.settle()
    debtor.stripe.fail_requests(503, path=SUBSCRIPTIONS)
    assert found() == {(acme.customer, "audit")}


def test_who_cannot_be_confirmed_is_an_error(debtor: Debtor) -> None:
    debtor.payer()
    debtor.attach()
    debtor.settle()
    debtor.stripe.fail_requests(500, times=9, path=ENTITLEMENTS)
    with pytest.raises(CommandError, match="1 customer could not be confirmed, so the report is not complete"):
        report("--confirm")


def test_a_key_that_may_not_read_subscriptions(debtor: Debtor, settings: Any) -> None:
    debtor.settle()
    debtor.stripe.add_restricted_key("rk_test_reader", "entitlement_read", "customer_read", "product_read")
    settings.ENTITLEMENTS_STRIPE_API_KEY = "rk_test_reader"
    with pytest.raises(CommandError, match=r"must be allowed to read Subscriptions \(subscription_read\)"):
        report()
    assert not AccountState.objects.exclude(stopped_at=None).exists()


def test_a_key_that_is_none_stops_all(debtor: Debtor, settings: Any) -> None:
    debtor.settle()
    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_wrong"
    with pytest.raises(CommandError, match="HTTP 401"):
        report()
    settings.ENTITLEMENTS_STRIPE_API_KEY = None
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY is not set"):
        report()


def test_an_interrupt_ends_it_between_two_pages(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.settle()
    for _ in range(100):
        debtor.stripe.subscribe(acme.customer, debtor.shop.prices["reports"])
    debtor.stripe.between_pages(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(CommandError, match="Interrupted") as caught:
        report()
    assert caught.value.returncode == 130


@pytest.mark.parametrize("args", [["--yes"], ["--dry-run"], ["--most", "-1"], ["--json", "--bridge", "until=30d"]])
def test_options_that_make_no_sense(stripe: StripeSimulator, args: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("entitlements_catalog", "gaps", *args)
    assert not EntitlementOverride.objects.exists()
    assert not stripe.requests
