"""Answers that a test has set, instead of what the database says. Empty outside of tests.

Process-wide, so that the threads of a live server see them. `testing.override_entitlements` is the way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any


@dataclass(frozen=True, eq=False)
class Forced:
    """Exactly these keys: for one subscriber, known by its key or as this object, or for all (`None`).

    An object that was not saved yet is the same as itself only, as Django compares instances.
    """

    keys: frozenset[str]
    subscriber: object | None
    subscriber_id: Any


_lock = Lock()
# Replaced, never changed in place: whoever holds it can tell by its identity that another test came.
stack: tuple[Forced, ...] = ()


def current() -> tuple[Forced, ...]:
    return stack


def push(forced: Forced) -> None:
    global stack
    with _lock:
        stack = (*stack, forced)


def remove(forced: Forced) -> None:
    """Also one that is not the innermost: threads and fixtures end in any order."""
    global stack
    with _lock:
        place = next(n for n, each in enumerate(stack) if each is forced)
        stack = stack[:place] + stack[place + 1 :]


def keys_of(subscriber: object, subscriber_id: Any) -> frozenset[str] | None:
    """What the innermost that is about this subscriber gives it, `None` if none is."""
    for forced in reversed(stack):
        # In this order: a lazy object, as `request.user`, compares what is in it.
        if forced.subscriber is None or subscriber == forced.subscriber:
            return forced.keys
        if subscriber_id is not None and forced.subscriber_id == subscriber_id:
            return forced.keys
    return None


def all_keys() -> frozenset[str]:
    """Keys that count as known, as gates ask for them in tests."""
    return frozenset(key for forced in stack for key in forced.keys)
