"""Which lookup keys are known, so that a gate that asks for a mistyped one is told.

Nothing is decided here: the answer for an unknown key is no, whatever `ENTITLEMENTS_UNKNOWN_FEATURE` says.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from django.db import DatabaseError

from . import conf, forced_answers
from .event_loop import in_event_loop
from .exceptions import UnknownFeature
from .models import EntitlementOverride, Feature

logger = logging.getLogger(__name__)

HOLD_SECONDS = 60.0

_REPORTED_AT_MOST = 1000  # keys in a process: a site may ask for what its visitors type


@dataclass(frozen=True)
class _Catalogue:
    """The lookup keys of one mode, as read at that second of the monotonic clock."""

    keys: frozenset[str]
    read_at: float

    def is_fresh(self) -> bool:
        return time.monotonic() - self.read_at < HOLD_SECONDS

    def explains(self, key: str) -> bool:
        """Whether there is nothing to report. While the catalogue is empty, as after installing, nothing is known."""
        return not self.keys or key in self.keys


_held: dict[bool, _Catalogue] = {}
_reported: set[tuple[bool, str]] = set()


def report_unless_known(key: str, *, livemode: bool) -> None:
    """Do what `ENTITLEMENTS_UNKNOWN_FEATURE` says if no feature and no override has this lookup key.

    `"raise"` raises `UnknownFeature`, and logs, because Django's templates swallow what is raised inside `not`, `and`
    and `or`. `"warn"` logs once for each key and process, of at most a thousand keys. Costs no query for a key known
    within `HOLD_SECONDS`. Keys that a test has forced are known; while it forces any, the catalogue is asked about
    others where there is a database, and nothing is reported where there is none.
    """
    policy = conf.unknown_feature()
    if key in forced_answers.all_keys():
        return
    if policy == "ignore" or (policy == "warn" and _has_been_reported(livemode, key)):
        return
    catalogue = _held.get(livemode)
    if not (catalogue and catalogue.is_fresh() and catalogue.explains(key)) and not in_event_loop():
        catalogue = _read(livemode)  # a key may be younger than what is held
    if catalogue is None or catalogue.explains(key):
        return
    message = (
        f"No known feature has the lookup key {key!r}, so the answer is no. Correct the key; or, if the feature is new "
        "in Stripe, it becomes known here when the catalogue is next read: manage.py entitlements_sync --catalog."
    )
    if policy == "raise":
        logger.error("%s", message)
        raise UnknownFeature(message)
    _reported.add((livemode, key))
    logger.warning("%s", message)


def _has_been_reported(livemode: bool, key: str) -> bool:
    return (livemode, key) in _reported or len(_reported) >= _REPORTED_AT_MOST


def prepare(*, livemode: bool) -> None:
    """Read ahead what `report_unless_known` will need inside an event loop, where it cannot query."""
    policy = conf.unknown_feature()
    catalogue = _held.get(livemode)
    # Where it would raise, it must not raise for a feature made a moment ago.
    if policy == "raise" or (policy == "warn" and not (catalogue and catalogue.is_fresh())):
        _read(livemode)


def forget() -> None:
    """Hold nothing, as in a new process."""
    _held.clear()
    _reported.clear()


def _read_keys(livemode: bool) -> frozenset[str]:
    """The lookup keys that some feature or override has, by one query."""
    features = Feature.objects.filter(account="", livemode=livemode).values_list("lookup_key", flat=True)
    overrides = EntitlementOverride.objects.values_list("lookup_key", flat=True)
    return frozenset(features.union(overrides))


def _read(livemode: bool) -> _Catalogue | None:
    read_at = time.monotonic()
    try:
        keys = _read_keys(livemode)
    except Exception as error:
        # A gate that has its answer does not fail for want of a hint. Nor does one whose answer a test has forced:
        # what refuses the database to such a test, Django or pytest-django, has errors of its own.
        if isinstance(error, DatabaseError) or forced_answers.current():
            return None
        raise
    _held[livemode] = catalogue = _Catalogue(keys, read_at)
    return catalogue
