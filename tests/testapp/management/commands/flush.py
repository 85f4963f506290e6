"""`flush` after each test that commits. Django's own makes anew what no test changed, and each file of PostgreSQL's."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.core.management.commands import flush
from django.db import connection, transaction

MADE_BY_MIGRATE = (ContentType, Permission)
SMALL = 256 * 1024  # bytes; what is larger is truncated, or later tests would step over the rows that are gone
_as_made: list[list[tuple[Any, ...]]] = []


class Command(flush.Command):
    """Leaves content types and permissions as they are, or has Django make them anew if they changed."""

    def handle(self, **options: Any) -> None:
        if not _as_made or _rows() != _as_made:
            super().handle(**options)
            _as_made[:] = _rows()
            return
        kept = {model._meta.db_table for model in MADE_BY_MIGRATE}
        tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - kept
        _empty(sorted(tables))


def _rows() -> list[list[tuple[Any, ...]]]:
    return [list(model.objects.order_by("pk").values_list()) for model in MADE_BY_MIGRATE]


def _empty(tables: list[str]) -> None:
    if connection.vendor != "postgresql" or _largest(tables) > SMALL:
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(";".join(f'DELETE FROM "{table}"' for table in tables))


def _largest(tables: list[str]) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(pg_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name", [tables])
        return int(cursor.fetchone()[0])
