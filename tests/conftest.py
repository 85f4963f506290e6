from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from entitlements_app import cache, dispatch, known_features
from entitlements_app.linking import link
from entitlements_app.testing import StripeSimulator
from tests import databases, valkey
from tests.delivery import SECRET
from tests.rows import make_subscriber
from tests.shop import Shop

# `make test` runs in several set-ups. TEST_WITHOUT names the groups of tests that say nothing new in one of them.
GATES = (
    "tests/contrib/",
    "tests/test_beside_djstripe.py",
    "tests/test_checks.py",
    "tests/test_denials.py",
    "tests/test_gated_urls.py",
    "tests/test_gates.py",
    "tests/test_identity.py",
    "tests/test_override_entitlements.py",
    "tests/test_private_responses.py",
    "tests/test_swallowed_errors.py",
    "tests/test_unknown_features.py",
    "tests/test_unused_keys.py",
)
GROUPS = {
    # Not about our database, but for the tests in them that use it.
    "once": (
        "tests/legacy/",
        "tests/simulator/",
        "tests/test_conf.py",
        "tests/test_docs.py",
        "tests/test_example_project.py",
        "tests/test_packaging.py",
        "tests/test_quick_start.py",
        "tests/test_testing_page.py",
        "tests/test_windows.py",
    ),
    # They ask one question of the database, and neither plan nor compare a time of ours.
    "gates": GATES,
    # How a gate says no, and to whom; the question it asked before is that of tests/test_gates.py.
    "refusals": (
        "tests/test_denials.py",
        "tests/test_gated_urls.py",
        "tests/test_private_responses.py",
        "tests/test_swallowed_errors.py",
    ),
    # They read files of the site, and of the database the keys that there are.
    "files": ("tests/test_catalog_file.py", "tests/test_unused_keys.py"),
    # How Stripe and a catalogue differ, and what becomes of a call that Stripe refuses, loses or half answers: the
    # answer decides. Where a lock does, the test is marked postgresql, and stays.
    "calls": (
        "tests/test_catalog_command.py",
        "tests/test_catalog_edits.py",
        "tests/test_catalog_trouble.py",
        "tests/test_feature_metadata.py",
        "tests/test_fetching_troubles.py",
    ),
    # What is forced asks the database nothing: here stand all gates once more.
    "forced": tuple(
        f"tests/test_override_entitlements.py::{name}"
        for name in ("test_a_gate_before_a_view", "test_a_page_that_asks", "test_a_permission", "test_an_api")
    ),
    # Every order of things is tried until one breaks a promise; that takes its time.
    "searches": ("tests/test_state_machine.py", "tests/test_explorer.py", "tests/test_catalog_machine.py"),
    # What a crowd or a kill leaves behind is up to the locks and commits of the database.
    "crowds": ("tests/test_races.py", "tests/test_running_server.py"),
    # Sites that need workers, or have thousands of customers, have PostgreSQL.
    "programs": (
        "tests/soak/",
        "tests/test_admin_size.py",
        "tests/test_big_tables.py",
        "tests/test_fetching.py",
        "tests/test_sync_command.py",
        "tests/test_workers.py",
    ),
    # A killed server: the soak kills one on PostgreSQL, with everything else.
    "kills": ("tests/test_running_server.py",),
    # They neither plan nor compare a time.
    "timeless": (
        "tests/test_access.py",
        "tests/test_admin.py",
        "tests/test_admin_catalogue_edits.py",
        "tests/test_admin_entitlements.py",
        "tests/test_admin_explain.py",
        "tests/test_admin_inbox.py",
        "tests/test_admin_search.py",
        "tests/test_admin_size.py",
        "tests/test_beside_djstripe.py",
        "tests/test_catalog_command.py",
        "tests/test_catalog_edits.py",
        "tests/test_catalog_file.py",
        "tests/test_catalog_trouble.py",
        "tests/test_feature_metadata.py",
        "tests/test_fetching_troubles.py",
        "tests/test_link_command.py",
        "tests/test_linking.py",
        "tests/test_many_at_once.py",
        "tests/test_models.py",
        "tests/test_readme.py",
        "tests/test_site_links.py",
        "tests/test_transactions.py",
        "tests/test_webhook_client.py",
    ),
    # They plan or compare times, and take long: on SQLite without time zones, on PostgreSQL with them.
    "timed": (
        "tests/test_admin_changes.py",
        "tests/test_admin_customer.py",
        "tests/test_admin_overrides.py",
        "tests/test_admin_overview.py",
        "tests/test_boundaries.py",
        "tests/test_bridges.py",
        "tests/test_catalog_sync.py",
        "tests/test_checkout_return.py",
        "tests/test_counts.py",
        "tests/test_drift.py",
        "tests/test_explain.py",
        "tests/test_gaps.py",
        "tests/test_poll.py",
        "tests/test_provisioning.py",
        "tests/test_purge.py",
        "tests/test_status.py",
        "tests/test_sync.py",
    ),
    # What a cache does depends on when transactions commit, not on whose answers it holds or on time zones.
    "cache": ("tests/test_cache.py",),
    # Whoever the subscriber is, deliveries are refused and stored alike, and a broker is as dead.
    "deliveries": (
        "tests/test_webhooks.py",
        "tests/test_strange_answers.py",
        "tests/test_budget.py",
        "tests/test_dead_brokers.py",
    ),
}


def pytest_xdist_auto_num_workers() -> int:
    """Much of a run is waiting, for servers and for locks: two more than there are cores."""
    return 2 + (os.cpu_count() or 1)


# A run keeps some million objects until it ends. To look at them again and again for garbage is a fifth of its CPU.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is collected stays until the end."""
    gc.collect()
    gc.freeze()


LEFT_OUT = [group for group in os.environ.get("TEST_WITHOUT", "").split(",") if group]
IN_PART = {"calls", "once", "timed"}  # of whose files some tests stay


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that is left out whole is not even read. `None`: that is for others to say."""
    whole = {path.rstrip("/") for group in LEFT_OUT if group not in IN_PART for path in GROUPS[group]}
    return True if os.path.relpath(collection_path, config.rootpath) in whole else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(_is_in(item, group) for group in LEFT_OUT)]
    config.hook.pytest_deselected(items=left_out)
    out = set(left_out)
    items[:] = [item for item in items if item not in out]


def _is_in(item: pytest.Item, group: str) -> bool:
    if group in IN_PART and item.get_closest_marker("once"):
        return group == "once"
    if group == "calls" and item.get_closest_marker("postgresql"):
        return False
    uses_database = group == "once" and item.get_closest_marker("django_db")
    return item.nodeid.startswith(GROUPS[group]) and not uses_database


def pytest_configure() -> None:
    if django_settings.DATABASE == "sqlite":
        django_settings.SCRATCH.mkdir(exist_ok=True)


def pytest_unconfigure() -> None:
    """Not `atexit`: a worker of pytest-xdist ends without it."""
    valkey.stop()
    if django_settings.DATABASE == "sqlite":
        shutil.rmtree(django_settings.SCRATCH, ignore_errors=True)
    elif not databases.SHARED:
        from tests import postgres

        postgres.drop(databases.name_of(os.getpid()))


@pytest.fixture(scope="session")
def _original(tmp_path_factory: pytest.TempPathFactory) -> databases.Original | None:
    return databases.Original(tmp_path_factory.getbasetemp().parent) if databases.SHARED else None


@pytest.fixture(scope="session")
def django_db_modify_db_settings(_original: databases.Original | None) -> None:
    """Where pytest-django leaves a place for what is to be done before it makes a database."""
    if _original and _original.exists:
        _original.copy(django_settings.DATABASES["default"]["TEST"])


@pytest.fixture(scope="session")
def django_db_keepdb(_original: databases.Original | None, django_db_keepdb: bool) -> bool:
    """A copied file is not made anew; it goes with its folder."""
    return django_db_keepdb or bool(_original and _original.exists and django_settings.DATABASE == "sqlite")


@pytest.fixture(scope="session")
def django_db_setup(_original: databases.Original | None, django_db_setup: None, django_db_blocker: Any) -> None:
    if _original:
        with django_db_blocker.unblock():
            _original.shared()


@pytest.fixture(autouse=True)
def _only_where_locks_are(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("postgresql") and django_settings.DATABASE != "postgresql":
        pytest.skip("about row locks: runs on PostgreSQL")


@pytest.fixture(autouse=True)
def _like_a_new_process() -> None:
    known_features.forget()
    cache.forget()
    dispatch.forget()


@pytest.fixture
def stripe(settings: Any) -> Iterator[StripeSimulator]:
    """A simulated Stripe that the app is configured to ask."""
    with StripeSimulator(webhook_secret=SECRET) as simulator:
        settings.ENTITLEMENTS_STRIPE_API_KEY = simulator.api_key
        settings.ENTITLEMENTS_STRIPE_API_BASE = simulator.url
        settings.ENTITLEMENTS_STRIPE_RATE = 1000
        yield simulator


@pytest.fixture
def acme(db: None) -> Any:
    """A subscriber whose customer is cus_acme, linked and not seen by Stripe yet."""
    subscriber = make_subscriber()
    link(subscriber, "cus_acme")
    return subscriber


@pytest.fixture
def shop(stripe: StripeSimulator) -> Shop:
    """The simulated Stripe with plans to subscribe to."""
    return Shop(stripe)


@pytest.fixture
def queue(settings: Any) -> Iterator[Any]:
    """The site hands work to Celery over an empty broker, which is also its cache; a client to look into it."""
    from redis import Redis

    from tests.celery_app import app

    settings.ENTITLEMENTS_STRIPE_API_KEY = "sk_test_1"
    settings.ENTITLEMENTS_STRIPE_API_BASE = "http://127.0.0.1:1"
    settings.ENTITLEMENTS_WEBHOOK_PROCESSING = "celery"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": valkey.url()}}
    settings.ENTITLEMENTS_CACHE = "default"
    app.conf.broker_url = valkey.broker_url()
    with Redis.from_url(valkey.url()) as client:
        client.flushall()
        client.config_resetstat()
        yield client
