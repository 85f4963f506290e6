"""The commands, as someone at a terminal or in cron sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from entitlements_app.linking import link
from entitlements_app.models import Customer, Feature, SyncRun
from tests.delivery import deliver, summary
from tests.rows import customer, held, make_subscriber
from tests.shop import Shop

pytestmark = pytest.mark.django_db

# All that need the database, each with arguments that lead there.
NEED_DATABASE = (
    ("entitlements_run",),
    ("entitlements_status",),
    ("entitlements_status", "--json"),
    ("entitlements_sync", "--marked"),
    ("entitlements_sync", "--all"),
    ("entitlements_explain", "1", "sso"),
    ("entitlements_link", "auth.User.username"),
    ("entitlements_catalog", "unused"),
)
TELL = """
import json, sys, django
from django.core.management import CommandError, call_command
django.setup()
told = []
for command in json.loads(sys.argv[1]):
    try:
        call_command(*command)
    except CommandError as error:
        told.append(str(error))
    except Exception as error:
        told.append(f"a traceback: {error!r}")
print(json.dumps(told))
"""


def run(*args: str) -> str:
    out = StringIO()
    call_command(*args, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def cus(shop: Shop) -> str:
    stripe_id = shop.customer()
    link(make_subscriber(), stripe_id)
    return stripe_id


def test_a_lost_webhook_is_repaired_by_hand(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    assert run("entitlements_sync", "--customer", cus) == f"{cus}: +export +sso\n"
    assert held(cus) == {"export", "sso"}
    assert run("entitlements_sync", "--customer", cus, cus) == f"{cus}: no change\n"


def test_what_was_lost_is_named_too(shop: Shop, cus: str) -> None:
    subscription = shop.subscribe(cus, "enterprise")
    run("entitlements_sync", "--customer", cus)
    shop.stripe.change_plan(subscription, shop.prices["reports"])
    moved = "+reports -audit -export -sso (no event had told; likely cause: unknown)"
    assert run("entitlements_sync", "--customer", cus) == f"{cus}: {moved}\n"


def test_an_unknown_customer_stops_the_command_before_any_call(shop: Shop, cus: str) -> None:
    shop.calls()
    with pytest.raises(CommandError, match="Not known in test mode: 'cus_typo'"):
        run("entitlements_sync", "--customer", cus, "cus_typo")
    assert shop.calls() == []


def test_a_deleted_customer_is_told(shop: Shop, cus: str) -> None:
    shop.stripe.delete_customer(cus)
    run("entitlements_sync", "--customer", cus)
    shop.subscribe(other := shop.customer(), "pro")
    link(make_subscriber(), other)
    Customer.objects.filter(stripe_id=cus).update(deleted_at=timezone.now(), next_fetch_at=None)
    assert "deleted" in run("entitlements_sync", "--customer", cus)


def test_marked_customers_are_fetched_now_and_stay_marked(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    assert "1 answered, 1 of them changed something, 0 failed" in run("entitlements_sync", "--marked")
    assert held(cus) == {"export", "sso"}
    assert customer(cus).hinted_at is not None


def test_a_failure_is_a_command_error(shop: Shop, cus: str) -> None:
    shop.stripe.fail_requests(500, times=2)
    with pytest.raises(CommandError, match="HTTP 500"):
        run("entitlements_sync", "--customer", cus)
    with pytest.raises(CommandError, match="HTTP 500"):
        run("entitlements_sync", "--marked")


def test_the_catalogue_is_read_by_hand_and_what_changed_is_told(shop: Shop) -> None:
    said = run("entitlements_sync", "--catalog").splitlines()
    product, sso = shop.prices["pro"]["product"], shop.features["sso"]["id"]
    assert said[0].startswith("new feature audit (feat_")
    assert f"new product pro ({product})" in said
    assert f"attached feature sso ({sso}), product pro ({product})" in said
    assert said[-1] == "Catalogue: 4 features, 3 products, 13 changes, 6 calls."
    assert run("entitlements_sync", "--catalog") == "Catalogue: 4 features, 3 products, 0 changes, 6 calls.\n"
    shop.stripe.fail_requests(500)
    with pytest.raises(CommandError, match="HTTP 500"):
        run("entitlements_sync", "--catalog")


def test_a_dry_run_of_the_catalogue_tells_and_writes_nothing(shop: Shop) -> None:
    said = run("entitlements_sync", "--catalog", "--dry-run").splitlines()
    assert said[0].startswith("new feature audit (feat_")
    assert said[-2:] == ["Catalogue: 4 features, 3 products, 13 changes, 6 calls.", "Nothing was written."]
    assert not Feature.objects.exists()
    assert not SyncRun.objects.exists()


def test_a_run_goes_on_without_the_catalogue(shop: Shop, cus: str) -> None:
    shop.subscribe(cus, "pro")
    shop.stripe.fail_requests(500, path="/v1/products")
    said = run("entitlements_run", "--verbosity", "0")
    assert said.startswith("The catalogue was not read. Stripe has trouble")
    assert held(cus) == {"export", "sso"}


@pytest.mark.parametrize("which", [["--marked"], ["--catalog"], ["--customer", "cus_1"]])
def test_without_a_key_the_sync_says_so(which: list[str]) -> None:
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY"):
        run("entitlements_sync", *which)


@pytest.mark.parametrize("args", [[], ["--marked", "--customer", "cus_1"], ["--customer"]])
def test_it_must_be_said_what_to_sync(args: list[str]) -> None:
    with pytest.raises(CommandError):
        run("entitlements_sync", *args)


def test_a_run_with_nothing_to_do_says_so(shop: Shop) -> None:
    assert run("entitlements_run") == (
        "Webhook events: 0 taken.\n"
        "Changes that waited: 0 delivered, 0 failed, 0 parked.\n"
        "Starts and ends of overrides: of 0 subscriber(s), 0 failed.\n"
        "Events API: 0 found that had not come, 1 call(s).\n"
        "Catalogue: 4 features, 3 products, 13 changes, 6 calls.\n"
        "Fetches: 0 answered, 0 of them changed something, 0 failed.\n"
        "Counted for the overview: 4 feature(s), changes of 30 day(s).\n"
    )
    assert "\nEvents API: not due.\nCatalogue: not due.\n" in run("entitlements_run")


def test_a_run_takes_all_that_is_due(shop: Shop) -> None:
    customers = [shop.customer() for _ in range(5)]
    for stripe_id in customers:
        link(make_subscriber(), stripe_id)
        shop.subscribe(stripe_id, "pro")
    assert "5 answered, 5 of them changed something" in run("entitlements_run")
    assert all(held(stripe_id) == {"export", "sso"} for stripe_id in customers)


@pytest.mark.parametrize("command", [["entitlements_run"], ["entitlements_sync", "--marked"]])
def test_what_a_restricted_key_lacks_is_told(command: list[str], shop: Shop, cus: str, caplog: Any) -> None:
    shop.stripe.fail_requests(403, path="/v1/entitlements/active_entitlements")
    with pytest.raises(CommandError, match="must be allowed to read Entitlements and Customers"):
        run(*command)
    [alarm] = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert "must be allowed to read Entitlements and Customers. Nothing is fetched until" in alarm


def test_while_calls_are_stopped_a_run_fails_even_if_nothing_is_due(shop: Shop, cus: str) -> None:
    shop.stripe.fail_requests(401)
    with pytest.raises(CommandError, match="refused the API key"):
        run("entitlements_run")
    Customer.objects.update(next_fetch_at=timezone.now() + timedelta(days=1))
    with pytest.raises(CommandError, match="--resume"):
        run("entitlements_run")
    run("entitlements_run", "--resume")


def test_resume_without_a_stop_is_no_error(shop: Shop) -> None:
    assert "were not stopped" in run("entitlements_run", "--resume")


def test_a_quiet_run_says_nothing_unless_there_is_a_problem(shop: Shop, cus: str) -> None:
    assert run("entitlements_run", "--verbosity", "0") == ""
    Customer.objects.update(next_fetch_at=timezone.now())
    shop.stripe.fail_requests(500)
    assert "HTTP 500" in run("entitlements_run", "--verbosity", "0")


@pytest.mark.parametrize("command", [["entitlements_run"], ["entitlements_sync", "--marked"]])
def test_a_malformed_setting_is_a_command_error_before_any_work(command: list[str], settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_API_KEY = "hello"
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_API_KEY"):
        run(*command)


def test_a_rate_of_nothing_is_told_even_when_nothing_is_due(settings: Any) -> None:
    settings.ENTITLEMENTS_STRIPE_RATE = 0
    with pytest.raises(CommandError, match="ENTITLEMENTS_STRIPE_RATE"):
        run("entitlements_run")


def test_a_customer_that_stripe_lost_is_told(shop: Shop) -> None:
    link(make_subscriber(), "cus_lost")
    assert "does not know it" in run("entitlements_sync", "--customer", "cus_lost")


def test_a_run_without_a_key_still_processes_events(acme: Any) -> None:
    deliver(summary("cus_acme", "sso"))
    assert "ENTITLEMENTS_STRIPE_API_KEY is not set" in run("entitlements_run")


def told_with(database: Path) -> list[str]:
    """What each command says in a process with that file as its database."""
    done = subprocess.run(
        [sys.executable, "-c", TELL, json.dumps(NEED_DATABASE)],
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TEST_DATABASE": "sqlite",
            "TEST_SUBSCRIBER": "user",
            "TEST_SERVER_DATABASE": str(database),
            "TEST_SERVER_API_KEY": "sk_test_1",
        },
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    told: list[str] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.once
def test_before_the_first_migrate_each_command_says_what_to_do(tmp_path: Path) -> None:
    for command, told in zip(NEED_DATABASE, told_with(tmp_path / "new.sqlite3"), strict=True):
        assert told.startswith("Run `manage.py migrate` first. Not applied: entitlements_app.0001_initial, "), (
            f"{command}: {told}"
        )
        assert " more. (no such table: " in told


def test_inside_a_transaction_the_error_is_what_it_was() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE entitlements_app_webhookevent RENAME TO elsewhere")
        with pytest.raises(DatabaseError, match="entitlements_app_webhookevent"):
            run("entitlements_status")
        transaction.set_rollback(True)


@pytest.mark.once
def test_a_database_that_cannot_be_opened_is_no_traceback(tmp_path: Path) -> None:
    for command, told in zip(NEED_DATABASE, told_with(tmp_path / "nowhere" / "db.sqlite3"), strict=True):
        assert told == "The database cannot be used. unable to open database file", f"{command}: {told}"
