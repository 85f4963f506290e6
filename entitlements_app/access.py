"""Ask who is entitled to what: the one read path, under every gate.

One indexed query, of the local database. Doubt denies: nobody, an unknown key, a deleted customer hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.utils import timezone

from . import conf
from .models import ActiveEntitlement
from .subscribers import subscriber_key


class Entitlements:
    """The lookup keys that a subscriber is entitled to, as of one moment. Immutable.

    `e.premium_support`, `e["premium-support"]` and `"premium_support" in e` give a `bool`; a key that nobody knows is
    `False`. Keys are compared exactly. It inherits from no set or mapping: a method's name would be a gate always open.
    """

    __slots__ = ()

    def _read(self) -> _Known:
        raise NotImplementedError

    @property
    def as_of(self) -> datetime:
        """When the database was read."""
        return self._read()._as_of

    def has_all(self, *keys: str) -> bool:
        """Whether each of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        check_keys(keys)
        return self._read()._keys.issuperset(keys)

    def has_any(self, *keys: str) -> bool:
        """Whether one of these lookup keys is held. Raises `TypeError` for no keys, or what is not a key."""
        check_keys(keys)
        return not self._read()._keys.isdisjoint(keys)

    def __getattr__(self, name: str) -> bool:
        if name.startswith("_"):
            raise AttributeError(name)
        return name in self._read()._keys

    def __getitem__(self, key: str) -> bool:
        check_keys((key,))
        return key in self._read()._keys

    def __contains__(self, key: object) -> bool:
        check_keys((key,))
        return key in self._read()._keys

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._read()._keys))

    def __len__(self) -> int:
        return len(self._read()._keys)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Entitlements are read-only.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Entitlements are read-only.")


class _Known(Entitlements):
    """An answer that was read."""

    __slots__ = ("_as_of", "_keys")
    _keys: frozenset[str]
    _as_of: datetime

    def __init__(self, keys: frozenset[str], as_of: datetime) -> None:
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_as_of", as_of)

    def _read(self) -> _Known:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Known, (self._keys, self._as_of)

    def __repr__(self) -> str:
        return f"<Entitlements: {', '.join(self) or 'none'}>"


class _OfRequest(Entitlements):
    """`request.entitlements`: the answer for the request's subscriber, read when first asked for."""

    __slots__ = ("_request",)
    _request: HttpRequest

    def __init__(self, request: HttpRequest) -> None:
        object.__setattr__(self, "_request", request)

    def _read(self) -> _Known:
        return _of_request(self._request)

    def __repr__(self) -> str:
        return "<Entitlements of a request>"


def get_entitlements(subscriber: object) -> Entitlements:
    """What this subscriber is entitled to now, in the configured mode. `None` and anonymous users hold nothing.

    Raises `TypeError` for an instance of another model than the subscriber's.
    """
    return _read(subscriber)


async def aget_entitlements(subscriber: object) -> Entitlements:
    """`get_entitlements` for async code."""
    return await sync_to_async(get_entitlements)(subscriber)


def has_entitlement(subscriber: object, *keys: str) -> bool:
    """Whether this subscriber is entitled to all of these lookup keys. Raises `TypeError` for no keys."""
    check_keys(keys)
    return get_entitlements(subscriber).has_all(*keys)


async def ahas_entitlement(subscriber: object, *keys: str) -> bool:
    """`has_entitlement` for async code."""
    check_keys(keys)
    return (await aget_entitlements(subscriber)).has_all(*keys)


def get_request_entitlements(request: HttpRequest) -> Entitlements:
    """The answer for the request's subscriber: no query before it is asked, one for each user object after that."""
    return _OfRequest(request)


async def aget_request_entitlements(request: HttpRequest) -> Entitlements:
    """The same for async code, read at once; the sync spelling then has its answer without a query."""
    user = getattr(request, "user", None)
    memo = _memo(request, user)
    if memo is None:
        function = conf.subscriber_from_request() or _user_of
        asked = function if iscoroutinefunction(function) else sync_to_async(function)
        memo = _remember(request, user, await sync_to_async(_read)(await asked(request)))
    return memo


def _of_request(request: HttpRequest) -> _Known:
    user = getattr(request, "user", None)
    memo = _memo(request, user)
    if memo is None:
        function = conf.subscriber_from_request() or _user_of
        asked = async_to_sync(function) if iscoroutinefunction(function) else function
        memo = _remember(request, user, _read(asked(request)))
    return memo


def _read(subscriber: object) -> _Known:
    as_of = timezone.now()
    key = subscriber_key(subscriber)
    keys = frozenset() if key is None else ActiveEntitlement.objects.answer(key, conf.livemode())
    return _Known(keys, as_of)


def check_keys(keys: tuple[object, ...]) -> None:
    """Raise `TypeError` unless these are lookup keys, and at least one: all of nothing would be true."""
    if not keys:
        raise TypeError("Name at least one lookup key.")
    for key in keys:
        if not isinstance(key, str) or not key:
            raise TypeError(f"A lookup key is a text that is not empty, not {key!r}.")


def _user_of(request: HttpRequest) -> Any:
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated and user.is_active else None


def _memo(request: HttpRequest, user: object) -> _Known | None:
    held = request.__dict__.get("_entitlements_memo")
    return held[1] if held is not None and held[0] is user else None


def _remember(request: HttpRequest, user: object, answer: _Known) -> _Known:
    # An identity, not an id: the memo keeps the user object alive, so that no other can take its place.
    if getattr(request, "user", None) is user:  # it may have been replaced while an async look-up waited
        request.__dict__["_entitlements_memo"] = (user, answer)
    return answer
