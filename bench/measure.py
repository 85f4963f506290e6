"""The measuring loop: contenders take turns, each sample lasts two milliseconds or so, and medians count."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from statistics import median
from time import perf_counter_ns
from typing import Any, Final, Literal

from django.conf import settings
from django.core.cache import cache
from django.core.signals import setting_changed
from django.db import connection
from django.test.utils import CaptureQueriesContext

SAMPLE_NS: Final = 2_000_000
MOST_CALLS: Final = 10_000  # in a sample


def as_it_is(user: Any) -> Any:
    return user


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to ask. `fresh` makes what is asked of, for each call anew, or once for all calls of a sample."""

    name: str
    ask: Callable[[Any], Any]
    fresh: Callable[[Any], Any] = as_it_is
    asks_again: bool = False  # the same object, which was asked before
    before_each: Callable[[], None] | None = None  # before a sample, which is then of one call
    refill: Callable[[], None] | None = None  # before a sample of many calls
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["ours", "peer", "floor"] = "peer"
    users: int | None = None  # asked about the first so many only


@dataclass(frozen=True)
class Aim:
    """What is to hold of one contender of a row: at most so many times another one, or so many microseconds."""

    text: str
    of: str
    at_most: float
    times: str | None = None


@dataclass(frozen=True)
class Row:
    title: str
    contenders: tuple[Contender, ...]
    aims: tuple[Aim, ...] = ()


@dataclass
class Measured:
    contender: Contender
    queries: int = 0
    commands: int = 0
    calls: int = 1
    samples: list[float] = field(default_factory=list)  # microseconds a call, one for each round

    @property
    def microseconds(self) -> float:
        return median(self.samples)

    def times(self, other: Measured) -> float:
        """How many times as long as the other, round by round."""
        return median(mine / theirs for mine, theirs in zip(self.samples, other.samples, strict=True))


class Loop:
    """Measures all rows in turns, so that a busy moment of the machine meets all of them."""

    def __init__(self, users: list[Any], stranger: Any, commands_so_far: Callable[[], int]) -> None:
        self.users, self.stranger, self.commands_so_far = users, stranger, commands_so_far
        self.runner = asyncio.Runner()

    def run(self, rows: list[Row], *, rounds: int) -> dict[Contender, Measured]:
        measured = {contender: Measured(contender) for row in rows for contender in row.contenders}
        for each in measured.values():
            self._prove(each.contender)
            self._count(each)
            self._calibrate(each)
        order = list(measured.values())
        for _ in range(rounds):
            random.shuffle(order)
            for each in order:
                each.samples.append(self._sample(each.contender, each.calls))
        self.runner.close()
        return measured

    def _prove(self, contender: Contender) -> None:
        """Who does not tell one who holds from one who does not is not measured."""
        _put_on(contender)
        if contender.kind == "floor":
            return
        for user, expected in ((self.users[0], True), (self.stranger, False)):
            if contender.before_each:
                contender.before_each()
            answer, _ = self._in_turn(contender, [contender.fresh(user)])
            if bool(answer) is not expected:
                raise AssertionError(f"{contender.name}: {answer!r} for one who {'holds' if expected else 'lacks'} it")

    def _count(self, each: Measured) -> None:
        arguments = self._arguments(each.contender, 1)
        commands = self.commands_so_far()
        with CaptureQueriesContext(connection) as queries:
            self._in_turn(each.contender, arguments)
        each.commands = self.commands_so_far() - commands
        each.queries = len(queries)

    def _calibrate(self, each: Measured) -> None:
        if each.contender.before_each is None:
            quickest = min(self._sample(each.contender, 20) for _ in range(3))
            each.calls = max(1, min(MOST_CALLS, round(SAMPLE_NS / 1000 / quickest)))

    def _sample(self, contender: Contender, calls: int) -> float:
        arguments = self._arguments(contender, calls)
        gc.disable()
        _, took = self._in_turn(contender, arguments)
        gc.enable()
        return took / 1000 / len(arguments)

    def _arguments(self, contender: Contender, calls: int) -> list[Any]:
        """What will be asked, with the settings in force and whatever is held from before held."""
        _put_on(contender)
        if contender.refill:
            contender.refill()
        users = self.users[: contender.users]
        chosen = random.choices(users, k=1 if contender.asks_again else calls)
        for user in {user.pk: user for user in chosen}.values():
            self._in_turn(contender, [contender.fresh(user)])
        if contender.before_each:
            contender.before_each()
        arguments = [contender.fresh(user) for user in chosen]
        if contender.asks_again:
            self._in_turn(contender, arguments)
            return arguments * calls
        return arguments

    def _in_turn(self, contender: Contender, arguments: list[Any]) -> tuple[Any, int]:
        """The last answer, and how many nanoseconds all of them took."""
        if iscoroutinefunction(contender.ask):
            return self.runner.run(_in_turn_async(contender.ask, arguments))
        ask, answer = contender.ask, None
        started = perf_counter_ns()
        for argument in arguments:
            answer = ask(argument)
        return answer, perf_counter_ns() - started


async def _in_turn_async(ask: Callable[[Any], Coroutine[Any, Any, Any]], arguments: list[Any]) -> tuple[Any, int]:
    answer = None
    started = perf_counter_ns()
    for argument in arguments:
        answer = await ask(argument)
    return answer, perf_counter_ns() - started


_STANDARD: Final[dict[str, Any]] = {
    "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"],
    "ENTITLEMENTS_CACHE": None,
    "ENTITLEMENTS_LOCAL_SECONDS": 0,
    "WAFFLE_CACHE_NAME": "default",
}


def _put_on(contender: Contender) -> None:
    # Set as a settings module would have it: `override_settings` makes the reading of every setting dearer.
    for name, value in (_STANDARD | contender.settings).items():
        if getattr(settings, name, _STANDARD) != value:
            setattr(settings, name, value)
            setting_changed.send(sender=None, setting=name, value=value, enter=True)


def clear_cache() -> None:
    cache.clear()
