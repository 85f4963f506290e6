import threading
import time


class Clock:
    """The simulator's only time: `Date`, `created` and the signature's `t` are read from it.

    It starts as real time. Moving it does not change how long a retry or a delay lasts: those are real.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset = 0.0
        self._frozen: float | None = None

    def now(self) -> float:
        with self._lock:
            return self._now()

    @property
    def seconds(self) -> int:
        """Whole Unix seconds, as Stripe writes them everywhere."""
        return int(self.now())

    @property
    def is_frozen(self) -> bool:
        return self._frozen is not None

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._set(self._now() + seconds)

    def set(self, unix: float) -> None:
        with self._lock:
            self._set(unix)

    def freeze(self) -> None:
        with self._lock:
            self._frozen = self._now()

    def unfreeze(self) -> None:
        """Go on from the time shown, not from real time."""
        with self._lock:
            now = self._now()
            self._frozen = None
            self._set(now)

    def _now(self) -> float:
        return time.time() + self._offset if self._frozen is None else self._frozen

    def _set(self, unix: float) -> None:
        if self._frozen is None:
            self._offset = unix - time.time()
        else:
            self._frozen = unix
