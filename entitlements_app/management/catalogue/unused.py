"""`entitlements_catalog unused`: what the site asks for and no feature has, and the reverse."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from entitlements_app.asked_keys.comparison import AskedKey, Comparison, compare
from entitlements_app.asked_keys.findings import Place

from .plan_text import printable
from .terminal import DIFFERS, number

HELP = (
    "Lookup keys that the site's gates, templates and Python code ask for and no feature has, and features that "
    "nothing asks for. Stripe is not asked. Exits with 2 if a key is asked for that neither a feature nor an override "
    "has, with 1 after an error, else with 0: a feature that nothing asks for is told, and is no failure."
)

_NOTHING = "Each key that is asked for has a feature, and each feature is asked for."
_ARCHIVED = (
    "Asked for, and only an archived feature has it. Products that have it go on granting it; no other can be given it:"
)
_EMPTY = (
    "No feature is known here in {mode}, so there is nothing to compare with. Read the catalogue from Stripe first: "
    "manage.py entitlements_sync --catalog."
)
_NEEDED = "Features are needed for these keys, which are asked for:"


def add_arguments(parser: CommandParser) -> None:
    parser.set_defaults(skip_checks=True)  # they import the URLconf, and so does this, with a message
    parser.add_argument(
        "--ignore",
        metavar="KEY",
        action="append",
        default=[],
        help="Leave out this lookup key, on both sides: asked for on purpose before it is in Stripe, say, or a feature "
        "that another program asks for. May be repeated.",
    )
    parser.add_argument("--json", action="store_true", help="The same as data.")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    told = compare(ignore=frozenset(options["ignore"]))
    if options["json"]:
        command.stdout.write(json.dumps(_as_data(told), indent=2))
    else:
        command.stdout.write("\n".join(map(printable, _lines(told))))
    if told.missing:
        sys.exit(DIFFERS)


def _lines(told: Comparison) -> Iterator[str]:
    yield (
        f"Looked through {number(told.views, 'view')}, {number(told.templates, 'template')} and "
        f"{number(told.python_files, 'Python file')} of the site, without tests and without installed packages."
    )
    mode = "live mode" if told.livemode else "test mode"
    if told.is_empty:
        yield from ("", _EMPTY.format(mode=mode))
        yield from ("", _NEEDED) if told.missing else ()
    elif told.missing:
        yield from ("", f"Asked for, and no feature has it in {mode}:")
    yield from _lines_of_keys(told.missing)
    if told.archived:
        yield from ("", _ARCHIVED)
        yield from _lines_of_keys(told.archived)
    if told.unused:
        yield from ("", "Features that nothing asks for:")
        width = max(len(feature.key) for feature in told.unused)
        yield from (f"  {feature.key:{width}}  {feature.name}".rstrip() for feature in told.unused)
    if told.undecided:
        yield from ("", "Decides at run time, so what is asked for there is not known:")
        yield from (f"  {_where(each.place)}" for each in told.undecided)
    if told.unread:
        yield from ("", "Could not be read, and may ask for more:")
        yield from (f"  {_path(each.file, each.line)}  {each.error}" for each in told.unread)
    if not (told.is_empty or told.missing or told.archived or told.unused):
        yield from ("", _NOTHING)


def _lines_of_keys(keys: Iterable[AskedKey]) -> Iterator[str]:
    for asked in keys:
        yield f"  {asked.key}" + (f"  Did you mean {asked.similar}?" if asked.similar else "")
        yield from (f"    {_where(place)}" for place in asked.places)


def _where(place: Place) -> str:
    return f"{_path(place.file, place.line)}  {place.gate}"


def _path(file: str, line: int) -> str:
    """As an editor takes it: from here, if it is below."""
    shown = os.path.relpath(file) if os.path.isabs(file) else file
    return (file if shown.startswith("..") else shown) + (f":{line}" if line else "")


def _as_data(told: Comparison) -> dict[str, Any]:
    """Files are whole paths; a line of 0 is not known."""
    data = asdict(told)
    data["undecided"] = [each["place"] for each in data["undecided"]]
    return data
