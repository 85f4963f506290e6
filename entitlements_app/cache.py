"""Answers shared through Django's cache, and held in the process: best effort over the database, and never behind it.

No question that begins after an invalidation gets the answer of before. What that takes is in Note [Two keys].

    Note [Two keys]
    A subscriber has two entries, read by one `get_many`: `v`, a random token, and `d`, an answer with the token that it
    was read under. An answer counts if its token is the one in `v`. A reader takes the token first and then reads the
    database; a writer, once it has committed, sets another token, and never an answer. So an answer that was read
    before the commit carries a token of before it, however late it is stored, and whichever entry was evicted.

    Inside a transaction a read may see what was true when the transaction began, or what is not committed yet. So an
    answer that was read there is not stored: it is read again after the commit. And a transaction that has changed an
    answer asks the database.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary, ref

from django.core.cache import BaseCache, caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections, transaction

from . import conf
from .answers import FOR_EVER, Reading
from .transactions import alias

logger = logging.getLogger(__name__)

Read = Callable[[Any, bool], Reading]  # asks the database that is written to

LOG_EVERY: Final = 60.0  # seconds between two lines about a cache that is down
_MOST_HELD: Final = 10_000  # answers in a process


def read_through(subscriber_id: Any, *, livemode: bool, read: Read) -> Reading:
    """The answer that is held, or else what `read` gives, which is then held. A cache that is down is passed by."""
    if _is_changed_here(subscriber_id):
        return read(subscriber_id, livemode)
    began, changes = time.monotonic(), _changes
    settings = conf.of_gates()
    shared = _Shared.of(settings.cache, subscriber_id, livemode)
    reading = shared.get() if shared else None
    if reading is None and not connections[alias()].get_autocommit():
        _fill_after_commit(subscriber_id, livemode, read)
        return read(subscriber_id, livemode)
    if reading is None:
        token = shared.take_token() if shared else None
        reading = read(subscriber_id, livemode)
        if shared and token:
            shared.set(reading, token)
    if settings.local_seconds:
        _hold(reading, until=began + settings.local_seconds, changes=changes)
    return reading


def held(subscriber_id: Any, *, livemode: bool) -> Reading | None:
    """The answer that a gate in this process gets without asking the database, if it is held. Fills nothing."""
    settings = conf.of_gates()
    if _is_changed_here(subscriber_id):
        return None
    if settings.local_seconds and (reading := held_here(subscriber_id, livemode=livemode)):
        return reading
    shared = _Shared.of(settings.cache, subscriber_id, livemode)
    return shared.get() if shared else None


def invalidate(subscriber_ids: Collection[Any], *, livemode: bool | None = None) -> None:
    """Once the open transaction has committed, nobody gets the present answers of these subscribers any more.

    In one mode, or in both. Until then this connection asks the database. After a rollback nothing happens.
    """
    settings = conf.of_gates()
    if subscriber_ids and (settings.cache or settings.local_seconds):
        modes = (True, False) if livemode is None else (livemode,)
        invalidation = _Invalidation(frozenset(subscriber_ids), modes)
        _here.invalidations.add(ref(invalidation, _here.invalidations.discard))
        transaction.on_commit(invalidation, using=alias())


# Flags


def raise_flag(name: str, *, seconds: float) -> bool:
    """Whether the flag was down. It always is where it cannot be kept: no cache, one that fails, one of one process."""
    cache = _of_flags()
    if cache is None:
        return True
    try:
        if cache.get(_flag_key(name)) is not None:  # as nearly always in a burst
            return False
        # A client of Memcached that cannot reach it says no, too.
        return cache.add(_flag_key(name), "1", timeout=seconds) or cache.get(_flag_key(name)) is None
    except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are)
        _down.tell(error)
        return True


def lower_flag(name: str) -> None:
    """If the cache fails, the flag ends by itself."""
    cache = _of_flags()
    if cache is not None:
        try:
            cache.delete(_flag_key(name))
        except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are)
            _down.tell(error)


def _of_flags() -> BaseCache | None:
    settings = conf.of_gates()
    cache = caches[settings.cache] if settings.cache else None
    return None if isinstance(cache, LocMemCache) else cache  # where another process could never lower it


def _flag_key(name: str) -> str:
    return f"entitlements:{name}:{'live' if conf.of_gates().livemode else 'test'}"


# In the process

_held: dict[tuple[Any, bool], tuple[float, Reading]] = {}
_changes = 0  # that this process has told of: what was read before one may be older than it
_changing = threading.Lock()


def held_here(subscriber_id: Any, *, livemode: bool) -> Reading | None:
    """The answer that this process holds, for `ENTITLEMENTS_LOCAL_SECONDS` at most from before it was read."""
    entry = _held.get((subscriber_id, livemode))
    if entry is None or time.monotonic() >= entry[0] or time.time() >= entry[1].until:
        return None
    return None if _is_changed_here(subscriber_id) else entry[1]


def _hold(reading: Reading, *, until: float, changes: int) -> None:
    with _changing:
        if changes != _changes:
            return
        if len(_held) >= _MOST_HELD:
            _held.clear()
        _held[reading.subscriber_id, reading.livemode] = until, reading


def _let_go(answers: Collection[tuple[Any, bool]]) -> None:
    global _changes
    with _changing:
        _changes += 1
        for answer in answers:
            _held.pop(answer, None)


def forget() -> None:
    """Hold nothing, as in a new process."""
    _held.clear()
    _down.last_told = None


# In the transaction


class _Here(threading.local):
    """What this thread's connection has still to do after its commit.

    Held weakly: a rollback drops the callbacks, and with them these.
    """

    def __init__(self) -> None:
        self.invalidations: set[ref[_Invalidation]] = set()
        self.fills: WeakValueDictionary[tuple[Any, bool], _Fill] = WeakValueDictionary()


_here = _Here()


def _is_changed_here(subscriber_id: Any) -> bool:
    """Whether this connection is about to invalidate the answers of this subscriber, in whatever mode."""
    if not _here.invalidations:  # as nearly always
        return False
    pending = [each() for each in tuple(_here.invalidations)]
    return any(each and not each.done and subscriber_id in each.subscriber_ids for each in pending)


class _Invalidation:
    def __init__(self, subscriber_ids: frozenset[Any], modes: tuple[bool, ...]) -> None:
        self.subscriber_ids, self.modes = subscriber_ids, modes
        self.done = False

    def __call__(self) -> None:
        answers = [(pk, livemode) for pk in self.subscriber_ids for livemode in self.modes]
        try:
            settings = conf.of_gates()
            if settings.cache:
                token = _new_token()
                tokens = {_key("v", pk, livemode): token for pk, livemode in answers}
                if caches[settings.cache].set_many(tokens, timeout=_token_seconds(settings)):
                    raise OSError("The cache did not store a token.")  # clients of Memcached say so without raising
        except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are: the commit stands)
            _down.tell(error)
        _let_go(answers)  # after that, as this process would take an old one from the shared cache again
        self.done = True


def _fill_after_commit(subscriber_id: Any, livemode: bool, read: Read) -> None:
    in_atomic = connections[alias()].in_atomic_block  # else the site commits by hand, and nobody is told when
    if in_atomic and (subscriber_id, livemode) not in _here.fills:
        fill = _Fill(subscriber_id, livemode, read)
        _here.fills[subscriber_id, livemode] = fill
        transaction.on_commit(fill, using=alias(), robust=True)


class _Fill:
    def __init__(self, subscriber_id: Any, livemode: bool, read: Read) -> None:
        self.subscriber_id, self.livemode, self.read = subscriber_id, livemode, read

    def __call__(self) -> None:
        read_through(self.subscriber_id, livemode=self.livemode, read=self.read)


# In the shared cache


class _Shared:
    """One subscriber's two entries. Whatever goes wrong with the cache is logged, and is a miss."""

    def __init__(self, cache: BaseCache, subscriber_id: Any, livemode: bool) -> None:
        self._cache, self._subscriber_id, self._livemode = cache, subscriber_id, livemode
        self._token_key, self._data_key = _key("v", subscriber_id, livemode), _key("d", subscriber_id, livemode)
        self._token: str | None = None
        self._is_down = False

    @classmethod
    def of(cls, cache: str | None, subscriber_id: Any, livemode: bool) -> _Shared | None:
        return None if cache is None else cls(caches[cache], subscriber_id, livemode)

    def get(self) -> Reading | None:
        try:
            entries = self._cache.get_many((self._token_key, self._data_key))
        except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are)
            self._fails(error)
            return None
        self._token = entries.get(self._token_key)
        reading = self._decode(entries.get(self._data_key))
        return reading if reading is not None and time.time() < reading.until else None

    def take_token(self) -> str | None:
        """The token to store an answer with, if there is a cache. Taken before the answer is read."""
        if self._token is not None or self._is_down:
            return self._token
        token = _new_token()
        try:
            added = self._cache.add(self._token_key, token, timeout=_token_seconds(conf.of_gates()))
            return token if added else self._cache.get(self._token_key)
        except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are)
            self._fails(error)
            return None

    def set(self, reading: Reading, token: str) -> None:
        until = None if reading.until == FOR_EVER else reading.until
        text = json.dumps([token, reading.as_of, until, *reading.keys])
        try:
            self._cache.set(self._data_key, text, timeout=conf.of_gates().cache_seconds)
        except Exception as error:  # noqa: BLE001  (of whatever kind the backend's are)
            self._fails(error)

    def _decode(self, text: Any) -> Reading | None:
        if text is None or self._token is None:
            return None
        try:
            token, as_of, until, *keys = json.loads(text)
        except (TypeError, ValueError):  # not what we stored
            return None
        if token != self._token:
            return None
        return Reading(
            self._subscriber_id, self._livemode, frozenset(keys), as_of, FOR_EVER if until is None else until
        )

    def _fails(self, error: Exception) -> None:
        self._is_down = True
        _down.tell(error)


class _Down:
    """One line a minute about a cache that is down."""

    last_told: float | None = None

    def tell(self, error: Exception) -> None:
        now = time.monotonic()
        if self.last_told is None or now - self.last_told >= LOG_EVERY:
            self.last_told = now
            logger.warning(
                "The cache of ENTITLEMENTS_CACHE fails (%s), so the database answers. An answer that changes meanwhile "
                "may still be given as it was, for up to ENTITLEMENTS_CACHE_SECONDS.",
                type(error).__name__,
            )
            logger.debug("How the cache fails:", exc_info=error)


_down = _Down()


def _key(entry: str, subscriber_id: Any, livemode: bool) -> str:
    pk = str(subscriber_id)
    if not isinstance(subscriber_id, (int, UUID)):  # of a text every cache would ask something else
        pk = sha256(pk.encode()).hexdigest()
    return f"entitlements:{entry}:{'live' if livemode else 'test'}:{pk}"


def _new_token() -> str:
    return secrets.token_hex(8)


def _token_seconds(settings: conf.OfGates) -> float:
    # One that goes before its answer makes a miss, nothing worse.
    return 2 * settings.cache_seconds
