"""Ask who is entitled to what: the one read path, under every gate.

One indexed query, of the local database. Doubt denies: nobody, an unknown key, a deleted customer hold nothing.

The sync spellings raise `SynchronousOnlyOperation` inside an event loop, whoever asks: await their async twins there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.utils import timezone

from . import conf, known_features
from .event_loop import in_event_loop
from .models import ActiveEntitlement
from .subscribers import subscriber_key
from .swallowed import noted


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
        return self._read()._as_of

    def has_all(self, *keys: str) -> bool:
        """Whether each of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        keys = check_keys(keys)
        answer = self._read()
        missing = [key for key in keys if not answer._holds(key)]  # all of them: each unknown key is reported
        return not missing

    def has_any(self, *keys: str) -> bool:
        """Whether one of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        keys = check_keys(keys)
        answer = self._read()
        held = [key for key in keys if answer._holds(key)]
        return bool(held)

    def __getattr__(self, name: str) -> bool:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._read()._holds(name)

    @noted
    def __getitem__(self, key: str) -> bool:
        (key,) = check_keys((key,))
        return self._read()._holds(key)

    def __contains__(self, key: object) -> bool:
        return self[key]  # type: ignore[index]  # it says what is no key

    @noted
    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._read()._keys))

    @noted
    def __len__(self) -> int:
        return len(self._read()._keys)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Entitlements are read-only.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Entitlements are read-only.")


class Answer(Entitlements):
    """What the database said at one moment."""

    __slots__ = ("_as_of", "_keys", "_livemode")
    _keys: frozenset[str]
    _livemode: bool
    _as_of: datetime

    def __init__(self, keys: frozenset[str], livemode: bool, as_of: datetime) -> None:
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_livemode", livemode)
        object.__setattr__(self, "_as_of", as_of)

    def _read(self) -> Answer:
        return self

    def _holds(self, key: str) -> bool:
        if key in self._keys:
            return True
        known_features.report_unless_known(key, livemode=self._livemode)
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        return Answer, (self._keys, self._livemode, self._as_of)

    def __repr__(self) -> str:
        return f"<Entitlements: {', '.join(self) or 'none'}>"


@noted
def get_entitlements(subscriber: object) -> Entitlements:
    """What this subscriber is entitled to now, in the configured mode. `None` and anonymous users hold nothing.

    Raises `TypeError` for an instance of another model than the subscriber's.
    """
    refuse_in_event_loop(
        "get_entitlements and has_entitlement would query, and this is async code: "
        "use await aget_entitlements(…) or await ahas_entitlement(…); for a permission await user.ahas_perm(…)."
    )
    return read(subscriber)


async def aget_entitlements(subscriber: object) -> Entitlements:
    """`get_entitlements` for async code."""
    return await sync_to_async(read_ahead)(subscriber)


def has_entitlement(subscriber: object, *keys: str) -> bool:
    """Whether this subscriber is entitled to all of these lookup keys. Raises `TypeError` for no keys."""
    check_keys(keys)
    return get_entitlements(subscriber).has_all(*keys)


async def ahas_entitlement(subscriber: object, *keys: str) -> bool:
    """`has_entitlement` for async code."""
    return await sync_to_async(has_entitlement)(subscriber, *keys)


def read(subscriber: object) -> Answer:
    """Ask the database. Raises `TypeError` for an instance of another model than the subscriber's."""
    as_of = timezone.now()
    livemode = conf.livemode()
    key = subscriber_key(subscriber)
    keys = frozenset() if key is None else ActiveEntitlement.objects.answer(key, livemode)
    return Answer(keys, livemode, as_of)


def read_ahead(subscriber: object) -> Answer:
    """`read`, for async code: what is asked of the answer costs no query later."""
    answer = read(subscriber)
    known_features.prepare(livemode=answer._livemode)
    return answer


def refuse_in_event_loop(remedy: str) -> None:
    """Raise `SynchronousOnlyOperation` with this remedy where a query would."""
    if in_event_loop():
        raise SynchronousOnlyOperation(remedy)


def check_keys(keys: tuple[object, ...]) -> tuple[str, ...]:
    """These lookup keys as plain texts, where members of an `Enum` of texts were given.

    Raises `TypeError` unless all are keys, and there is at least one: all of nothing would be true.
    """
    if not keys:
        raise TypeError("Name at least one lookup key.")
    for key in keys:
        if not isinstance(key, str) or not key:
            quotes = " Are its quotes missing?" if key is None or key == "" else ""
            raise TypeError(f"A lookup key is a text that is not empty, not {key!r}.{quotes}")
    # Not `str(key)`, which for a member of `class Key(str, Enum)` is "Key.MEMBER".
    return tuple(str.__str__(key) for key in keys)
