"""Ctrl-C at a moment when nothing is half done: a statement that is broken off can take its connection along."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from entitlements_app.fetch_pool import FetchReport

INTERRUPTED = 128 + signal.SIGINT  # what a process exits with


@contextmanager
def between_answers(report: FetchReport) -> Iterator[None]:
    """Fetches that are told in `report` end at the first Ctrl-C once no transaction is open, at the second at once."""
    with between_steps() as look:
        report.on_wait = look
        try:
            yield
        finally:
            report.on_wait = None
        look()


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """What this yields raises `KeyboardInterrupt` if Ctrl-C was pressed since; a second one is raised at once."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other one handle signals
        yield lambda: None
        return
    is_asked = threading.Event()

    def remember(_signal: int, _frame: FrameType | None) -> None:
        if is_asked.is_set():
            raise KeyboardInterrupt
        is_asked.set()

    def look() -> None:
        if is_asked.is_set():
            raise KeyboardInterrupt

    with _handled_by(remember):
        yield look


@contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C is raised when it is pressed, also between steps: while somebody is asked, nothing is half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(signal.default_int_handler):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
