"""What can be made to go wrong. Each fault is switched on for a number of times, or until `clear`."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from . import errors
from .events import type_matches


@dataclass(frozen=True)
class Delivery:
    """One attempt-to-be: an event for an endpoint. `attempt` counts from 1."""

    event: str
    type: str
    endpoint: str
    attempt: int = 1


@dataclass
class WebhookFaults:
    """Faults between an event and the queue of deliveries. Used under the account's lock."""

    drop_left: int = 0
    drop_type: str = "*"
    double_left: int = 0
    double_type: str = "*"
    reorder_left: int = 0
    reorder_type: str = "*"
    held: list[Delivery] = field(default_factory=list)
    holds: bool = False

    def drops(self, delivery: Delivery) -> bool:
        if self.drop_left == 0 or not type_matches(delivery.type, self.drop_type):
            return False
        self.drop_left -= 1
        return True

    def passed_on(self, delivery: Delivery) -> list[Delivery]:
        """What is queued now: twice if doubled, nothing while held, all held in reverse at the end."""
        copies = [delivery]
        if self.double_left and type_matches(delivery.type, self.double_type):
            self.double_left -= 1
            copies *= 2
        if self.holds:
            self.held += copies
            return []
        if not self.reorder_left or not type_matches(delivery.type, self.reorder_type):
            return copies
        self.reorder_left -= 1
        self.held += copies
        return [] if self.reorder_left else self.release()

    def release(self, *, reverse: bool = True) -> list[Delivery]:
        self.reorder_left = 0
        held, self.held = self.held, []
        return held[::-1] if reverse else held


class Hold:
    """Requests whose answers are computed at once and sent only after `release`."""

    def __init__(self, method: str, path: str, times: int) -> None:
        self.method, self.path, self.left = method, path, times
        self._arrived = threading.Semaphore(0)
        self._released = threading.Event()

    def wait_for_request(self, timeout: float = 10.0) -> None:
        """Return when one more request is held. Raises TimeoutError if none came."""
        if not self._arrived.acquire(timeout=timeout):
            raise TimeoutError(f"no {self.method} {self.path} within {timeout} s")

    def release(self) -> None:
        """Let the held answers go; nothing more is held."""
        self.left = 0
        self._released.set()

    def keep_waiting(self) -> None:
        self._arrived.release()
        self._released.wait()


@dataclass
class _Failure:
    status: int
    left: int
    path: str | None
    method: str | None
    reason: str
    should_retry: bool | None

    def meets(self, method: str, path: str) -> bool:
        return self.left > 0 and self.method in (None, method) and (self.path is None or fnmatchcase(path, self.path))

    def error(self) -> errors.ApiError:
        error = errors.trouble(self.status, reason=self.reason)
        if self.should_retry is not None:
            error.headers["Stripe-Should-Retry"] = str(self.should_retry).lower()
        return error


@dataclass
class LostAnswer:
    """What becomes of the answers to so many changes that are done: no answer at all, or one with this status."""

    left: int = 0
    path: str = "*"
    status: int | None = None


class RequestFaults:
    """Faults of the API itself. Paths may hold `*`; None means every path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[_Failure] = []
        self._drops_left = 0
        self._lost = LostAnswer()
        self._slow: dict[str, float] = {}
        self._holds: list[Hold] = []
        self._stopped = threading.Event()
        self.no_date = False

    def fail(
        self,
        *,
        status: int,
        times: int,
        path: str | None,
        method: str | None,
        reason: str | None,
        should_retry: bool | None,
    ) -> None:
        failure = _Failure(status, times, path, method, reason or _usual_reason(path), should_retry)
        failure.error()  # ValueError now, if there is no such error
        with self._lock:
            self._failures.append(failure)

    def drop(self, times: int) -> None:
        with self._lock:
            self._drops_left = times

    def lose(self, lost: LostAnswer) -> None:
        if lost.status is not None:
            errors.trouble(lost.status)  # ValueError now, if there is no such error
        with self._lock:
            self._lost = lost

    def slow(self, seconds: float, path: str | None) -> None:
        with self._lock:
            self._slow[path or "*"] = seconds

    def add_hold(self, hold: Hold) -> None:
        with self._lock:
            self._holds.append(hold)

    def remove_hold(self, hold: Hold) -> None:
        hold.release()
        with self._lock:
            self._holds.remove(hold)

    def clear(self) -> None:
        with self._lock:
            self._failures.clear()
            self._slow.clear()
            self._drops_left = 0
            self._lost = LostAnswer()
            self.no_date = False
        self._release(list(self._holds))

    def start(self) -> None:
        self._stopped.clear()

    def stop(self) -> None:
        """Nobody waits here any longer, so that the server's threads can end."""
        self._stopped.set()
        self._release(list(self._holds))

    def takes_connection(self) -> bool:
        with self._lock:
            self._drops_left -= (taken := self._drops_left > 0)
            return taken

    def loses_answer(self, method: str, path: str) -> LostAnswer | None:
        with self._lock:
            lost = self._lost
            if method == "GET" or lost.left <= 0 or not fnmatchcase(path, lost.path):
                return None
            lost.left -= 1
            return lost

    def failure_for(self, method: str, path: str) -> errors.ApiError | None:
        with self._lock:
            for failure in self._failures:
                if failure.meets(method, path):
                    failure.left -= 1
                    return failure.error()
        return None

    def delay(self, path: str) -> None:
        with self._lock:
            seconds = max((s for pattern, s in self._slow.items() if fnmatchcase(path, pattern)), default=0.0)
        if seconds:
            self._stopped.wait(seconds)

    def hold_for(self, method: str, path: str) -> Hold | None:
        with self._lock:
            for hold in self._holds:
                if hold.left > 0 and hold.method == method and fnmatchcase(path, hold.path):
                    hold.left -= 1
                    return hold
        return None

    @staticmethod
    def _release(holds: Iterable[Hold]) -> None:
        for hold in holds:
            hold.release()


def _usual_reason(path: str | None) -> str:
    return "global-rate" if path is None else "endpoint-rate"
