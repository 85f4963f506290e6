"""The only writer of the change log, and of the answers that it has announced.

A change is effective when a subscriber's answer moved. That is told by the difference between the answer now and the
answer announced last, both read under the lock of the subscriber's state row: two customers that lose a key at the
same time would each still see the other's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import F

from .diff import Difference, difference
from .models import ActiveEntitlement, Customer, EntitlementChange, SubscriberState
from .transactions import alias, primary

Cause = EntitlementChange.Cause
Kind = EntitlementChange.Kind


@dataclass(frozen=True)
class Move:
    """What a customer's subscriber may have gained and lost by what was just written."""

    customer: Customer
    subscriber_id: Any
    keys: Difference
    cause: EntitlementChange.Cause


class Announced:
    """Locked state rows. Lock before writing what an answer is made of, record after it, in one transaction."""

    def __init__(self, states: dict[Any, SubscriberState], *, livemode: bool) -> None:
        self._states = states
        self._livemode = livemode

    @classmethod
    def lock(cls, subscriber_ids: Collection[Any], *, livemode: bool) -> Announced:
        """Lock the rows in the order of their keys. A new one is filled with the answer as it is before the write."""
        wanted = {pk for pk in subscriber_ids if pk is not None}
        if not wanted:
            return cls({}, livemode=livemode)
        rows = primary(SubscriberState).filter(subscriber_id__in=wanted, livemode=livemode)
        known = set(rows.values_list("subscriber_id", flat=True))
        missing = [SubscriberState(subscriber_id=pk, livemode=livemode) for pk in sorted(wanted - known, key=str)]
        if missing:
            primary(SubscriberState).bulk_create(missing, ignore_conflicts=True)
        pks = list(rows.order_by("pk").select_for_update().values_list("pk", flat=True))
        # Note [Lock by update]
        # The rows are locked in order above. The update makes each a new version, so that under REPEATABLE READ a
        # second writer, whose snapshot is older than the first one's commit, fails and is tried again.
        primary(SubscriberState).filter(pk__in=pks).update(announced=F("announced"))
        announced = cls({state.subscriber_id: state for state in rows.filter(pk__in=pks)}, livemode=livemode)
        announced._fill()
        return announced

    def _fill(self) -> None:
        empty = [pk for pk, state in self._states.items() if state.announced is None]
        if not empty:
            return
        for pk, answer in self._answers(empty).items():
            self._states[pk].announced = sorted(answer)
        self._save(empty)

    def record(self, moves: Sequence[Move], *, cause: EntitlementChange.Cause) -> list[EntitlementChange]:
        """Log what changed and announce the new answers. Returns the rows written.

        Causes `event` and `fetch` log each key that a customer gained or lost, so that these rows replay to the keys
        of each customer; other causes log only what is effective.
        """
        pending = self._pending()
        moved = [pk for pk, keys in pending.items() if keys]
        rows = []
        for move in sorted(moves, key=lambda move: move.customer.pk):
            for kind, keys in ((Kind.GRANTED, move.keys.gained), (Kind.REVOKED, move.keys.lost)):
                for key in sorted(keys):
                    effective = _take(pending, move.subscriber_id, kind, key)
                    if effective or move.cause in (Cause.EVENT, Cause.FETCH):
                        rows.append(self._row(move, kind, key, effective=effective))
        rows += self._unexplained(pending, cause)
        for pk in moved:
            self._save([pk])
        return primary(EntitlementChange).bulk_create(rows)

    def _pending(self) -> dict[Any, Difference]:
        pending = {}
        for pk, answer in self._answers(list(self._states)).items():
            state = self._states[pk]
            pending[pk] = difference(set(state.announced or ()), answer)
            state.announced = sorted(answer)
        return pending

    def _row(self, move: Move, kind: EntitlementChange.Kind, key: str, *, effective: bool) -> EntitlementChange:
        return EntitlementChange(
            subscriber_id=move.subscriber_id,
            customer=move.customer,
            lookup_key=key,
            kind=kind,
            cause=move.cause,
            effective=effective,
            livemode=self._livemode,
        )

    def _unexplained(self, pending: dict[Any, Difference], cause: EntitlementChange.Cause) -> list[EntitlementChange]:
        """Keys that moved by no move of ours: rows were deleted by hand. They are announced with the next write."""
        return [
            EntitlementChange(
                subscriber_id=pk,
                lookup_key=key,
                kind=kind,
                cause=cause,
                effective=True,
                livemode=self._livemode,
            )
            for pk, keys in pending.items()
            for kind, names in ((Kind.GRANTED, keys.gained), (Kind.REVOKED, keys.lost))
            for key in sorted(names)
        ]

    def _answers(self, subscriber_ids: list[Any]) -> dict[Any, frozenset[str]]:
        return ActiveEntitlement.objects.using(alias()).answers(subscriber_ids, self._livemode)

    def _save(self, subscriber_ids: list[Any]) -> None:
        states = [self._states[pk] for pk in subscriber_ids]
        primary(SubscriberState).bulk_update(states, ["announced"])


def _take(pending: dict[Any, Difference], subscriber_id: Any, kind: EntitlementChange.Kind, key: str) -> bool:
    """Whether this key still waits to be announced; each is told once, by the first customer that moved it."""
    keys = pending.get(subscriber_id, Difference(frozenset(), frozenset()))
    waiting = keys.gained if kind == Kind.GRANTED else keys.lost
    if key not in waiting:
        return False
    pending[subscriber_id] = Difference(
        gained=keys.gained - {key} if kind == Kind.GRANTED else keys.gained,
        lost=keys.lost - {key} if kind == Kind.REVOKED else keys.lost,
    )
    return True
