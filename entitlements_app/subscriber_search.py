"""Subscribers by what a person types: whichever model they are of, and whichever indexes it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.contrib.auth.base_user import BaseUserManager
from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist, ValidationError
from django.db import connections
from django.db.models import (
    CharField,
    Field,
    IntegerField,
    Model,
    QuerySet,
    TextField,
    UniqueConstraint,
    UUIDField,
    Value,
)
from django.db.models.functions import Lower, Upper

from .subscribers import get_subscriber_model

LOOKED_THROUGH: Final = 30_000
_LONGEST: Final = 512  # that of an e-mail address


def can_be_found(term: str) -> bool:
    """Whether anything can be called so, and a database be asked for it.

    PostgreSQL knows no NUL, nothing encodes half of a character, and SQLite compares no very long text.
    """
    try:
        term.encode()
    except UnicodeEncodeError:
        return False
    return len(term) <= _LONGEST and "\0" not in term


def find_subscribers(term: str, *, most: int, look_through: bool) -> list[Any]:
    """The primary keys of those whom the whole term names, but at most that many.

    By primary key, natural key, and each unique or indexed text or number; with `look_through`, if that
    finds nobody, also by an e-mail address or name without an index, but only among the newest LOOKED_THROUGH.
    """
    model = get_subscriber_model()
    rows = model._base_manager.order_by()
    ways = [*_by_indexed_fields(rows, term), *_by_indexed_case(rows, term)]
    found = list(_keys(ways[0]).union(*map(_keys, ways[1:]), all=True)[:most]) if ways else []
    found += _by_natural_key(model, term)
    if look_through and not found:
        found += _keys(_looked_through(rows, term))[:most]
    return list(dict.fromkeys(found))[:most]


def _keys(rows: QuerySet[Any]) -> QuerySet[Any, Any]:
    return rows.values_list("pk", flat=True)


# Each way is a query of its own: of several in one OR, the one without an index would have the table read whole.


def _by_indexed_fields(rows: QuerySet[Any], term: str) -> Iterator[QuerySet[Any]]:
    for field in rows.model._meta.concrete_fields:
        if _is_indexed(field) and not field.choices:
            if isinstance(field, CharField | TextField):
                yield rows.filter(**{f"{field.name}__in": {term, term.lower()}})
            elif _is_like(field, term):
                yield rows.filter(**{field.name: field.to_python(term)})


def _is_like(field: Field[Any, Any], term: str) -> bool:
    """Whether the term can stand for a value of this number, UUID or primary key."""
    if isinstance(field, IntegerField):
        return term.isascii() and term.isdecimal()
    if not (field.primary_key or isinstance(field, UUIDField)):
        return False
    try:
        field.to_python(term)
    except (ValidationError, ValueError, TypeError):
        return False
    return True


def _is_indexed(field: Field[Any, Any]) -> bool:
    """Whether an index that holds all rows begins with this field."""
    if field.unique or getattr(field, "db_index", False):
        return True
    options = field.model._meta
    indexes = [index.fields for index in options.indexes if not index.condition]
    constraints = [constraint.fields for constraint in options.total_unique_constraints]
    first = {fields[0].lstrip("-") for fields in (*indexes, *constraints, *options.unique_together) if fields}
    return field.name in first


def _by_indexed_case(rows: QuerySet[Any], term: str) -> Iterator[QuerySet[Any]]:
    """By indexes on the lower or upper case of a text, which find it however it is written."""
    options = rows.model._meta
    constraints = [each for each in options.constraints if isinstance(each, UniqueConstraint)]
    for index in (*options.indexes, *constraints):
        if index.expressions and not index.condition and isinstance(index.expressions[0], Lower | Upper):
            case = index.expressions[0]
            yield rows.alias(written=case).filter(written=type(case)(Value(term)))


def _by_natural_key(model: type[Model], term: str) -> list[Any]:
    manager = model._default_manager
    if not hasattr(manager, "get_by_natural_key"):
        return []
    if type(manager).get_by_natural_key is BaseUserManager.get_by_natural_key:
        return []  # the username, which is unique
    try:
        return [manager.get_by_natural_key(term).pk]
    except (ObjectDoesNotExist, MultipleObjectsReturned, TypeError, ValueError, ValidationError):
        return []


def _looked_through(rows: QuerySet[Any], term: str) -> QuerySet[Any]:
    """By a field without an index that names a subscriber, unless the database has one that the model does not name."""
    options = rows.model._meta
    name = getattr(rows.model, "EMAIL_FIELD", "email") if "@" in term else "name"
    field = next((field for field in options.concrete_fields if field.name == name), None)
    if field is None or _is_indexed(field):
        return rows.none()
    rows = rows.filter(**{f"{name}__iexact": term})
    if _has_index_on_upper(connections[rows.db], options.db_table, str(field.column)):
        return rows
    last = _keys(rows.model._base_manager.order_by("-pk"))[LOOKED_THROUGH : LOOKED_THROUGH + 1].first()
    if last is None:
        return rows
    return rows.filter(pk__gt=last) if isinstance(options.pk, IntegerField) else rows.none()


def _has_index_on_upper(connection: Any, table: str, column: str) -> bool:
    """Whether PostgreSQL has an index that `iexact` can use. Only a migration can give one to Django's own users."""
    if connection.vendor != "postgresql":
        return False
    names = column, connection.ops.quote_name(column)
    like = [f"%({upper})" for name in names for upper in (f"upper(({name})::text)", f"upper({name})")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_indexes WHERE tablename = %s AND indexdef LIKE ANY(%s)", [table, like])
        return cursor.fetchone() is not None
