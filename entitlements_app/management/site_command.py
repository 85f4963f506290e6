"""What a command says of a site that it cannot work on: malformed settings, no database, or no tables yet."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections, router
from django.db.migrations.executor import MigrationExecutor

from entitlements_app.models import Customer

NAMED = 5  # migrations; a new site lacks dozens


class SiteCommand(BaseCommand):
    """A command that needs the site's settings and tables. What is wrong with them is told by a `CommandError`."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            try:
                missing = _find_missing()
            except DatabaseError:
                raise CommandError(f"The database cannot be used. {error}") from error
            if not missing:
                raise
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise CommandError(
                f"Run `manage.py migrate` first. Not applied: {', '.join(missing[:NAMED])}{more}. ({error})"
            ) from error


def _find_missing() -> list[str]:
    """The migrations that are not applied, ours first. Raises `DatabaseError`.

    None is found inside a caller's transaction, which after an error answers nothing.
    """
    connection = connections[router.db_for_write(Customer)]
    if connection.in_atomic_block:
        return []
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    ours = Customer._meta.app_label
    return [str(migration) for migration, _ in sorted(plan, key=lambda step: step[0].app_label != ours)]
