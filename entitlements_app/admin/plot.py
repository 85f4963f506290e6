"""Where the bars and lines of the overview's plots go. Pure: numbers in, coordinates out.

Coordinates are texts, so that no template writes them as the visitor's language writes numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 260
TOP: Final = 12
BOTTOM: Final = 36  # for the days
LEFT: Final = 12
RIGHT: Final = 76  # for the numbers: where the plot scrolls, it begins at its right end
GAP: Final = 4  # between two days
LINES: Final = 4  # about as many on the side with more
LEAST: Final = 2.0  # what is there can be seen


def _text(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Rectangle:
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Line:
    """A line of the grid: how many changes it stands for, on either side, and where its label stands."""

    number: int
    y: str
    label_y: str
    is_zero: bool


@dataclass(frozen=True)
class Column:
    """A day. Nothing happened: no bar."""

    middle: str
    whole: Rectangle
    up: Rectangle | None
    down: Rectangle | None


@dataclass(frozen=True)
class Plot:
    columns: list[Column]
    lines: list[Line]
    left: str = _text(LEFT)
    right: str = _text(WIDTH - RIGHT)
    label_x: str = _text(WIDTH - RIGHT + 8)
    days_y: str = _text(HEIGHT - 14)
    view_box: str = f"0 0 {WIDTH} {HEIGHT}"


def draw(numbers: Sequence[tuple[int, int]]) -> Plot:
    """Of each day what goes up and what goes down, at one scale."""
    most_up, most_down = (max((pair[side] for pair in numbers), default=0) for side in (0, 1))
    step = _step(max(most_up, most_down, 1))
    above, below = max(_steps(most_up, step), 1), _steps(most_down, step)
    unit = (HEIGHT - TOP - BOTTOM) / ((above + below) * step)
    zero = TOP + above * step * unit
    wide = (WIDTH - LEFT - RIGHT) / max(len(numbers), 1)
    columns = [_column(LEFT + wide * place, wide, zero, unit, *pair) for place, pair in enumerate(numbers)]
    lines = [_line(abs(count) * step, zero - count * step * unit) for count in range(above, -below - 1, -1)]
    return Plot(columns, lines)


def share(part: int, whole: int) -> float:
    """A percentage, from 0 to 100."""
    return min(100 * part / whole, 100) if whole else 0


def width(percent: float) -> str:
    """Of a bar that is 100 wide if it is full."""
    return _text(max(percent, 1) if percent else 0)


def _column(left: float, wide: float, zero: float, unit: float, up: int, down: int) -> Column:
    def bar(number: int, *, grows_up: bool) -> Rectangle | None:
        high = max(number * unit, LEAST)
        top = zero - high if grows_up else zero
        return _rectangle(left + GAP / 2, top, wide - GAP, high) if number else None

    whole = _rectangle(left, TOP, wide, HEIGHT - TOP - BOTTOM)
    return Column(_text(left + wide / 2), whole, bar(up, grows_up=True), bar(down, grows_up=False))


def _line(number: int, y: float) -> Line:
    return Line(number, _text(y), _text(y + 4), number == 0)


def _rectangle(x: float, y: float, wide: float, high: float) -> Rectangle:
    return Rectangle(_text(x), _text(y), _text(wide), _text(high))


def _step(most: int) -> int:
    """1, 2 or 5 times a power of ten, LINES of which reach the most."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * LINES >= most:
                return factor * power
        power *= 10


def _steps(number: int, step: int) -> int:
    return -(-number // step)
