"""What the subcommands say and ask at a terminal, and with what they exit if something differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from entitlements_app.management.interrupts import at_once

DIFFERS = 2  # what a process exits with
SILENT = 5.0  # seconds of waiting for Stripe before it is told


def say(command: BaseCommand, options: dict[str, Any], line: str) -> None:
    """A line in the colour of its sign. What the terminal has no character for is escaped."""
    if not options["verbosity"]:
        return
    styles = {
        "+": command.style.SUCCESS,
        "~": command.style.WARNING,
        "-": command.style.ERROR,
        "!": command.style.ERROR,
    }
    encoding = getattr(command.stdout, "encoding", None) or "utf-8"
    text = line.encode(encoding, "backslashreplace").decode(encoding)
    command.stdout.write(styles.get(line[:1], str)(text))


@contextmanager
def waiting(command: BaseCommand) -> Iterator[None]:
    """For calls of Stripe: if they take long, somebody who looks at the terminal is told why nothing happens."""
    timer = Timer(SILENT, lambda: command.stderr.write("Waiting for Stripe…", str))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def standard_input(options: dict[str, Any]) -> Any:
    """What may be read and asked; `None` for a process that has none."""
    return options.get("stdin") or sys.stdin


def says_yes(question: str, command: BaseCommand, stdin: Any, *, otherwise: str) -> bool:
    """Whether somebody answers yes. The end of the input is a no.

    Without a terminal to ask at raises `CommandError`, in which `otherwise` says what was not done.
    """
    if stdin is None or not stdin.isatty():
        raise CommandError(f"There is no terminal to ask at, so {otherwise}. With --yes it is done without asking.")
    command.stdout.write(f"\n{question} [y/N] ", ending="")
    command.stdout.flush()
    answer = ""
    try:
        with at_once():
            answer = stdin.readline()
    finally:
        if not answer:  # Ctrl-D or Ctrl-C: the terminal stands behind the question
            command.stdout.write("")
    return answer.strip().lower() in ("y", "yes")


def number(count: int, word: str) -> str:
    """So many of them, as `1,204 customers`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
