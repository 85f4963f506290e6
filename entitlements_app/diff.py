"""Held and wanted in, gained and lost out. Pure."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple


class Difference(NamedTuple):
    gained: frozenset[str]
    lost: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.gained or self.lost)


def difference(held: Set[str], wanted: Set[str]) -> Difference:
    """What must be gained and lost to get from held to wanted."""
    return Difference(gained=frozenset(wanted - held), lost=frozenset(held - wanted))
