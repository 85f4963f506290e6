"""The gaps that were found, in a temporary file: on a big site there may be more than memory should hold.

SQLite makes the file, and it is gone with the process, however that ends. It is nobody else's: the site's database is
not touched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

BATCH = 500

_TABLES = """
CREATE TABLE gap (
    product, feature, lookup_key, customer_pk INTEGER, customer, subscription, since INTEGER, period_end INTEGER,
    holder, PRIMARY KEY (product, feature, customer_pk)
) WITHOUT ROWID;
CREATE TABLE due (bridge_pk INTEGER PRIMARY KEY);
CREATE TABLE gone (bridge_pk INTEGER PRIMARY KEY);
CREATE TABLE planned (subscriber, lookup_key, PRIMARY KEY (subscriber, lookup_key)) WITHOUT ROWID;
"""


class Gap(NamedTuple):
    """A customer has a live subscription to a product, and lacks a feature that is attached to it.

    `since`, when the subscription was made, and `period_end` are Stripe's seconds. `holder`: another customer of the
    same subscriber, which does hold the key.
    """

    product: str
    feature: str
    lookup_key: str
    customer_pk: int
    customer: str
    subscription: str
    since: int
    period_end: int | None
    holder: str


class Group(NamedTuple):
    """Of how many customers a product owes a feature."""

    product: str
    feature: str
    lookup_key: str
    customers: int


class GapStore:
    """Each gap once, however many subscriptions of a customer show it. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._db.close()

    # Gaps

    def add(self, gaps: Iterable[Gap]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO gap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", gaps)

    def count(self) -> tuple[int, int]:
        """How many gaps there are, and of how many customers."""
        gaps, customers = self._one("SELECT count(*), count(DISTINCT customer_pk) FROM gap")
        return gaps, customers

    def groups(self) -> list[Group]:
        """By product and feature, those with the most customers first."""
        sql = "SELECT product, feature, lookup_key, count(*) FROM gap GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 3"
        return [Group(*row) for row in self._rows(sql)]

    def begun_before(self, group: Group, second: int) -> int:
        """How many of these customers had their subscription before that second of Stripe's."""
        sql = "SELECT count(*) FROM gap WHERE product = ? AND feature = ? AND since < ?"
        return int(self._one(sql, group.product, group.feature, second)[0])

    def of_group(self, group: Group, *, most: int) -> list[Gap]:
        """The customers of a group that were seen first, at most so many."""
        sql = "SELECT * FROM gap WHERE product = ? AND feature = ? ORDER BY customer_pk LIMIT ?"
        return [Gap(*row) for row in self._rows(sql, group.product, group.feature, most)]

    def batches(self) -> Iterator[list[Gap]]:
        """All, by product and key."""
        cursor = self._db.execute("SELECT * FROM gap ORDER BY product, lookup_key, customer_pk, feature")
        while rows := cursor.fetchmany(BATCH):
            yield [Gap(*row) for row in rows]

    # Bridges

    def keep_bridges(self, pks: Iterable[int]) -> None:
        """Stripe still owes what these stand in for."""
        self._db.executemany("INSERT OR IGNORE INTO due VALUES (?)", ((pk,) for pk in pks))

    def not_kept(self, pks: Iterable[int]) -> set[int]:
        return {pk for pk in pks if not self._one("SELECT count(*) FROM due WHERE bridge_pk = ?", pk)[0]}

    def mark_gone(self, pk: int) -> None:
        """Nothing is owed any more that this bridge stands in for."""
        self._db.execute("INSERT OR IGNORE INTO gone VALUES (?)", (pk,))

    def gone(self) -> Iterator[int]:
        return (pk for (pk,) in self._rows("SELECT bridge_pk FROM gone ORDER BY 1"))

    def plan(self, subscriber_id: Any, lookup_key: str) -> bool:
        """Whether this is the first time that a bridge of the key is planned for the subscriber."""
        sql = "INSERT OR IGNORE INTO planned VALUES (?, ?)"
        return bool(self._db.execute(sql, (str(subscriber_id), lookup_key)).rowcount)

    def forget_plans(self) -> None:
        self._db.execute("DELETE FROM planned")

    def _one(self, sql: str, *values: Any) -> Any:
        return self._db.execute(sql, values).fetchone()

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        return self._db.execute(sql, values).fetchall()
