"""The connection on which this process enqueues: its own, with short time-outs, so that a dead broker delays nobody.

Note [A dead broker]
Celery's own pool waits for a broker for as long as its transport does: for ever, where something accepts the
connection and never answers, and publishing tries again and again. What is enqueued here is only a wake-up, and
rows wait as well as messages. So each step has TIMEOUT, nothing is repeated, and after a failure this process asks
no more for REST, or for ten times as long as the failure took: a broker that never answers costs a process at most
a tenth of its time.

A connection that has been idle may have been closed at the other end, which the first write does not always tell.
So it is used again for IDLE only, and one that fails fast is replaced once.

A connection is of one process: a forked one makes its own. It is of one thread at a time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

TIMEOUT: Final = 1.0
REST: Final = 1.0
IDLE: Final = 10.0

_TIMEOUTS: Final = {
    "socket_timeout": TIMEOUT,  # of Redis and Valkey
    "socket_connect_timeout": TIMEOUT,
    "retry_on_timeout": False,
    "read_timeout": TIMEOUT,  # of AMQP
    "write_timeout": TIMEOUT,
}


class Unreachable(Exception):
    """The broker is not asked now: it has just failed, or another thread has been waiting for it too long."""


def send(task: Any) -> None:
    """Enqueue a task of Celery's, without arguments; run it here if Celery is told to.

    Raises whatever the transport does, or `Unreachable`.
    """
    if task.app.conf.task_always_eager:
        task.apply_async()
    else:
        _of_this_process().send(task)


def is_resting() -> bool:
    """Whether `send` would refuse, as the broker has just failed."""
    return _of_this_process().is_resting()


def forget() -> None:
    """Hold no connection, and remember no failure, as in a new process."""
    _senders.clear()


class _Sender:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._used_at = 0.0
        self._rests_until = 0.0

    def is_resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def send(self, task: Any) -> None:
        if not self._lock.acquire(timeout=TIMEOUT):
            raise Unreachable
        try:
            if self.is_resting():
                raise Unreachable
            self._send(task)
        finally:
            self._lock.release()

    def _send(self, task: Any) -> None:
        began = time.monotonic()
        try:
            if not (self._connection and began - self._used_at < IDLE and self._published_again(task, began)):
                self._drop()
                self._connection = _connection(task.app)
                self._publish(task)
        except BaseException:  # also what ends a worker: the connection may be in the middle of something
            now = time.monotonic()
            self._rests_until = now + max(REST, 10 * (now - began))
            self._drop()
            raise

    def _published_again(self, task: Any, began: float) -> bool:
        """Whether the connection of last time was still good. Raises if finding out took long."""
        try:
            self._publish(task)
        except Exception:  # whatever kind the transport's are
            if time.monotonic() - began > TIMEOUT / 2:
                raise
            return False
        return True

    def _publish(self, task: Any) -> None:
        task.apply_async(connection=self._connection, retry=False)
        self._used_at = time.monotonic()

    def _drop(self) -> None:
        """Close without a word to the other end, which may not listen."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is given up
                connection.collect(socket.getdefaulttimeout())  # which it sets, for the whole process


def _connection(app: Any) -> Any:
    connection: Any = app.connection_for_write(connect_timeout=TIMEOUT, transport_options=_TIMEOUTS)
    connection.transport_options["max_retries"] = max(len(connection.alt) - 1, 0)  # each of a list of brokers once
    return connection


_senders: dict[int, _Sender] = {}


def _of_this_process() -> _Sender:
    pid = os.getpid()
    return _senders.get(pid) or _senders.setdefault(pid, _Sender())
