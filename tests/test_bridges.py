"""Bridges: what Stripe owes is granted here until Stripe grants it, as long as somebody pays for it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.conf import settings as site
from django.core.management import CommandError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from entitlements_app import sync
from entitlements_app.access import has_entitlement, prefetch_entitlements, subscribers_with
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.explain import explain
from entitlements_app.explanation_text import get_paragraphs
from entitlements_app.linking import link, unlink
from entitlements_app.management.catalogue import gap_bridging
from entitlements_app.models import Customer, EntitlementOverride, Feature
from entitlements_app.overrides import Bridging, bridge, clear, deny, grant
from entitlements_app.testing import StripeSimulator, webhook_client
from tests.delivery import customer_deleted, deliver, summary
from tests.owed import Debtor, Payer, report
from tests.rows import effective, make_subscriber, refused
from tests.shop import Shop
from tests.staff import staff_for_all, text_of, url
from tests.threads import meeting_at

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture
def debtor(shop: Shop) -> Debtor:
    return Debtor(shop)


@pytest.fixture
def owed(debtor: Debtor) -> Payer:
    """Somebody who pays for `pro`, and to whom Stripe owes `audit` and `reports`."""
    payer = debtor.payer()
    debtor.attach("audit")
    debtor.attach("reports")
    debtor.settle()
    return payer


@pytest.fixture
def bridged(acme: Any) -> Any:
    """A subscriber whose customer holds nothing, and with a bridge of `sso` for a week."""
    Feature.objects.create(stripe_id="feat_test_sso", lookup_key="sso", livemode=False)
    assert bridge(acme, "sso", until=in_days(7)) is Bridging.MADE
    return acme


def in_days(days: int) -> datetime:
    return timezone.now() + days * DAY


def standing() -> list[str]:
    """Keys of bridges that are not over."""
    rows = EntitlementOverride.objects.not_over(timezone.now()).exclude(bridge_livemode=None)
    return list(rows.order_by("lookup_key", "pk").values_list("lookup_key", flat=True))


# --- the command


def test_it_grants_what_stripe_owes_until_stripe_grants_it(debtor: Debtor, owed: Payer) -> None:
    out = report("--bridge", "until=30d", "--yes")
    assert "2 bridges made, 0 moved, 0 ended." in out
    assert has_entitlement(owed.subscriber, "audit", "reports")
    told = effective()
    debtor.pay(owed)
    debtor.shop.deliver()
    assert standing() == []
    assert has_entitlement(owed.subscriber, "audit", "reports")
    assert effective() == told
    row = EntitlementOverride.objects.get(lookup_key="audit")
    assert row.expires_at is not None
    assert row.expires_at <= timezone.now()
    assert row.reason == f"Owed by Stripe: {owed.subscription} is a subscription to pro ({debtor.product})."
    assert "No gaps" in report()


def test_a_dry_run_tells_what_would_be_written_and_writes_nothing(debtor: Debtor, owed: Payer) -> None:
    out = report("--bridge", "until=30d", "--dry-run", code=2)
    for key in ("audit", "reports"):
        assert f"Bridge “{key}” for {owed.subscriber} (" in out
    assert "2 bridges to make" in out
    assert "No override was written." in out
    assert not EntitlementOverride.objects.exists()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_it_asks(debtor: Debtor, owed: Payer) -> None:
    for answer in ("n\n", ""):
        assert "No override was written." in report("--bridge", "until=30d", code=2, stdin=Terminal(answer))
    with pytest.raises(CommandError, match="There is no terminal to ask at, so no override was written"):
        report("--bridge", "until=30d", stdin=StringIO("y\n"))
    assert standing() == []
    assert "Write this, in test mode? [y/N]" in report("--bridge", "until=30d", stdin=Terminal("y\n"))
    assert standing() == ["audit", "reports"]


class Slow(Terminal):
    """Somebody who says yes, but not before something has happened."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__("y\n")
        self._meanwhile = meanwhile

    def readline(self, *args: Any) -> str:
        self._meanwhile()
        return super().readline(*args)


def test_who_cancels_while_the_question_stands_open_is_not_bridged(debtor: Debtor, owed: Payer) -> None:
    stays = debtor.payer()
    debtor.settle()
    slow = Slow(lambda: debtor.stripe.set_status(owed.subscription, "canceled"))
    out = report("--bridge", "until=30d", code=2, stdin=slow)
    assert out.endswith(
        "0 bridges made, 0 moved, 0 ended.\n2 left alone: the subscriptions have changed meanwhile. "
        "Run it again to see how.\n"
    )
    assert not has_entitlement(owed.subscriber, "audit")
    assert not EntitlementOverride.objects.filter(subscriber=stays.subscriber).exists(), "it has them from the start"


def test_who_subscribes_again_while_the_question_stands_open_keeps_the_bridge(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    debtor.stripe.set_status(owed.subscription, "canceled")
    slow = Slow(lambda: debtor.shop.subscribe(owed.customer, "pro"))
    assert "0 ended.\n2 left alone:" in report("--bridge", "until=30d", code=2, stdin=slow)
    assert standing() == ["audit", "reports"]


def test_stripe_that_fails_after_the_answer_leaves_what_was_done(debtor: Debtor, owed: Payer) -> None:
    slow = Slow(lambda: debtor.stripe.fail_requests(400, path="/v1/subscriptions"))
    with pytest.raises(CommandError, match=r"0 bridges made, 0 moved, 0 ended\. Run it again"):
        report("--bridge", "until=30d", stdin=slow)
    assert standing() == []


def test_many_bridges_are_not_asked_about_again(debtor: Debtor, owed: Payer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap_bridging, "LOOKED_AT_AGAIN", 1)
    report("--bridge", "until=30d", stdin=Terminal("y\n"))
    assert debtor.calls("/v1/subscriptions") == 1
    assert standing() == ["audit", "reports"]


def test_an_interrupt_at_the_question_is_heard_at_once(debtor: Debtor, owed: Payer) -> None:
    class Pressed(Terminal):
        def readline(self, *args: Any) -> str:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("It went on waiting for an answer.")

    with pytest.raises(CommandError, match="Interrupted") as told:
        report("--bridge", "until=30d", stdin=Pressed())
    assert told.value.returncode == 130
    assert standing() == []


def test_twice_does_nothing_more_and_another_end_moves_it(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    before = list(EntitlementOverride.objects.order_by("pk").values())
    assert "2 bridges stand with this end" in report("--bridge", "until=30d", "--yes")
    assert list(EntitlementOverride.objects.order_by("pk").values()) == before
    assert "bridged, at most until " in report(code=2)
    assert "0 bridges made, 2 moved, 0 ended." in report("--bridge", "until=20d", "--yes")
    ends = EntitlementOverride.objects.values_list("expires_at", flat=True)
    assert len(ends) == 2
    assert all(end < row["expires_at"] for end, row in zip(ends, before, strict=True))


def test_as_data(debtor: Debtor, owed: Payer) -> None:
    data = json.loads(report("--bridge", "until=30d", "--yes", "--json"))
    assert (data["bridges"]["made"], data["bridges"]["dry_run"]) == (2, False)
    assert all(gap["bridged_until"] for gap in data["gaps"])


def test_who_is_linked_to_nobody_cannot_be_bridged(debtor: Debtor) -> None:
    debtor.payer(linked=False)
    debtor.attach()
    debtor.settle()
    out = report("--bridge", "until=30d", "--yes", code=2)
    assert "1 gap that cannot be bridged: the customer is linked to nobody." in out
    assert not EntitlementOverride.objects.exists()


def test_one_subscriber_with_two_customers(debtor: Debtor) -> None:
    acme = debtor.payer()
    debtor.payer(of=acme.subscriber)
    debtor.attach()
    debtor.settle()
    assert "1 bridge to make" in report("--bridge", "until=30d", "--dry-run", code=2)
    assert "1 bridge made" in report("--bridge", "until=30d", "--yes")
    debtor.payer("enterprise", of=acme.subscriber)
    debtor.settle()
    assert standing() == []
    assert "2 gaps without need: another customer of the subscriber has the key" in report("--bridge", "until=30d")
    assert standing() == []


def test_a_denial_wins(debtor: Debtor, owed: Payer) -> None:
    deny(owed.subscriber, "audit")
    assert "an override denies it, so the answer stays no" in report("--bridge", "until=30d", "--dry-run", code=2)
    report("--bridge", "until=30d", "--yes")
    assert not has_entitlement(owed.subscriber, "audit")
    clear(owed.subscriber, "audit", effect="deny")
    assert has_entitlement(owed.subscriber, "audit")


def test_who_cancels_loses_the_bridge_with_the_next_run(debtor: Debtor, owed: Payer) -> None:
    other = debtor.payer()
    debtor.settle()
    report("--bridge", "until=30d", "--yes")
    debtor.stripe.cancel(owed.subscription)
    debtor.settle()
    report("--bridge", "until=30d", "--yes", "--product", debtor.product)
    report("--bridge", "until=30d", "--yes", "--customer", other.customer)
    assert has_entitlement(owed.subscriber, "audit"), "a run over a part ends nothing"
    out = report("--bridge", "until=30d", "--dry-run", code=2)
    assert f"End the bridge of “audit” for {owed.subscriber} (" in out
    assert has_entitlement(owed.subscriber, "audit")
    assert "0 bridges made, 0 moved, 2 ended." in report("--bridge", "until=30d", "--yes")
    assert not has_entitlement(owed.subscriber, "audit")
    assert effective()[-2:] == ["-audit", "-reports"]


def test_a_grant_by_hand_is_no_bridge(debtor: Debtor, owed: Payer) -> None:
    grant(owed.subscriber, "audit", reason="pilot")
    report("--bridge", "until=30d", "--yes")
    debtor.stripe.cancel(owed.subscription)
    debtor.settle()
    report("--bridge", "until=30d", "--yes")
    assert has_entitlement(owed.subscriber, "audit")
    assert not has_entitlement(owed.subscriber, "reports")


def test_what_is_attached_no_more_is_not_owed(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    for key, left in (("audit", ["reports"]), ("reports", [])):
        debtor.stripe.detach_feature(debtor.product, debtor.shop.features[key])
        debtor.settle()
        report("--bridge", "until=30d", "--yes")
        assert standing() == left


def test_in_doubt_a_bridge_stays(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    debtor.stripe.cancel(owed.subscription)
    debtor.shop.prices["new"] = debtor.shop.plan("new", "audit")  # which the catalogue here does not have
    debtor.shop.subscribe(owed.customer, "new")
    debtor.shop.deliver()
    report("--bridge", "until=30d", "--yes")
    assert standing() == ["reports"], "audit came with the new plan"


def test_a_customer_that_stripe_does_not_know_has_not_cancelled(debtor: Debtor, owed: Payer, settings: Any) -> None:
    report("--bridge", "until=30d", "--yes")
    with StripeSimulator() as other:  # as with the API key of another account
        settings.ENTITLEMENTS_STRIPE_API_BASE = other.url
        report("--bridge", "until=30d", "--yes")
    assert has_entitlement(owed.subscriber, "audit")


def test_stripe_that_fails_ends_no_bridge(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    debtor.stripe.cancel(owed.subscription)
    debtor.settle()
    debtor.stripe.fail_requests(500, times=9, path="/v1/subscriptions")
    with pytest.raises(CommandError, match="HTTP 500"):
        report("--bridge", "until=30d", "--yes")
    assert standing() == ["audit", "reports"]


@pytest.mark.django_db(transaction=True)
def test_a_crash_in_the_middle_is_mended_by_the_next_run(debtor: Debtor, owed: Payer) -> None:
    with refused("reports", "entitlementoverride"), pytest.raises(Exception, match="refused"):
        report("--bridge", "until=30d", "--yes")
    assert standing() == ["audit"]
    assert "1 bridge made" in report("--bridge", "until=30d", "--yes")
    assert standing() == ["audit", "reports"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2026-12-31", "takes until=2026-12-31"),
        ("until=", "takes until=2026-12-31"),
        ("until=soon", "'soon' is no day"),
        ("until=2030-02-30", "'2030-02-30' is no day"),
        ("until=2001-01-01", "until=2001-01-01 is over"),
        ("until=2001-01-01T10:00", "is over"),
        ("until=2099-01-01", "more than two years away"),
        ("until=999999d", "more than two years away"),
        ("until=-3d", "'-3d' is no day"),
    ],
)
def test_an_end_that_is_none(shop: Shop, text: str, problem: str) -> None:
    shop.calls()
    with pytest.raises(CommandError, match=problem):
        report("--bridge", text)
    assert shop.calls() == []


def test_an_end_is_a_day_or_a_moment(debtor: Debtor, owed: Payer) -> None:
    day = timezone.localdate() if site.USE_TZ else timezone.now().date()
    for text, hours in ((f"until={day + 3 * DAY}", 0), ("until=3d", 0), (f"until={day + 4 * DAY}T18:00", 18)):
        report("--bridge", text, "--yes")
        end = EntitlementOverride.objects.filter(lookup_key="audit").get().expires_at
        assert end is not None
        local = timezone.localtime(end) if site.USE_TZ else end
        assert (local.date(), local.hour) == (day + 4 * DAY, hours)


# --- what ends a bridge


def test_an_event_ends_it_and_nobody_is_told_anything(bridged: Any) -> None:
    assert effective() == ["+sso"]
    deliver(summary("cus_acme", "sso"))
    assert standing() == []
    assert has_entitlement(bridged, "sso")
    assert effective() == ["+sso"]


def test_a_fetch_ends_it(debtor: Debtor, owed: Payer) -> None:
    bridge(owed.subscriber, "audit", until=in_days(7))
    debtor.pay(owed)
    sync.sync_customer(Customer.objects.get(stripe_id=owed.customer))
    assert standing() == []
    assert has_entitlement(owed.subscriber, "audit")


def test_the_link_of_a_customer_that_holds_it_ends_it(bridged: Any) -> None:
    deliver(summary("cus_other", "sso"))
    assert standing() == ["sso"]
    link(bridged, "cus_other")
    assert standing() == []
    assert has_entitlement(bridged, "sso")
    assert effective() == ["+sso"]


def test_its_end_ends_it(bridged: Any) -> None:
    with time_machine.travel(in_days(8)):
        assert not has_entitlement(bridged, "sso")


def test_nothing_else_ends_it(bridged: Any) -> None:
    deliver(summary("cus_acme", "audit"))
    deliver(summary("cus_nobody", "sso"))
    other = make_subscriber()
    link(other, "cus_other")
    bridge(other, "sso", until=in_days(7))
    deliver(summary("cus_other", "sso"))
    link(bridged, "cus_live", livemode=True)
    assert standing() == ["sso"]
    assert has_entitlement(bridged, "sso")


def test_a_grant_of_the_other_mode_does_not_end_it(bridged: Any, settings: Any) -> None:
    settings.ENTITLEMENTS_LIVEMODE = True
    link(bridged, "cus_live")
    deliver(webhook_client.summary_updated("cus_live", "sso", created=int(time.time()), livemode=True))
    assert standing() == ["sso"]


def test_it_takes_one_statement_and_only_where_something_is_gained(bridged: Any) -> None:
    def updates(*keys: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            deliver(summary("cus_acme", *keys))
        table = EntitlementOverride._meta.db_table
        return sum(f'UPDATE "{table}"' in query["sql"] for query in queries)

    assert updates("sso", "audit", "export") == 1
    with time_machine.travel(timezone.now() + timedelta(seconds=10)):
        assert updates("sso") == 0


def test_cached_answers_follow(bridged: Any, settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.ENTITLEMENTS_CACHE = "default"
    clear(bridged, "sso")
    assert not has_entitlement(bridged, "sso")
    with transaction.atomic():
        bridge(bridged, "sso", until=in_days(7))
    assert has_entitlement(bridged, "sso")
    deliver(summary("cus_acme", "sso"))
    with time_machine.travel(in_days(8)):
        assert has_entitlement(bridged, "sso")


# --- one bridge


def test_a_key_that_stripe_grants_needs_none(bridged: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    assert bridge(bridged, "sso", until=in_days(7)) is Bridging.NOT_NEEDED
    assert standing() == []


def test_it_is_not_doubled(bridged: Any) -> None:
    until = in_days(9)
    assert bridge(bridged, "sso", until=until) is Bridging.MOVED
    assert bridge(bridged, "sso", until=until) is Bridging.STANDS
    assert EntitlementOverride.objects.get().expires_at == until


def test_a_wrong_key_or_end_is_an_error(bridged: Any) -> None:
    with pytest.raises(UnknownFeature):
        bridge(bridged, "ssso", until=in_days(7))
    with pytest.raises(TypeError, match="no bridge is for good"):
        bridge(bridged, "sso", until=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="until must lie"):
        bridge(bridged, "sso", until=in_days(-1))


def test_the_database_knows_no_bridge_for_good(bridged: Any) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        EntitlementOverride.objects.update(expires_at=None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("_", range(3))
def test_a_grant_that_arrives_while_a_bridge_is_made_ends_it(acme: Any, _: int) -> None:
    Feature.objects.create(stripe_id="feat_test_sso", lookup_key="sso", livemode=False)
    deliver(summary("cus_acme", "audit"))
    event = summary("cus_acme", "sso", "audit", created=int(time.time()) + 1)
    meeting_at("subscriberstate", lambda: bridge(acme, "sso", until=in_days(7)), lambda: deliver(event))
    assert standing() == []
    assert has_entitlement(acme, "sso")
    assert effective() == ["+audit", "+sso"]


# --- what people are told


def test_explanations_call_it_a_bridge(bridged: Any) -> None:
    told = explain(bridged, "sso")
    assert "an override grants it until Stripe grants it, at most until " in told.reason
    assert told.overrides[0].is_bridge
    clear(bridged, "sso")
    lines = [line for paragraph in get_paragraphs(explain(bridged, "sso")) for line in paragraph.lines]
    assert any(line.startswith("bridged it from ") for line in lines)


def test_pages_call_it_a_bridge(bridged: Any) -> None:
    client = staff_for_all(only="view")
    words = "until Stripe grants it, at most until "
    assert words in text_of(client.get(url(EntitlementOverride)))
    assert words in text_of(client.get(url(EntitlementOverride), {"bridge": "1"}))
    assert words not in text_of(client.get(url(EntitlementOverride), {"bridge": "0"}))
    assert words in text_of(client.get(url(Customer, Customer.objects.get().pk, "change")))
    record = text_of(client.get(url(EntitlementOverride, EntitlementOverride.objects.get().pk, "change")))
    assert "It ends by itself when Stripe grants the key to the subscriber in test mode." in record


# --- whose it is


def test_a_bridge_counts_in_its_own_mode_alone(bridged: Any, settings: Any) -> None:
    """What a test card has bought opens no gate in live mode."""
    asks = (
        lambda: has_entitlement(bridged, "sso"),
        lambda: bridged in subscribers_with("sso"),
        lambda: explain(bridged, "sso").entitled,
        lambda: (prefetch_entitlements([bridged]), has_entitlement(bridged, "sso"))[1],
    )
    assert all(ask() for ask in asks)
    settings.ENTITLEMENTS_LIVEMODE = True
    bridged = type(bridged)._default_manager.get(pk=bridged.pk)
    assert not any(ask() for ask in asks)
    assert "bridge, test mode" in text_of(staff_for_all().get(url(EntitlementOverride)))


def test_who_gives_the_customer_away_gives_the_bridge_away(bridged: Any) -> None:
    told = effective()
    link(make_subscriber(), "cus_acme", move=True)
    assert standing() == []
    assert not has_entitlement(bridged, "sso")
    assert effective() == [*told, "-sso"]


def test_with_another_customer_left_the_bridge_stays(bridged: Any) -> None:
    link(bridged, "cus_second")
    unlink("cus_acme")
    assert standing() == ["sso"]
    unlink("cus_second")
    assert standing() == []


def test_with_its_customer_the_bridge_is_gone(bridged: Any) -> None:
    deliver(customer_deleted("cus_acme"))
    assert standing() == []
    assert not has_entitlement(bridged, "sso")


def test_the_report_says_how_much_is_bridged(debtor: Debtor, owed: Payer) -> None:
    report("--bridge", "until=30d", "--yes")
    out = report(code=2)
    assert "Bridged, until Stripe grants what is lacking: 2 of 2." in out
    assert "Bridge it" not in out
    clear(owed.subscriber, "audit")
    out = report(code=2)
    assert "Bridged, until Stripe grants what is lacking: 1 of 2." in out
    assert "--bridge until=" in out
