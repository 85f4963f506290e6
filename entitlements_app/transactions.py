"""How this app opens a write: on the primary database, with a write first, tried again after a deadlock.

And how it lets a connection go while it waits for something else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from django.db import IntegrityError, OperationalError, connections, models, router, transaction

from . import conf
from .models import Customer

_M = TypeVar("_M", bound=models.Model)
_T = TypeVar("_T")
_View = TypeVar("_View", bound=Callable[..., Any])

TRIES = 3
TRIES_OF_ONE_ROW = 10  # that all workers write
# deadlock detected, serialisation failure
_TRANSIENT_SQLSTATES = ("40P01", "40001")


def alias() -> str:
    """The database that this app writes to. Its tables live in one."""
    return router.db_for_write(Customer)


def primary(model: type[_M]) -> models.QuerySet[_M]:
    """All rows, read where they are written: what decides a write is never read from a replica."""
    return model._default_manager.using(alias())


def own(model: type[_M]) -> models.QuerySet[_M]:
    """All rows of the own account in the configured mode, which gates see and whose key calls Stripe."""
    return primary(model).filter(account="", livemode=conf.livemode())


def write(work: Callable[[], _T]) -> _T:
    """Run `work` in a transaction that writes before it reads.

    A deadlock, a serialisation failure or SQLite's "locked" is tried three times in all. Inside a caller's `atomic`
    it is raised at once, since the caller's statements would have to be repeated too.
    """
    return _tried(lambda: _once(work))


def insert(row: models.Model) -> bool:
    """Insert a row unless one is there that it conflicts with. Returns whether it was; then it has its primary key.

    In one statement and, outside of a caller's `atomic`, without a transaction around it. Not by a failing `INSERT`:
    PostgreSQL would log each with all that the row holds.
    """
    connection = connections[alias()]
    if connection.vendor not in ("postgresql", "sqlite") or not connection.features.can_return_columns_from_insert:
        return _insert_or_fail(row)
    fields = [field for field in row._meta.concrete_fields if not field.primary_key]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    values = [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in fields]
    table, pk = map(connection.ops.quote_name, (row._meta.db_table, str(row._meta.pk.column)))
    sql = (
        f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(values))}) "  # noqa: S608  (names, quoted)
        f"ON CONFLICT DO NOTHING RETURNING {pk}"
    )

    def work() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            inserted = cursor.fetchall()
        if inserted:
            row.pk = inserted[0][0]
            row._state.adding, row._state.db = False, alias()
        return bool(inserted)

    return _tried(work)


def _insert_or_fail(row: models.Model) -> bool:
    try:
        with transaction.atomic(using=alias()):
            row.save(using=alias(), force_insert=True)
    except IntegrityError:
        return False
    return True


def update(rows: models.QuerySet[Any], **values: Any) -> int:
    """Write these values in one statement, tried again like `write`. Returns in how many rows.

    Above READ COMMITTED the database refuses all but the first of those that meet in a row, so it is tried more often.
    """
    meets = connections[alias()].features.has_select_for_update  # elsewhere each try has waited long
    return _tried(lambda: rows.update(**values), tries=TRIES_OF_ONE_ROW if meets else TRIES)


def _tried(work: Callable[[], _T], *, tries: int = TRIES) -> _T:
    if connections[alias()].in_atomic_block:
        return work()
    for attempt in range(1, tries):
        try:
            return work()
        except OperationalError as error:
            if not _is_transient(error):
                raise
            time.sleep(random.uniform(0.01, 0.05) * attempt)
    return work()


def _once(work: Callable[[], _T]) -> _T:
    with transaction.atomic(using=alias()):
        write_first()
        return work()


def write_first() -> None:
    """Make the open transaction's first statement a write, where that matters.

    SQLite gives a transaction that has read before it writes no second chance: if somebody else wrote in between it
    fails at once, without waiting. A write, even of no row, waits its turn for the whole file.
    """
    if not connections[alias()].features.has_select_for_update:
        primary(Customer).filter(pk=-1).update(version=0)


def _is_transient(error: OperationalError) -> bool:
    cause = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return sqlstate in _TRANSIENT_SQLSTATES or "locked" in str(error)


def lock_or_skip(rows: models.QuerySet[_M]) -> models.QuerySet[_M]:
    """Lock rows, leaving out those that another transaction holds, where the database can."""
    skip = connections[alias()].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=skip)


def lock_no_key(rows: models.QuerySet[_M]) -> models.QuerySet[_M]:
    """Lock rows against other writers only: who commits a reference to one of them need not wait, where that can be."""
    return rows.select_for_update(no_key=connections[alias()].features.has_select_for_no_key_update)


def rewrite(model: type[_M], rows: Sequence[_M], fields: Collection[str]) -> None:
    """Write these fields of rows that are there and locked, in one statement whose cost grows with the rows alone.

    Django's `bulk_update` asks the database to look for each row in each of its fields' long CASE. Its upsert has to
    prepare all fields of each row; PostgreSQL takes those that are written as arrays.
    """
    if not rows:
        return
    if connections[alias()].vendor == "postgresql":
        _write_arrays(model, rows, fields)
        return
    targets = ["pk"] if connections[alias()].features.supports_update_conflicts_with_target else None
    primary(model).bulk_create(rows, update_conflicts=True, unique_fields=targets, update_fields=fields)


def _write_arrays(model: type[_M], rows: Sequence[_M], names: Collection[str]) -> None:
    connection = connections[alias()]
    quote = connection.ops.quote_name
    fields = [field for field in model._meta.concrete_fields if field.primary_key or field.name in names]
    arrays = ", ".join(f"%s::{field.db_type(connection)}[]" for field in fields)
    columns = {field: quote(str(field.column)) for field in fields}
    written = ", ".join(f"{column} = told.{column}" for field, column in columns.items() if not field.primary_key)
    pk = columns[model._meta.pk]
    sql = (
        f"UPDATE {quote(model._meta.db_table)} AS held SET {written} "  # noqa: S608  (names, quoted)
        f"FROM unnest({arrays}) AS told ({', '.join(columns.values())}) WHERE held.{pk} = told.{pk}"
    )
    values = [[field.get_db_prep_save(getattr(row, field.attname), connection) for row in rows] for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def refuse_open_transaction(what: str) -> None:
    """Raise `RuntimeError` inside a caller's `atomic`: no lock may be held while Stripe is asked.

    Django's `durable` knows the difference between a transaction of the caller's and that of a `TestCase`.
    """
    try:
        with transaction.atomic(using=alias(), durable=True):
            pass
    except RuntimeError as error:
        raise RuntimeError(
            f"{what} calls Stripe and cannot run inside transaction.atomic(). "
            "Call it after the commit, for example with transaction.on_commit()."
        ) from error


def without_atomic_requests(view: _View) -> _View:
    """Keep ATOMIC_REQUESTS off this view, which opens its transactions itself."""
    for name in connections:
        view = transaction.non_atomic_requests(using=name)(view)
    return view


def release_connections(*, pooled_only: bool = False) -> None:
    """Let this thread's connections go, as at the end of a request: whoever waits for one of a pool has it meanwhile.

    The next query opens them again. What Django keeps between requests (`CONN_MAX_AGE`) stays open, and so does what is
    inside a transaction, a site's own included.
    """
    for connection in connections.all(initialized_only=True):
        if pooled_only and not connection.settings_dict["OPTIONS"].get("pool"):
            continue
        if connection.connection is not None and connection.get_autocommit():
            connection.close_if_unusable_or_obsolete()
