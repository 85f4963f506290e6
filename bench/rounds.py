"""Contenders take turns; what counts is the median of each round's ratio, of the time and of the CPU."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns
from typing import Any


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to do it. `do` gets what `prepare` made before the clock started, and does `items` of them."""

    name: str
    prepare: Callable[[], Any]
    do: Callable[[Any], int | None]  # returns nanoseconds, if not all of its own time counts
    items: int
    python: Sequence[int]  # processes
    database: Sequence[int]
    kind: str = "peer"
    check: Callable[[], None] | None = None  # after each sample: that it was done


@dataclass(frozen=True)
class Sample:
    """Microseconds for each item."""

    wall: float
    python: float
    database: float

    @property
    def cpu(self) -> float:
        return self.python + self.database


@dataclass(frozen=True)
class Aim:
    """How many times as much as `than` `of` may cost, or has to."""

    text: str
    of: str
    than: str
    at_most: float = 0.0
    at_least: float = 0.0
    by: str = "cpu"


@dataclass
class Measured:
    contender: Contender
    samples: list[Sample] = field(default_factory=list)

    def of(self, what: str) -> float:
        return median(getattr(sample, what) for sample in self.samples)

    def times(self, other: Measured, what: str) -> float:
        pairs = zip(self.samples, other.samples, strict=True)
        return median(getattr(mine, what) / getattr(theirs, what) for mine, theirs in pairs)


def run(contenders: Sequence[Contender], *, rounds: int) -> dict[str, Measured]:
    """Each does its part once without counting, and then once in each round, in a new order."""
    measured = {contender.name: Measured(contender) for contender in contenders}
    for contender in contenders:
        _sample(contender)
    order = list(measured.values())
    for _ in range(rounds):
        random.shuffle(order)
        for each in order:
            each.samples.append(_sample(each.contender))
    return measured


def _sample(contender: Contender) -> Sample:
    prepared = contender.prepare()
    gc.collect()
    python, database = _cpu(contender.python), _cpu(contender.database)
    began = perf_counter_ns()
    wall = contender.do(prepared)
    wall = perf_counter_ns() - began if wall is None else wall
    python, database = _cpu(contender.python) - python, _cpu(contender.database) - database
    if contender.check:
        contender.check()
    return Sample(*(nanoseconds / 1000 / contender.items for nanoseconds in (wall, python, database)))


def _cpu(pids: Sequence[int]) -> int:
    """What these processes have spent, user and system, in nanoseconds."""
    # A process' CPU clock, as clock_getcpuclockid(3) makes it on Linux: /proc counts in hundredths of a second.
    return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in pids)


def lines(title: str, measured: dict[str, Measured], *, base: str, aims: Sequence[Aim]) -> Iterator[str]:
    """The results as Markdown, as times of `base`, and which aims are reached."""
    yield f"### {title}"
    yield ""
    yield "| | time, µs | CPU of Python, µs | CPU of PostgreSQL, µs | × time | × CPU |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, each in measured.items():
        shown = f"**{name}**" if each.contender.kind == "ours" else name
        costs = " | ".join(f"{each.of(what):,.0f}" for what in ("wall", "python", "database"))
        ratios = " | ".join(f"{each.times(measured[base], what):.2f}" for what in ("wall", "cpu"))
        yield f"| {shown} | {costs} | {ratios} |"
    yield ""
    for aim in aims:
        yield _said(aim, measured)
    yield ""


def _said(aim: Aim, measured: dict[str, Measured]) -> str:
    ratio = {what: measured[aim.of].times(measured[aim.than], what) for what in ("wall", "cpu", "python")}
    value = ratio[aim.by]
    reached = value >= aim.at_least if aim.at_least else value <= aim.at_most
    by = {"cpu": "CPU", "python": "CPU of Python"}[aim.by]
    return f"- {'reached' if reached else 'NOT reached'}: {aim.text}: {value:.2f} by {by}, {ratio['wall']:.2f} by time"
