"""Who is in the tests, and what our rows say of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from entitlements_app import conf
from entitlements_app.models import Customer, EntitlementChange, SyncRun
from tests.testapp.models import Organisation

BY_ORGANISATION = settings.SUBSCRIBER == "organisation"

_names = (f"subscriber-{number}" for number in itertools.count())


def make_subscriber() -> Any:
    """Whoever pays in this set-up: a user, or an organisation with one member."""
    user = User.objects.create_user(next(_names))
    if not BY_ORGANISATION:
        return user
    organisation = Organisation.objects.create(name=user.username)
    organisation.members.add(user)
    return organisation


def visitor_of(subscriber: Any) -> User:
    """The user who signs in for a subscriber."""
    return subscriber.members.get() if BY_ORGANISATION else subscriber


def customer(stripe_id: str = "cus_acme") -> Customer:
    return Customer.objects.get(stripe_id=stripe_id, livemode=False)


def held(stripe_id: str = "cus_acme") -> set[str]:
    """The lookup keys that our rows give a customer."""
    return set(customer(stripe_id).active_entitlements.values_list("lookup_key", flat=True))


def polled() -> None:
    """As after a poll of the Events API: the next one is not due."""
    SyncRun.objects.create(kind=SyncRun.Kind.BACKFILL, livemode=False, finished_at=timezone.now())


def log(**filters: Any) -> list[tuple[str, str, str, bool]]:
    """The change log as (kind, key, cause, effective)."""
    rows = EntitlementChange.objects.filter(**filters).order_by("pk")
    return list(rows.values_list("kind", "lookup_key", "cause", "effective"))


def effective() -> list[str]:
    """Effective changes as +key and -key."""
    rows = EntitlementChange.objects.filter(effective=True).order_by("pk")
    return [("+" if row.kind == "granted" else "-") + row.lookup_key for row in rows]


def catalogue_is_read() -> None:
    """So that a pass asks Stripe about customers only."""
    kind = SyncRun.Kind.CATALOG
    if not SyncRun.objects.filter(kind=kind, livemode=conf.livemode()).exists():
        SyncRun.objects.create(kind=kind, livemode=conf.livemode(), finished_at=timezone.now())


def replay(changes: Iterable[EntitlementChange]) -> set[str]:
    """The keys that are left of these changes, in their order, each of which has to change something."""
    keys: set[str] = set()
    for change in changes:
        assert (change.kind == "granted") != (change.lookup_key in keys), f"{change} tells nothing new"
        keys ^= {change.lookup_key}
    return keys


@contextmanager
def broken_processing() -> Iterator[None]:
    """The database refuses what processing would write, as it does when a disk is full."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE entitlements_app_activeentitlement RENAME TO out_of_the_way")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE out_of_the_way RENAME TO entitlements_app_activeentitlement")


@contextmanager
def refused(lookup_key: str, table: str = "activeentitlement") -> Iterator[None]:
    """The database refuses to store that anybody holds this key, or another row about it."""
    table, when = f"entitlements_app_{table}", f"WHEN (NEW.lookup_key = '{lookup_key}')"
    begin = f"CREATE TRIGGER refusing BEFORE INSERT ON {table} FOR EACH ROW {when}"
    if connection.vendor == "sqlite":
        create = [f"{begin} BEGIN SELECT RAISE(ABORT, 'refused'); END"]
        drop = ["DROP TRIGGER refusing"]
    else:
        body = "BEGIN RAISE EXCEPTION 'refused'; END"
        create = [
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$",
            f"{begin} EXECUTE FUNCTION refuse()",
        ]
        drop = [f"DROP TRIGGER refusing ON {table}", "DROP FUNCTION refuse()"]
    with connection.cursor() as cursor:
        for statement in create:
            cursor.execute(statement)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            for statement in drop:
                cursor.execute(statement)
