"""Customers by what a person types: its shape decides which indexes are asked, each by a query of its own.

An OR over columns of two tables would have both read from end to end, also when there is nothing to be found. So what
is found is put together here, as primary keys, and is never much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections
from django.db.models import BooleanField, F, Func, QuerySet, Value
from django.db.models.functions import Lower

from .models import ID_LENGTH, Customer
from .subscriber_search import can_be_found, find_subscribers

MOST: Final = 500


@dataclass(frozen=True)
class Found:
    """Primary keys of customers, and of subscribers who have none. `is_cut`: more match than are here."""

    customers: frozenset[int] = frozenset()
    without_customer: frozenset[Any] = frozenset()
    is_cut: bool = False


def find_customers(term: str) -> Found:
    """The customers whom this may name, in any mode.

    A customer is named by its Stripe id, its e-mail address, words of its name, or by whatever names its subscriber.
    Anything may be typed: what nothing can be called finds nothing.
    """
    term = term.strip()
    if not term or not can_be_found(term):
        return Found()
    named = _keys(Customer.objects.filter(stripe_id=term))
    if term.startswith("cus_"):
        return Found(frozenset(named))
    named += _keys(_with_email(term)) if "@" in term else _by_words(term.split())
    subscribers = find_subscribers(term, most=MOST + 1, look_through=not named)
    theirs = _of(subscribers[:MOST])
    named = list(dict.fromkeys([*theirs, *named]))
    if max(len(subscribers), len(named)) > MOST:
        return Found(frozenset(named[:MOST]), is_cut=True)
    return Found(frozenset(named), frozenset(subscribers).difference(theirs.values()))


def _keys(customers: QuerySet[Customer]) -> list[int]:
    return list(customers.values_list("pk", flat=True)[: MOST + 1])


def _of(subscribers: list[Any]) -> dict[int, Any]:
    """Customers, each with the key of its subscriber."""
    rows = Customer.objects.filter(subscriber__in=subscribers) if subscribers else Customer.objects.none()
    return dict(rows.values_list("pk", "subscriber_id")[: MOST + 1])


def _with_email(term: str) -> QuerySet[Customer]:
    # The index leaves out those without one, and PostgreSQL uses it only for who says that he does, too.
    return Customer.objects.alias(lower=Lower("email")).filter(lower=Lower(Value(term))).exclude(email="")


def _by_words(words: list[str]) -> list[int]:
    """Of one word, who is called so or longer; of several, who has them all, and if there is nobody, all of them begun.

    What begins with the “Inc” of a full name is much to be put together, and not asked for.
    """
    customers = Customer.objects.exclude(name="")
    if connections[customers.db].vendor == "postgresql":
        whole = _keys(customers.filter(_HasWords(words, begun=False))) if len(words) > 1 else []
        return whole or _keys(customers.filter(_HasWords(words, begun=True)))
    for word in words:
        customers = customers.filter(name__icontains=word)
    return _keys(customers)


class _HasWords(Func):
    """Whether the name has all of these words: by the index of migration 0007."""

    template = "to_tsvector('simple'::regconfig, %(expressions)s)"
    arg_joiner = ") @@ to_tsquery('simple'::regconfig, "
    output_field = BooleanField()

    def __init__(self, words: Iterable[str], *, begun: bool) -> None:
        super().__init__(F("name"), Value(" & ".join(_quoted(word) + ":*" * begun for word in words)))


def _quoted(word: str) -> str:
    """As a text in which PostgreSQL finds no operators."""
    quoted = word[:ID_LENGTH].replace("\\", "\\\\").replace("'", "''")
    return f"'{quoted}'"
