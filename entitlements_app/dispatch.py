"""The only module that says “soon”: it wakes a worker for a kind of work. What there is to do stands in the database.

Note [Waking]
A wake-up says only that there is something to do, so one that waits in the queue is enough. Who wakes raises a flag
in the cache, and enqueues if it was down; the task lowers it before it looks for rows the first time. So what is
committed before a wake-up is seen by a task that begins after it: either the flag was down, or the task that will
lower it has not looked yet. Without a cache each wake-up is a message; a task that finds nothing ends at once.

The flag ends after FLAG_SECONDS. A message can be lost, with the broker or with the worker that had taken it, and
its flag must not silence those after it. Shorter than beat's slower rhythm, it costs no more than beat mends anyway.
Longer than a message waits in a healthy queue, it is seldom too short; then there is a second message, and in a
queue that nobody reads two a minute.

Nothing here is needed for a row to be worked on: beat comes round for all that waits.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Final, Literal

from django.db import transaction
from django.utils.module_loading import import_string

from . import broker, cache
from .transactions import alias

logger = logging.getLogger(__name__)

FLAG_SECONDS: Final = 30
LOG_EVERY: Final = 60.0  # seconds between two lines about a broker that is down

Work = Literal["process_events", "confirm_customers", "deliver_changes", "expire_overrides"]


def wake(work: Work) -> None:
    """Have a worker begin this work soon, if the broker can be reached now. Raises nothing.

    What is to be seen by the worker is committed. `work` is the name of a task in `tasks`. While the broker is down it
    is asked at most once a second, and the work waits for the next wake-up, or for beat.
    """
    try:
        if not broker.is_resting() and cache.raise_flag(_flag(work), seconds=FLAG_SECONDS):
            _enqueue(work)
    except Exception as error:  # noqa: BLE001  (whatever Celery's and the broker's are: the row is committed and waits)
        _down.tell(work, error)


def wake_after_commit(work: Work) -> None:
    """Once the open transaction has committed, `wake`. Outside of one, now."""
    transaction.on_commit(partial(wake, work), using=alias(), robust=True)


def heard(work: Work) -> None:
    """A worker has begun: whoever has news from now on wakes again. Before it looks for rows, see Note [Waking]."""
    cache.lower_flag(_flag(work))


def _enqueue(work: Work) -> None:
    try:
        broker.send(import_string(f"entitlements_app.tasks.{work}"))
    except BaseException:  # nobody is on the way who would
        cache.lower_flag(_flag(work))
        raise


def _flag(work: Work) -> str:
    return f"wake:{work}"


def forget() -> None:
    """Remember nothing, as in a new process."""
    _down.last_told = None
    broker.forget()


class _Down:
    """One line a minute about a broker that is down."""

    last_told: float | None = None

    def tell(self, work: Work, error: Exception) -> None:
        now = time.monotonic()
        if isinstance(error, broker.Unreachable):
            return
        if self.last_told is None or now - self.last_told >= LOG_EVERY:
            self.last_told = now
            logger.error(
                "No worker could be woken for %s (%s). What is to be done waits for the next wake-up, or for beat.",
                work,
                type(error).__name__,
            )
            logger.debug("How the broker fails:", exc_info=error)


_down = _Down()
