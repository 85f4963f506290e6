"""How far a long command is: on one line of a terminal, or a line a minute."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from entitlements_app.management.progress import Progress, in_words

pytestmark = pytest.mark.once


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Hurried(Progress):
    EVERY = EVERY_LINE = timedelta(0)


def output_of(stream: StringIO, progress: type[Progress], *, steps: int) -> str:
    errors = OutputWrapper(stream)
    errors.style_func = color_style(force_color=True).ERROR
    with progress(errors, 4) as told:
        for _ in range(steps):
            told.step()
        told.interrupt()
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_written_anew() -> None:
    out = output_of(Terminal(), Hurried, steps=2)
    assert out.split("\r\x1b[K")[1:3] == [
        "[######------------------] 1 of 4\r",
        "[############------------] 2 of 4\r",
    ]
    assert out.count("\n") == 1
    assert "\x1b[31" not in out, "nothing is wrong"


def test_a_file_has_a_line_now_and_then() -> None:
    out = output_of(StringIO(), Hurried, steps=2)
    assert out.splitlines()[:2] == ["[######------------------] 1 of 4", "[############------------] 2 of 4"]
    assert "\x1b" not in out
    assert output_of(StringIO(), Progress, steps=4) == "", "it took less than a minute"


def test_what_is_new_is_saved_once() -> None:
    saved: list[int] = []
    with Progress(OutputWrapper(StringIO()), 4, save=saved.append) as told:
        for _ in range(3):
            told.step()
    assert sum(saved) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (89, "89 s"), (600, "10 min"), (10_000, "2.8 h"), (1_000_000, "11.6 days")],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_where_nobody_knows_how_many_there_are_it_tells_how_many_are_done() -> None:
    stream = Terminal()
    with Hurried(OutputWrapper(stream), None) as told:
        told.step(100)
        told.step(50)
    assert stream.getvalue().split("\r\x1b[K")[1:3] == ["100 so far\r", "150 so far\r"]
