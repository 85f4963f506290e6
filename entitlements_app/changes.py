"""The only writer of the change log, and of the answers that it has announced.

A change is effective when a subscriber's answer moved. That is told by the difference between the answer now and the
answer announced last, both read under the lock of the subscriber's state row: two customers that lose a key at the
same time would each still see the other's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from . import cache, provisioning, transactions
from .answers import FOR_EVER, Reading, moment, read_many, read_parts
from .diff import Difference, difference
from .in_force import DENY, GRANT, Period, boundaries, combine
from .models import Customer, EntitlementChange, EntitlementOverride, SubscriberState
from .old_rows import batches, last_before
from .transactions import alias, primary, rewrite

Cause = EntitlementChange.Cause
Kind = EntitlementChange.Kind

_OF_CUSTOMERS = (Cause.EVENT, Cause.FETCH)  # rows of these replay to what each customer holds


@dataclass(frozen=True)
class Move:
    """Keys that a customer, and with it perhaps its subscriber, gained and lost by what was just written."""

    customer: Customer | None
    subscriber_id: Any
    keys: Difference
    cause: Cause
    drift: Mapping[str, str] = field(default_factory=dict)


class Announced:
    """Locked state rows. Lock before writing what an answer is made of, record after it, in one transaction."""

    def __init__(self, states: dict[Any, SubscriberState], *, livemode: bool) -> None:
        self._states = states
        self._livemode = livemode
        self._found = {pk: (state.announced, state.next_boundary_at) for pk, state in states.items()}
        self._passed: list[EntitlementChange] = []

    @classmethod
    def lock(cls, subscriber_ids: Collection[Any], *, livemode: bool) -> Announced:
        """Lock the rows in the order of their keys. A new one is filled with the answer as it is before the write."""
        wanted = {pk for pk in subscriber_ids if pk is not None}
        if not wanted:
            return cls({}, livemode=livemode)
        rows = primary(SubscriberState).filter(subscriber_id__in=wanted, livemode=livemode)
        known = set(rows.values_list("subscriber_id", flat=True))
        missing = [SubscriberState(subscriber_id=pk, livemode=livemode) for pk in sorted(wanted - known, key=str)]
        primary(SubscriberState).bulk_create(missing, ignore_conflicts=True)
        locked = list(rows.order_by("pk").select_for_update())
        # Note [Lock by update]
        # The rows are locked in order above. The update makes each a new version, so that under REPEATABLE READ a
        # second writer, whose snapshot is older than the first one's commit, fails and is tried again.
        primary(SubscriberState).filter(pk__in=[state.pk for state in locked]).update(announced=F("announced"))
        announced = cls({state.subscriber_id: state for state in locked}, livemode=livemode)
        announced._fill()
        announced._catch_up()
        return announced

    def _fill(self) -> None:
        empty = [pk for pk, state in self._states.items() if state.announced is None]
        for pk, reading in self._read(empty).items():
            self._announce(self._states[pk], reading)
        self._save(empty)

    def _catch_up(self) -> None:
        """Announce, one after the other, the boundaries that have passed since: a start and an end may both be new."""
        now = timezone.now()
        late = {pk: at for pk, state in self._states.items() if (at := state.next_boundary_at) and at <= now}
        if not late:
            return
        parts = read_parts(list(late), since=min(late.values()), livemode=self._livemode, using=alias())
        for pk, (held, periods) in parts.items():
            state = self._states[pk]
            keys = frozenset(state.announced or ())
            for at in boundaries(periods, first=late[pk], last=now):
                here = {period.lookup_key for period in periods if at in (period.starts_at, period.expires_at)}
                after = combine(held, periods, now=at)[0]
                for kind, key in _by_kind(difference(keys & here, after & here)):
                    move = Move(None, pk, Difference(frozenset(), frozenset()), _cause(periods, kind, key, at))
                    self._passed.append(self._row(move, kind, key, effective=True))
                keys = keys - here | after & here
            state.announced = sorted(keys)

    def record(self, moves: Sequence[Move], *, cause: Cause) -> None:
        """Log what changed, and announce the new answers. After the commit cached answers end, and signals are sent.

        Causes `event` and `fetch` log each key that a customer gained or lost, so that these rows replay to the keys
        of each customer; other causes log only what is effective. Keys that moved by none of these moves get rows of
        their own: an override has started or ended since (causes `override` and `expiry`), or else rows were changed
        by hand (`cause`).
        """
        moved = {pk: keys for pk, keys in self._moved().items() if keys}
        waiting = {(pk, kind, key) for pk, keys in moved.items() for kind, key in _by_kind(keys)}
        rows = []
        for move in moves:
            for kind, key in _by_kind(move.keys):
                effective = (move.subscriber_id, kind, key) in waiting
                waiting.discard((move.subscriber_id, kind, key))
                if effective or move.cause in _OF_CUSTOMERS:
                    rows.append(self._row(move, kind, key, effective=effective))
        causes = _Boundaries({(pk, key) for pk, _, key in waiting}, livemode=self._livemode)
        unexplained = [
            self._row(Move(None, pk, moved[pk], causes.cause(pk, kind, key) or cause), kind, key, effective=True)
            for pk, kind, key in sorted(waiting, key=str)
        ]
        self._save(
            [pk for pk, state in self._states.items() if (state.announced, state.next_boundary_at) != self._found[pk]]
        )
        rows = self._passed + unexplained + rows
        primary(EntitlementChange).bulk_create(rows)
        changed = {move.subscriber_id for move in moves if move.keys}
        cache.invalidate((changed | moved.keys()) - {None}, livemode=self._livemode)
        told = {row.subscriber_id for row in rows if row.effective}
        provisioning.deliver_after_commit(told, livemode=self._livemode)

    def _moved(self) -> dict[Any, Difference]:
        """How each answer differs from the announced one, which it then replaces."""
        moved = {}
        for pk, reading in self._read(list(self._states)).items():
            state = self._states[pk]
            moved[pk] = difference(set(state.announced or ()), reading.keys)
            self._announce(state, reading)
        return moved

    def _announce(self, state: SubscriberState, reading: Reading) -> None:
        state.announced = sorted(reading.keys)
        state.next_boundary_at = None if reading.until == FOR_EVER else moment(reading.until)

    def _row(self, move: Move, kind: Kind, key: str, *, effective: bool) -> EntitlementChange:
        now = timezone.now()
        return EntitlementChange(
            subscriber_id=move.subscriber_id,
            customer=move.customer,
            lookup_key=key,
            kind=kind,
            cause=move.cause,
            effective=effective,
            drift=move.drift.get(key, ""),
            livemode=self._livemode,
            created_at=now,
            delivered_at=None if effective else now,  # there is nothing to tell
        )

    def _read(self, subscriber_ids: list[Any]) -> dict[Any, Reading]:
        return read_many(subscriber_ids, livemode=self._livemode, using=alias())

    def _save(self, subscriber_ids: list[Any]) -> None:
        states = [self._states[pk] for pk in subscriber_ids]
        rewrite(SubscriberState, states, ["announced", "next_boundary_at"])


def _cause(periods: Sequence[Period], kind: Kind, key: str, at: datetime) -> Cause:
    """Whether a start or an end moved the key at that moment; the start, if it was both."""
    starting = GRANT if kind == Kind.GRANTED else DENY
    starts = any(period[:3] == (key, starting, at) for period in periods)
    return Cause.OVERRIDE if starts else Cause.EXPIRY


class _Boundaries:
    """Which start or end of an override moved a key that nothing else did: the last one that would."""

    def __init__(self, keys: Collection[tuple[Any, str]], *, livemode: bool) -> None:
        self._overrides: defaultdict[tuple[Any, str], list[EntitlementOverride]] = defaultdict(list)
        self._now = timezone.now()
        if keys:
            rows = EntitlementOverride.objects.using(alias()).in_mode(livemode)
            pks, named = zip(*keys, strict=True)
            for row in rows.filter(subscriber_id__in=set(pks), lookup_key__in=set(named)):
                self._overrides[row.subscriber_id, row.lookup_key].append(row)

    def cause(self, subscriber_id: Any, kind: Kind, key: str) -> Cause | None:
        started, ended = (GRANT, DENY) if kind == Kind.GRANTED else (DENY, GRANT)
        passed: list[tuple[datetime, Cause]] = []
        for row in self._overrides[subscriber_id, key]:
            at, cause = (row.starts_at, Cause.OVERRIDE) if row.effect == started else (row.expires_at, Cause.EXPIRY)
            if row.effect in (started, ended) and at is not None and at <= self._now:
                passed.append((at, cause))
        return max(passed)[1] if passed else None


def _by_kind(keys: Difference) -> Iterator[tuple[Kind, str]]:
    for key in sorted(keys.gained):
        yield Kind.GRANTED, key
    for key in sorted(keys.lost):
        yield Kind.REVOKED, key


# What is forgotten


def purge(*, before: datetime, deadline: float) -> int:
    """Delete changes from before that moment, but those that the log needs. Returns how many were deleted.

    It needs what is undelivered or parked, and the newest row of each key, of a customer and of a subscriber: these
    replay to what the customer holds and to the subscriber's answer. Where most of millions of old rows are of that
    sort, a pass has no time to look at all of them: it begins anywhere and goes round, so that each has its turn.
    """
    rows = primary(EntitlementChange)
    last = last_before(rows, "created_at", before)
    first = random.randint(0, last)
    deleted = 0
    for after, until in ((first, last), (0, first)):
        for batch in batches(rows, after=after, until=until, deadline=deadline):
            old = batch.filter(_is_superseded(), created_at__lt=before, delivered_at__isnull=False)
            deleted += transactions.write(old.delete)[0]
    return deleted


def _is_superseded() -> Q:
    """A newer row says the same of the key, in each of the two replays that the row is part of."""
    newer = primary(EntitlementChange).filter(pk__gt=OuterRef("pk"), lookup_key=OuterRef("lookup_key"))
    of_customer = newer.filter(customer=OuterRef("customer"), cause__in=_OF_CUSTOMERS)
    of_answer = newer.filter(subscriber=OuterRef("subscriber"), livemode=OuterRef("livemode"), effective=True)
    return (~Q(cause__in=_OF_CUSTOMERS) | Q(customer=None) | Exists(of_customer)) & (
        Q(effective=False) | Q(subscriber=None) | Exists(of_answer)
    )
