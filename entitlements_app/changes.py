"""The only writer of the change log, and of the answers that it has announced.

A change is effective when a subscriber's answer moved. That is told by the difference between the answer now and the
answer announced last, both read under the lock of the subscriber's state row: two customers that lose a key at the
same time would each still see the other's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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
    """Keys that a customer, and with it perhaps its subscriber, gained and lost by what was just written."""

    customer: Customer | None
    subscriber_id: Any
    keys: Difference
    cause: Cause


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
        for pk, answer in self._answers(empty).items():
            self._states[pk].announced = sorted(answer)
        self._save(empty)

    def record(self, moves: Sequence[Move], *, cause: Cause) -> None:
        """Log what changed, and announce the new answers.

        Causes `event` and `fetch` log each key that a customer gained or lost, so that these rows replay to the keys
        of each customer; other causes log only what is effective. Keys that moved by none of these moves, because rows
        were deleted by hand, get rows of their own, with `cause`.
        """
        moved = {pk: keys for pk, keys in self._moved().items() if keys}
        waiting = {(pk, kind, key) for pk, keys in moved.items() for kind, key in _by_kind(keys)}
        rows = []
        for move in moves:
            for kind, key in _by_kind(move.keys):
                effective = (move.subscriber_id, kind, key) in waiting
                waiting.discard((move.subscriber_id, kind, key))
                if effective or move.cause in (Cause.EVENT, Cause.FETCH):
                    rows.append(self._row(move, kind, key, effective=effective))
        for pk, kind, key in sorted(waiting, key=str):
            unexplained = Move(None, pk, moved[pk], cause)
            rows.append(self._row(unexplained, kind, key, effective=True))
        self._save(list(moved))
        primary(EntitlementChange).bulk_create(rows)

    def _moved(self) -> dict[Any, Difference]:
        """How each answer differs from the announced one, which it then replaces."""
        moved = {}
        for pk, answer in self._answers(list(self._states)).items():
            state = self._states[pk]
            moved[pk] = difference(set(state.announced or ()), answer)
            state.announced = sorted(answer)
        return moved

    def _row(self, move: Move, kind: Kind, key: str, *, effective: bool) -> EntitlementChange:
        return EntitlementChange(
            subscriber_id=move.subscriber_id,
            customer=move.customer,
            lookup_key=key,
            kind=kind,
            cause=move.cause,
            effective=effective,
            livemode=self._livemode,
        )

    def _answers(self, subscriber_ids: list[Any]) -> dict[Any, frozenset[str]]:
        return ActiveEntitlement.objects.using(alias()).answers(subscriber_ids, self._livemode)

    def _save(self, subscriber_ids: list[Any]) -> None:
        states = [self._states[pk] for pk in subscriber_ids]
        primary(SubscriberState).bulk_update(states, ["announced"], batch_size=500)


def _by_kind(keys: Difference) -> Iterator[tuple[Kind, str]]:
    for key in sorted(keys.gained):
        yield Kind.GRANTED, key
    for key in sorted(keys.lost):
        yield Kind.REVOKED, key
