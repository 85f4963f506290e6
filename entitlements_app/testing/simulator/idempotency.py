"""Idempotency keys: the first result of a POST is kept for its key, and given again."""

import threading
from dataclasses import dataclass

from . import errors
from .clock import Clock

LONGEST = 255
KEPT_SECONDS = 24 * 3600

Result = tuple[int, dict[str, str], bytes]
Request = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class _Entry:
    request: Request
    at: float
    result: Result | None = None


class IdempotencyKeys:
    """Holds a key from `begin` on; `finish` keeps the result, or forgets the key if it is given none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def begin(self, key: str, request: Request) -> Result | None:
        """The result to give again, or `None` if the call is to be done.

        Raises ApiError: 400 for a key that is too long or was used for another request, 409 while that runs.
        """
        if len(key) > LONGEST:
            raise errors.ApiError(400, f"Idempotency keys have at most {LONGEST} characters.")
        now = self._clock.now()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.result is not None and entry.at <= now - KEPT_SECONDS):
                self._entries[key] = _Entry(request, now)
                return None
            if entry.request != request:
                raise errors.idempotency_mismatch(key)
            if entry.result is None:
                raise errors.trouble(409)
            return entry.result

    def finish(self, key: str, result: Result | None) -> None:
        with self._lock:
            if result is None:
                self._entries.pop(key, None)
            else:
                self._entries[key].result = result
