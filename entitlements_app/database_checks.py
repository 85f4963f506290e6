"""System checks that ask the database: `manage.py check --database default`, and every `migrate`. Ids: see checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  (Django's own name)
from django.db import DatabaseError, connections, router

from . import beside_djstripe, conf
from .models import Customer, Feature
from .subscribers import get_subscriber_model

# What Entitlements itself means by `e.…`; `e["…"]` reaches a feature of that name all the same.
RESERVED_KEYS = ("as_of", "has_all", "has_any", "metadata")


def check_database(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for alias in databases or ():
        if router.allow_migrate_model(alias, Customer):
            try:
                found += [*_other_subscribers(alias), *_isolation(alias), *_reserved_keys(alias)]
            except DatabaseError:  # before the first migrate
                continue
    return found


def _other_subscribers(alias: str) -> Iterator[CheckMessage]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        relations = connection.introspection.get_relations(cursor, Customer._meta.db_table)
    relation = relations.get(Customer._meta.get_field("subscriber").column)
    table = relation[1] if relation else None  # of a pair, from Django 6.1 on of three
    expected = get_subscriber_model()._meta.db_table.split('"')[-1]  # without a schema put in by hand
    if table is not None and table != expected:
        setting = conf.read("ENTITLEMENTS_SUBSCRIBER_MODEL").name
        back = "Set it back"
        if setting != "ENTITLEMENTS_SUBSCRIBER_MODEL":
            back = f"Take {beside_djstripe.APP}, which has it read, out of INSTALLED_APPS again"
        yield Error(
            f"{setting} is another model than at the first migrate: the tables hold keys of {table}, "
            f"and would give its rows' access to the rows of {expected} with the same keys.",
            hint=f"{back}. To change it, do so all the same: then unlink all customers, migrate entitlements_app zero, "
            "change it, and migrate again.",
            id="entitlements_app.E005",
        )


def _isolation(alias: str) -> Iterator[CheckMessage]:
    if connections[alias].vendor != "postgresql":
        return
    with connections[alias].cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        level = cursor.fetchone()[0]
    if level != "read committed":
        yield Warning(
            f'Transactions of the database "{alias}" are {level}: events of one subscriber that arrive together '
            "fail and are tried again, instead of waiting for each other.",
            hint="Leave PostgreSQL's isolation level at READ COMMITTED for this database.",
            id="entitlements_app.W009",
        )


def _reserved_keys(alias: str) -> Iterator[CheckMessage]:
    rows = Feature.objects.using(alias).filter(lookup_key__in=RESERVED_KEYS)
    for key in sorted(set(rows.values_list("lookup_key", flat=True))):
        yield Warning(
            f"A feature has the lookup key {key!r}, and entitlements.{key} means something else.",
            hint=f'Ask for it as entitlements["{key}"], or give the feature another lookup key.',
            id="entitlements_app.W006",
        )
