"""Caches in whose calls a test can hold a reader."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache


class Hold:
    """Whoever passes after `close` waits until `open`; `wait` returns once somebody does."""

    def __init__(self) -> None:
        self._arrived, self._released = threading.Event(), threading.Event()
        self._released.set()

    def close(self) -> Hold:
        self._arrived.clear()
        self._released.clear()
        return self

    def wait(self) -> None:
        assert self._arrived.wait(timeout=20), "nobody came"

    def open(self) -> None:
        self._released.set()

    def pass_by(self) -> None:
        if not self._released.is_set():
            self._arrived.set()
            assert self._released.wait(timeout=20), "never released"


# By the name of a call: those about to make it, and those who have its result.
before: dict[str, Hold] = {name: Hold() for name in ("get_many", "add", "set")}
after: dict[str, Hold] = {name: Hold() for name in ("get_many", "add", "set")}
calls: Counter[str] = Counter()


class _Held:
    def get_many(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("get_many", *args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("add", *args, **kwargs)

    def set(self, key: str, *args: Any, **kwargs: Any) -> Any:
        # Only readers store answers; a writer's token, which LocMem sets by this call too, passes.
        if ":d:" not in key:
            return super().set(key, *args, **kwargs)  # type: ignore[misc]
        return self._call("set", key, *args, **kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        before[name].pass_by()
        try:
            return getattr(super(), name)(*args, **kwargs)
        finally:
            after[name].pass_by()


class HeldLocMem(_Held, LocMemCache):
    pass


class HeldRedis(_Held, RedisCache):
    pass


class RefusingLocMem(LocMemCache):
    """As Memcached's clients do while a server is away."""

    def set_many(self, data: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return list(data)
