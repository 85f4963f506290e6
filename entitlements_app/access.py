"""Ask who is entitled to what: the one read path, under every gate.

One indexed query of the local database, or none where a cache has the answer. Doubt denies: nobody, an unknown key, a
deleted customer hold nothing.

The sync spellings raise `SynchronousOnlyOperation` inside an event loop, whoever asks: await their async twins there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import router
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.db.models.base import ModelState
from django.utils import timezone

from . import answers, cache, conf, forced_answers, known_features
from .answers import FOR_EVER, Reading
from .event_loop import in_event_loop
from .lookup_keys import check_key, check_keys
from .models import ActiveEntitlement, EntitlementOverride
from .subscribers import get_subscriber_model, is_nobody, subscriber_key
from .swallowed import noted
from .transactions import alias, release_connections


class Entitlements:
    """The lookup keys that a subscriber is entitled to, as of one moment. Immutable.

    `e.premium_support`, `e["premium-support"]` and `"premium_support" in e` give a `bool`. A key that no feature has is
    `False`, and `ENTITLEMENTS_UNKNOWN_FEATURE` says who is told. Keys are compared exactly. It inherits from no set or
    mapping: a method's name would be a gate always open.
    """

    __slots__ = ()

    def _read(self) -> Answer:
        raise NotImplementedError

    @property
    def as_of(self) -> datetime:
        """When the database was read."""
        return answers.moment(self._read()._reading.as_of)

    def has_all(self, *keys: str) -> bool:
        """Whether each of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        return _holds_all(self._read()._reading, check_keys(keys))

    def has_any(self, *keys: str) -> bool:
        """Whether one of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        keys = check_keys(keys)
        answer = self._read()
        held = [key for key in keys if answer._holds(key)]
        return bool(held)

    def metadata(self, key: str) -> dict[str, str]:
        """The metadata of the feature that this lookup key is held by; empty for a key that is not held.

        Stripe has no other place for limits and numbers (`e.metadata("seats").get("max", "1")`), and knows only texts.
        Of several features with the key, that is one that a customer of the subscriber holds, else one that is not
        archived. One query for all keys of an answer, in the first call. Raises `TypeError` for what is no key.
        """
        key = check_key(key)
        answer = self._read()
        return dict(answer._metadata_by_key().get(key, {})) if answer._holds(key) else {}

    def __getattr__(self, name: str) -> bool:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    @noted
    def __getitem__(self, key: str) -> bool:
        key = check_key(key)
        return self._read()._holds(key)

    def __contains__(self, key: object) -> bool:
        return self[key]  # type: ignore[index]  # it says what is no key

    @noted
    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._read()._reading.keys))

    @noted
    def __len__(self) -> int:
        return len(self._read()._reading.keys)

    @noted
    def __str__(self) -> str:
        """All of its keys: a key of a cache that is made of it, as `{% cache %}` does, is another for each answer."""
        return str(list(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Entitlements are read-only.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Entitlements are read-only.")


class Answer(Entitlements):
    """What the database said at one moment."""

    __slots__ = ("_metadata", "_reading")
    _reading: Reading
    _metadata: dict[str, dict[str, str]]

    def __init__(self, reading: Reading) -> None:
        object.__setattr__(self, "_reading", reading)

    def _read(self) -> Answer:
        return self

    def _holds(self, key: str) -> bool:
        if key in self._reading.keys:
            return True
        known_features.report_unless_known(key, livemode=self._reading.livemode)
        return False

    def _metadata_by_key(self) -> dict[str, dict[str, str]]:
        try:
            return self._metadata
        except AttributeError:
            refuse_in_event_loop(
                "entitlements.metadata would query, and this is async code: "
                'use await sync_to_async(entitlements.metadata)("key"), once for all keys.'
            )
        reading = self._reading
        using = router.db_for_read(ActiveEntitlement)
        object.__setattr__(self, "_metadata", answers.read_metadata(reading, using=using))
        return self._metadata

    def __reduce__(self) -> tuple[Any, ...]:
        return Answer, (self._reading,)

    def __repr__(self) -> str:
        return f"<Entitlements: {', '.join(self) or 'none'}>"


@noted
def get_entitlements(subscriber: object) -> Entitlements:
    """What this subscriber is entitled to now, in the configured mode. `None` and anonymous users hold nothing.

    Raises `TypeError` for an instance of another model than the subscriber's.
    """
    refuse_in_event_loop(_USE_TWINS)
    return read(subscriber)


async def aget_entitlements(subscriber: object) -> Entitlements:
    """`get_entitlements` for async code."""
    return await sync_to_async(read_ahead)(subscriber)


def has_entitlement(subscriber: object, *keys: str) -> bool:
    """Whether this subscriber is entitled to all of these lookup keys. Raises `TypeError` for no keys."""
    keys = check_keys(keys)
    refuse_in_event_loop(_USE_TWINS)
    return _holds_all(_reading_of(subscriber), keys)


async def ahas_entitlement(subscriber: object, *keys: str) -> bool:
    """`has_entitlement` for async code."""
    return await sync_to_async(has_entitlement)(subscriber, *keys)


_USE_TWINS = (
    "get_entitlements and has_entitlement would query, and this is async code: "
    "use await aget_entitlements(…) or await ahas_entitlement(…); for a permission await user.ahas_perm(…)."
)


async def wait_for_entitlement(subscriber: object, *keys: str, timeout: float = 30.0) -> bool:
    """Wait until this subscriber is entitled to all of these lookup keys, or `timeout` seconds have passed.

    Returns whether it is: for the moments after a checkout, until Stripe's event arrives. Asks the database itself,
    twice a second at first and then every two seconds, and keeps no connection in between (`CONN_MAX_AGE` aside).
    Stripe is not asked. Raises `TypeError` for no keys, or what is no subscriber.
    """
    keys = check_keys(keys)
    deadline = time.monotonic() + timeout
    pause = 0.5
    while True:
        is_entitled = await sync_to_async(_look)(subscriber, keys)
        left = deadline - time.monotonic()
        if is_entitled or left <= 0:
            return is_entitled
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.2, 2.0)


def _look(subscriber: object, keys: tuple[str, ...]) -> bool:
    try:
        return _read_anew(subscriber).has_all(*keys)
    finally:
        release_connections()


def prefetch_entitlements(subscribers: Iterable[Model]) -> None:
    """Read the answers of many subscribers at once, in two queries for each thousand of them.

    Whatever gate then asks about one of these very instances (`has_entitlement(member, …)`, the filter `entitled_to`,
    a serializer) has its answer without a query, as it was now. Copies and pickles do not carry it. Call it again for
    newer answers. Raises `TypeError` for an instance of another model than the subscriber's.
    """
    refuse_in_event_loop("prefetch_entitlements would query, and this is async code: use sync_to_async.")
    instances = [(subscriber, subscriber_key(subscriber)) for subscriber in subscribers]
    livemode = conf.of_gates().livemode
    keys = {key for _, key in instances if key is not None}
    readings = answers.read_many(keys, livemode=livemode, using=router.db_for_read(ActiveEntitlement))
    for subscriber, key in instances:
        if key is not None:
            subscriber._entitlements_prefetched = _Prefetched(readings[key], subscriber._state)  # type: ignore[attr-defined]


class _Prefetched:
    """An answer that an instance carries in this process. A copy of the instance has another state, of Django's."""

    __slots__ = ("reading", "state")

    def __init__(self, reading: Reading | None = None, state: ModelState | None = None) -> None:
        self.reading, self.state = reading, state

    def of(self, subscriber: Any, key: Any, livemode: bool) -> Reading | None:
        """The answer, if it is this very instance's."""
        # An instance that was saved as a new row, Django's way to copy one, has another key.
        if self.reading and self.reading[:2] == (key, livemode) and self.state is subscriber._state:
            return self.reading
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Prefetched, ()  # a pickled user may live long, in a cache or a queue


def subscribers_with(key: str) -> QuerySet[Model]:
    """The subscribers who are entitled to this lookup key now, in the configured mode, overrides included.

    A queryset of the subscriber's model, to filter and to page. Raises `TypeError` for what is no key.
    """
    key = check_key(key)
    known_features.report_unless_known(key, livemode=conf.livemode())
    overrides = EntitlementOverride.objects.in_force(timezone.now()).in_mode(conf.livemode()).filter(lookup_key=key)
    paying = ActiveEntitlement.objects.granting(conf.livemode()).with_key(key)
    holders = paying.filter(customer__subscriber__isnull=False).values("customer__subscriber")
    granted = overrides.filter(effect=EntitlementOverride.Effect.GRANT).values("subscriber")
    denied = overrides.filter(effect=EntitlementOverride.Effect.DENY, subscriber=OuterRef("pk"))
    everyone = get_subscriber_model()._default_manager.all()
    return everyone.filter(pk__in=holders.union(granted)).exclude(Exists(denied))


def _holds_all(reading: Reading, keys: tuple[str, ...]) -> bool:
    if reading.keys.issuperset(keys):
        return True
    for key in keys:  # each of them
        if key not in reading.keys:
            known_features.report_unless_known(key, livemode=reading.livemode)
    return False


def read(subscriber: object) -> Answer:
    """The answer, from wherever it is held. Raises `TypeError` for an instance of another model."""
    return Answer(_reading_of(subscriber))


def _reading_of(subscriber: object) -> Reading:
    settings = conf.of_gates()
    key = subscriber_key(subscriber)
    if forced_answers.current() and (forced := _forced(subscriber, key)) is not None:
        return forced
    if key is None:
        return Reading(None, settings.livemode, frozenset(), time.time(), FOR_EVER)
    prefetched: _Prefetched | None = getattr(subscriber, "_entitlements_prefetched", None)
    if prefetched is not None and (reading := prefetched.of(subscriber, key, settings.livemode)):
        return reading
    if settings.local_seconds and (held := cache.held_here(key, livemode=settings.livemode)):
        return held
    if settings.cache or settings.local_seconds:
        return cache.read_through(key, livemode=settings.livemode, read=_read_primary)
    using = router.db_for_read(ActiveEntitlement)
    return answers.read_one(key, livemode=settings.livemode, using=using)


def _forced(subscriber: object, key: Any) -> Reading | None:
    """What a test has set for this subscriber, saved or not. Nobody still holds nothing."""
    keys = None if is_nobody(subscriber) else forced_answers.keys_of(subscriber, key)
    return None if keys is None else Reading(key, conf.of_gates().livemode, keys, time.time(), FOR_EVER)


def _read_primary(subscriber_id: Any, livemode: bool) -> Reading:
    """A replica may be behind, and what is kept must not be."""
    return answers.read_one(subscriber_id, livemode=livemode, using=alias())


def _read_anew(subscriber: object) -> Answer:
    """As `read`, but past what is held in this process."""
    key = subscriber_key(subscriber)
    if key is None or _forced(subscriber, key) is not None:
        return read(subscriber)
    return Answer(_read_primary(key, conf.livemode()))


def read_ahead(subscriber: object) -> Answer:
    """`read`, for async code: what is asked of the answer costs no query later."""
    answer = read(subscriber)
    known_features.prepare(livemode=answer._reading.livemode)
    return answer


def refuse_in_event_loop(remedy: str) -> None:
    """Raise `SynchronousOnlyOperation` with this remedy where a query would."""
    if in_event_loop():
        raise SynchronousOnlyOperation(remedy)
