"""Grant and deny by hand: our own word beside Stripe's. The only writer of overrides.

An override counts from its start and no longer at its end, to the moment, whenever a gate asks: no task is needed. Deny
wins: over Stripe, and over every grant. Overrides count in both modes, and need no Stripe customer.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.utils import timezone

from . import bridges, cache, conf, transactions
from .changes import Announced, Cause, Move
from .diff import Difference
from .exceptions import UnknownFeature
from .lookup_keys import check_key
from .models import ID_LENGTH, ActiveEntitlement, EntitlementOverride, Feature, SubscriberState
from .subscribers import subscriber_key
from .transactions import alias, lock_or_skip, own, primary

logger = logging.getLogger(__name__)

BATCH = 100

_T = TypeVar("_T")
Effect = EntitlementOverride.Effect


def grant(
    subscriber: Model,
    key: str,
    *,
    starts: datetime | None = None,
    until: datetime | None = None,
    reason: str = "",
    by: AbstractBaseUser | None = None,
    force: bool = False,
) -> EntitlementOverride:
    """Entitle a subscriber to a lookup key, from now on or from `starts`, for good or until `until`.

    Adds to what there is: an earlier grant of the key stays as it was, and while a denial of it is in force the answer
    is no. `by` is the user who decided. Runs inside a caller's `atomic`.

    Raises `UnknownFeature` if no feature of the configured mode has the key, unless `force`; `TypeError` for what is no
    key, no subscriber or no datetime; `ValueError` for an unsaved subscriber, or times that are naive, make no period
    to come or stand for never, as `datetime.max` does.
    """
    return _add(Effect.GRANT, subscriber, key, starts, until, reason, by, force=force)


def deny(
    subscriber: Model,
    key: str,
    *,
    starts: datetime | None = None,
    until: datetime | None = None,
    reason: str = "",
    by: AbstractBaseUser | None = None,
    force: bool = False,
) -> EntitlementOverride:
    """Take a lookup key from a subscriber, whatever Stripe and other overrides say. Otherwise like `grant`."""
    return _add(Effect.DENY, subscriber, key, starts, until, reason, by, force=force)


class Bridging(StrEnum):
    """What became of a bridge."""

    MADE = "made"
    MOVED = "moved"  # it was there, with another end
    STANDS = "stands"  # it was there, with this end
    NOT_NEEDED = "not_needed"  # Stripe grants the key


def bridge(
    subscriber: Model, key: str, *, until: datetime, reason: str = "", by: AbstractBaseUser | None = None
) -> Bridging:
    """Entitle a subscriber to a key that Stripe owes, until Stripe grants it, but at most until `until`.

    Does nothing if a live customer of the subscriber holds the key. Once one does, by an event, a fetch or a link, the
    bridge ends in that transaction, and the answer stays yes. A bridge that is in force is not doubled: it gets the new
    end. Denials win, as always. It counts in the configured mode alone, in which Stripe has to grant.
    Runs inside a caller's `atomic`. Raises what `grant` raises.
    """
    pk, key = _checked(subscriber, key, None, until)
    if until is None:
        raise TypeError("until is a datetime: no bridge is for good.")

    def work() -> Bridging:
        held = ActiveEntitlement.objects.using(alias()).granting(conf.livemode()).with_key(key)
        if held.filter(customer__subscriber_id=pk).exists():
            return Bridging.NOT_NEEDED
        _check_period(None, until)
        rows = bridges.standing(livemode=conf.livemode()).filter(subscriber_id=pk, lookup_key=key)
        ends = set(rows.values_list("expires_at", flat=True))
        if ends:
            rows.exclude(expires_at=until).update(expires_at=until)
            return Bridging.STANDS if ends == {until} else Bridging.MOVED
        row = _row(Effect.GRANT, pk, key, timezone.now(), until, reason, by)
        row.bridge_livemode = conf.livemode()
        row.save(using=alias(), force_insert=True)
        return Bridging.MADE

    return transactions.write(lambda: announcing(pk, key, work))


def clear(subscriber: Model, key: str, *, effect: str | None = None) -> int:
    """End a subscriber's overrides of a lookup key, or those of one effect (`"grant"`, `"deny"`). Returns how many.

    Those in force end now and stay on record; those to come are deleted. What Stripe says then counts. Raises
    `TypeError` for what is no key or no subscriber, `ValueError` for an unsaved one or another effect.
    """
    pk, key = _saved(subscriber), check_key(key)
    if effect is not None and effect not in Effect.values:
        raise ValueError(f"effect is {' or '.join(map(repr, Effect.values))}, not {effect!r}.")

    def work() -> int:
        now = timezone.now()
        rows = EntitlementOverride.objects.using(alias()).filter(subscriber_id=pk, lookup_key=key)
        if effect is not None:
            rows = rows.filter(effect=effect)
        ended = rows.in_force(now).update(expires_at=now)
        deleted, _ = rows.filter(starts_at__gt=now).delete()
        return ended + deleted

    return transactions.write(lambda: announcing(pk, key, work))


def end(override: EntitlementOverride) -> None:
    """End one override: one in force ends now and stays on record, one to come is deleted.

    Raises `ValueError` for one that is over already, or gone.
    """
    row = EntitlementOverride.objects.using(alias()).filter(pk=override.pk)

    def work() -> None:
        now = timezone.now()
        if not row.in_force(now).update(expires_at=now) and not row.filter(starts_at__gt=now).delete()[0]:
            raise ValueError(f"Override {override.pk} is over already.")

    transactions.write(lambda: announcing(override.subscriber_id, override.lookup_key, work))


def _add(
    effect: Effect,
    subscriber: Model,
    key: str,
    starts: datetime | None,
    until: datetime | None,
    reason: str,
    by: AbstractBaseUser | None,
    *,
    force: bool,
) -> EntitlementOverride:
    pk, key = _checked(subscriber, key, starts, until, force=force)

    def work() -> EntitlementOverride:
        starts_at = timezone.now() if starts is None else starts
        _check_period(starts_at, until)  # again: the lock may have been waited for
        override = _row(effect, pk, key, starts_at, until, reason, by)
        override.save(using=alias(), force_insert=True)
        return override

    return transactions.write(lambda: announcing(pk, key, work))


def _checked(
    subscriber: Model, key: str, starts: datetime | None, until: datetime | None, *, force: bool = False
) -> tuple[Any, str]:
    """The subscriber's and the lookup key of an override that can be made."""
    pk, key = _saved(subscriber), check_key(key)
    if len(key) > ID_LENGTH:
        raise ValueError(f"A lookup key has at most {ID_LENGTH} characters.")
    _check_period(starts, until)
    if not force and not own(Feature).filter(lookup_key=key).exists():
        raise UnknownFeature(
            f"No known feature has the lookup key {key!r}. Correct it; or, if the feature is still to come, pass "
            "force=True."
        )
    return pk, key


def _row(
    effect: Effect,
    subscriber_id: Any,
    key: str,
    starts_at: datetime,
    until: datetime | None,
    reason: str,
    by: AbstractBaseUser | None,
) -> EntitlementOverride:
    return EntitlementOverride(
        subscriber_id=subscriber_id,
        lookup_key=key,
        effect=effect,
        starts_at=starts_at,
        expires_at=until,
        reason=reason,
        author=cast(Any, by),  # of AUTH_USER_MODEL, whatever that is
    )


def announcing(subscriber_id: Any, key: str, work: Callable[[], _T]) -> _T:
    """Do this work under the lock of the subscriber's states, and log what it moved, in each mode that has one."""
    known = primary(SubscriberState).filter(subscriber_id=subscriber_id).values_list("livemode", flat=True)
    modes = sorted({conf.livemode(), *known})
    announced = [Announced.lock([subscriber_id], livemode=livemode) for livemode in modes]
    done = work()
    cache.invalidate([subscriber_id])  # in both modes: processes of the other may hold an answer that nobody announced
    for states in announced:
        moved = Move(None, subscriber_id, Difference(frozenset({key}), frozenset({key})), Cause.OVERRIDE)
        states.record([moved], cause=Cause.OVERRIDE)
    return done


@dataclass
class BoundaryReport:
    """Of how many subscribers a pass told that an override has started or ended, and of how many it could not."""

    told: int = 0
    failed: int = 0

    def as_line(self) -> str:
        return f"Starts and ends of overrides: of {self.told} subscriber(s), {self.failed} failed."


def tell_boundaries(*, deadline: float) -> BoundaryReport:
    """Log the starts and ends of overrides that moved an answer since it was announced, until `deadline`.

    `deadline` is on `time.monotonic`. Gates count them anyway; this is for who wants to be told. In both modes.
    """
    report = BoundaryReport()
    last = 0
    while time.monotonic() < deadline and (pks := list(_passed().filter(pk__gt=last)[:BATCH])):
        _tell(pks, report)
        last = pks[-1]
    _expect_after_switch(deadline=deadline)
    return report


def _expect_after_switch(*, deadline: float) -> None:
    """Have what starts and ends from now on told in the configured mode, too, where only the other one was announced.

    Overrides count in both modes. After a switch of the mode nothing else may ever ask about such a subscriber.
    """
    livemode = conf.livemode()
    announced = primary(SubscriberState).filter(subscriber_id=OuterRef("subscriber_id"), livemode=livemode)
    rows = primary(SubscriberState).filter(~Exists(announced), livemode=not livemode, next_boundary_at__isnull=False)
    subscriber_ids = rows.order_by("pk").values_list("subscriber_id", flat=True)
    try:
        while time.monotonic() < deadline and (batch := list(subscriber_ids[:BATCH])):
            transactions.write(partial(Announced.lock, batch, livemode=livemode))
    except Exception:  # of whatever kind, as when a subscriber is deleted meanwhile: the next pass tries again
        logger.exception("Having starts and ends of overrides told in another mode than before failed.")


def _passed() -> QuerySet[SubscriberState, int]:
    rows = primary(SubscriberState).filter(next_boundary_at__lte=timezone.now())
    return rows.order_by("pk").values_list("pk", flat=True)


def _tell(pks: Sequence[int], report: BoundaryReport) -> None:
    """All in one transaction; if that fails one by one, as one bad row must not hold up the others."""
    try:
        report.told += transactions.write(lambda: _announce(pks))
    except Exception:  # of whatever kind, as said above
        logger.exception("Telling the starts and ends of overrides of %d subscriber(s) failed.", len(pks))
        if len(pks) == 1:
            report.failed += 1
            return
        for pk in pks:
            _tell([pk], report)


def _announce(pks: Sequence[int]) -> int:
    """Rows that another transaction holds are left to it, or to the next pass."""
    rows = primary(SubscriberState).filter(pk__in=pks, next_boundary_at__lte=timezone.now()).order_by("pk")
    by_mode: defaultdict[bool, list[Any]] = defaultdict(list)
    for state in lock_or_skip(rows):
        by_mode[state.livemode].append(state.subscriber_id)
    for livemode, subscriber_ids in by_mode.items():
        Announced.lock(subscriber_ids, livemode=livemode).record([], cause=Cause.OVERRIDE)
    return sum(map(len, by_mode.values()))


def _saved(subscriber: Model) -> Any:
    pk = subscriber_key(subscriber)
    if pk is None:
        raise ValueError("Only a saved subscriber can have overrides.")
    return pk


def _check_period(starts: datetime | None, until: datetime | None) -> None:
    for name, moment in (("starts", starts), ("until", until)):
        if moment is not None and not isinstance(moment, datetime):
            raise TypeError(f"{name} is a datetime, not {moment!r}.")
        if moment is not None and timezone.is_aware(moment) is not settings.USE_TZ:
            needed = "a time zone, as USE_TZ is True" if settings.USE_TZ else "no time zone, as USE_TZ is False"
            raise ValueError(f"{name} needs {needed}.")
        if moment is not None and moment.year == MAXYEAR:  # datetime.max, which other time zones cannot express
            raise ValueError(f"{name} lies in the year {MAXYEAR}. For an override without an end, leave until out.")
    if until is not None and (until <= timezone.now() or (starts is not None and until <= starts)):
        raise ValueError("until must lie after starts, and in the future: the override would never count.")
