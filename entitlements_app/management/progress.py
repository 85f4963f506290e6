"""How far a long command is, and when it will be done: on one line of a terminal, or else a line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

BAR = 24  # characters


def in_words(seconds: float) -> str:
    """About how long that is, as one would say it."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


class Progress:
    """Tells how many of `total` are done; it is `None` if nobody knows how many there are.

    `save` is called with how many are new, about once a second. `stream` is one of a command's; its style, by which
    errors are red, is left out.
    """

    EVERY = timedelta(seconds=1)
    EVERY_LINE = timedelta(minutes=1)

    def __init__(self, stream: Any, total: int | None, *, save: Callable[[int], object] | None = None) -> None:
        self._stream, self._total, self._save = stream, total, save
        self._is_terminal = stream.isatty()
        self._began = self._told = self._lined = time.monotonic()
        self._done = self._saved = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._tell(time.monotonic())
        if self._is_terminal:
            self._stream.write("\n", str)

    def step(self, number: int = 1) -> None:
        """One more is done, or that many."""
        self._done += number
        now = time.monotonic()
        if now - self._told >= (self.EVERY if self._is_terminal or self._save else self.EVERY_LINE).total_seconds():
            self._tell(now)

    def interrupt(self) -> None:
        """Clear the line, for a line of text that comes next."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K", str, ending="")

    def _tell(self, now: float) -> None:
        self._told = now
        if self._save:
            self._save(self._done - self._saved)
            self._saved = self._done
        if self._is_terminal:
            # Back to its beginning, so that a line of the log is written over it and not behind it.
            self._stream.write(f"\r\x1b[K{self.line(now)}\r", str, ending="")
            self._stream.flush()
        elif now - self._lined >= self.EVERY_LINE.total_seconds():
            self._lined = now
            self._stream.write(self.line(now), str)

    def line(self, now: float) -> str:
        if self._total is None:
            took = now - self._began
            return f"{self._done:,} so far" + (f", {self._done / took:.1f}/s" if self._done and took > 2 else "")
        share = min(self._done / self._total, 1) if self._total else 1
        bar = "#" * round(share * BAR)
        line = f"[{bar:-<{BAR}}] {self._done:,} of {self._total:,}"
        took = now - self._began
        if 0 < self._done < self._total and took > 2:
            line += f", {self._done / took:.1f}/s, {in_words((self._total - self._done) * took / self._done)} left"
        return line
