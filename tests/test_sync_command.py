"""`entitlements_sync --all`, `--marked`, `--dry-run`: many customers, by hand."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from entitlements_app.linking import link
from entitlements_app.models import Customer, EntitlementChange, SyncRun
from entitlements_app.testing import StripeSimulator
from tests.rows import customer, held, make_subscriber
from tests.server import Server
from tests.shop import Shop
from tests.threads import together
from tests.workers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/v1/entitlements/active_entitlements"


@pytest.fixture
def crowd(shop: Shop) -> list[str]:
    """Twelve customers who hold `sso` and `export` at Stripe, of which we know nothing yet."""
    ids = [shop.customer() for _ in range(12)]
    for stripe_id in ids:
        shop.subscribe(stripe_id, "pro")
        link(make_subscriber(), stripe_id)
    shop.calls()
    return ids


def run(*args: str) -> str:
    out = StringIO()
    call_command("entitlements_sync", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def asked(shop: Shop) -> int:
    return shop.calls().count(LIST)


def asked_so_far(shop: Shop) -> int:
    return sum(request.path == LIST for request in shop.stripe.requests)


def test_all_customers_are_fetched_once_and_the_run_is_on_record(shop: Shop, crowd: list[str]) -> None:
    out = run("--all")
    assert "12 customer(s): about 12 call(s), at least 1 s at 1000 a second" in out
    assert f"{crowd[0]}: +export +sso" in out
    assert "Fetches: 12 answered, 12 of them changed something, 0 failed." in out
    assert asked(shop) == 12
    assert all(held(stripe_id) == {"sso", "export"} for stripe_id in crowd)
    finished = SyncRun.objects.get(kind="all")
    assert (finished.total, finished.done, finished.changed, finished.calls, finished.error) == (12, 12, 12, 12, "")
    assert finished.finished_at is not None


def test_a_dry_run_tells_what_would_change_and_writes_nothing(shop: Shop, crowd: list[str]) -> None:
    before = list(Customer.objects.order_by("pk").values())
    for which in (["--all"], ["--marked"], ["--customer", *crowd]):
        out = run(*which, "--dry-run")
        assert out.count(": +export +sso") == 12
        assert "12 of them would change something" in out
        assert "Nothing was written." in out
    assert list(Customer.objects.order_by("pk").values()) == before
    assert not EntitlementChange.objects.exists()
    assert not SyncRun.objects.filter(kind="all").exists()
    assert asked(shop) == 36


def test_an_interrupted_run_goes_on_where_it_was(shop: Shop, crowd: list[str], settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 8

    def trouble() -> None:
        while asked_so_far(shop) < 4:
            time.sleep(0.02)
        shop.stripe.fail_requests(500, times=50)

    def sync() -> None:
        with pytest.raises(CommandError, match="HTTP 500"):
            run("--all")

    together(trouble, sync)
    shop.stripe.clear_faults()
    broken_off = SyncRun.objects.get(kind="all")
    done = Customer.objects.exclude(fetched_at=None).count()
    assert 0 < done < 12
    assert (broken_off.done, broken_off.changed, "HTTP 500" in broken_off.error) == (done, done, True)
    assert broken_off.failed >= 3
    assert broken_off.calls >= done + 3
    shop.calls()
    settings.ENTITLEMENTS_STRIPE_RATE = 1000
    out = run("--all")
    assert "Going on with the run of" in out
    assert f"{12 - done} customer(s)" in out
    assert asked(shop) == 12 - done
    assert "12 customer(s)" in run("--all"), "that one had succeeded: this is the next"


def test_interrupted_by_hand_it_says_so_and_goes_on_the_next_time(
    shop: Shop, crowd: list[str], stripe: StripeSimulator
) -> None:
    process = Server(stripe, TEST_SERVER_RATE="6").popen("entitlements_sync", "--all")
    wait_until(lambda: Customer.objects.exclude(fetched_at=None).count() > 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert SyncRun.objects.get(kind="all").error == "Interrupted."
    rest = Customer.objects.filter(fetched_at=None).count()
    assert 0 < rest < 12
    assert f"{rest} customer(s)" in run("--all")


def test_without_customers_there_is_nothing_to_ask(stripe: StripeSimulator) -> None:
    for which in ("--all", "--marked"):
        assert run(which) == "No customers to ask about.\n"


def test_restart_begins_anew(shop: Shop, crowd: list[str]) -> None:
    SyncRun.objects.create(kind="all", livemode=False, finished_at=timezone.now(), error="Interrupted")
    Customer.objects.filter(stripe_id__in=crowd[:5]).update(fetched_at=timezone.now())
    assert "7 customer(s)" in run("--all", "--dry-run")
    assert "12 customer(s)" in run("--all", "--dry-run", "--restart")
    with pytest.raises(CommandError, match="--restart goes with --all"):
        run("--marked", "--restart")


def test_two_runs_at_once_are_refused_until_the_first_is_dead(shop: Shop, crowd: list[str]) -> None:
    first = SyncRun.objects.create(kind="all", livemode=False)
    with pytest.raises(CommandError, match="Another run of --all is at work"):
        run("--all")
    SyncRun.objects.update(seen_at=timezone.now() - timedelta(minutes=6))
    run("--all")
    first.refresh_from_db()
    assert "killed" in first.error


def test_deleted_customers_are_left_alone_and_unknown_ones_are_told(shop: Shop, crowd: list[str]) -> None:
    Customer.objects.filter(stripe_id=crowd[0]).update(deleted_at=timezone.now(), next_fetch_at=None)
    link(make_subscriber(), "cus_of_another_account")
    out = run("--all")
    assert crowd[0] not in out
    assert "cus_of_another_account: Stripe does not know it in this account and mode" in out
    assert customer(crowd[1]).fetched_at is not None


def test_killed_with_signal_9_it_goes_on_where_it_was(shop: Shop, crowd: list[str], stripe: StripeSimulator) -> None:
    server = Server(stripe, TEST_SERVER_RATE="6")
    process = server.popen("entitlements_sync", "--all")
    while Customer.objects.exclude(fetched_at=None).count() < 3:
        assert process.poll() is None
    process.kill()
    process.wait()
    done = Customer.objects.exclude(fetched_at=None).count()
    assert done < 12
    SyncRun.objects.filter(kind="all").update(seen_at=timezone.now() - timedelta(minutes=6))
    assert f"{12 - done} customer(s)" in run("--all")
    assert all(held(stripe_id) == {"sso", "export"} for stripe_id in crowd)
