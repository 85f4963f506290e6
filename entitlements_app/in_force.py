"""Which overrides count at a moment, and until when an answer cannot change by itself. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

GRANT = "grant"
DENY = "deny"


class Term(StrEnum):
    """Where the present is, seen from an override's period."""

    IN_FORCE = "in_force"
    TO_COME = "to_come"
    OVER = "over"


class Period(NamedTuple):
    """A key that is granted or denied from `starts_at` on, and no longer at `expires_at`, if there is one."""

    lookup_key: str
    effect: str
    starts_at: datetime
    expires_at: datetime | None

    def is_in_force(self, now: datetime) -> bool:
        return self.starts_at <= now and (self.expires_at is None or now < self.expires_at)

    def term(self, now: datetime) -> Term:
        if self.is_in_force(now):
            return Term.IN_FORCE
        return Term.TO_COME if self.starts_at > now else Term.OVER


def boundaries(periods: Iterable[Period], *, first: datetime, last: datetime) -> list[datetime]:
    """The moments from `first` to `last`, in order, at which a period begins or ends."""
    moments = {at for period in periods for at in (period.starts_at, period.expires_at) if at is not None}
    return sorted(at for at in moments if first <= at <= last)


def combine(
    held: Collection[str], periods: Iterable[Period], *, now: datetime
) -> tuple[frozenset[str], datetime | None]:
    """The answer at that moment, and the next one at which a period begins or ends, `None` if none does.

    What is held or granted counts, unless it is denied: deny wins.
    """
    granted = set(held)
    denied: set[str] = set()
    boundaries = []
    for period in periods:
        if period.is_in_force(now):
            (granted if period.effect == GRANT else denied).add(period.lookup_key)
        boundaries += [at for at in (period.starts_at, period.expires_at) if at is not None and at > now]
    return frozenset(granted - denied), min(boundaries, default=None)
