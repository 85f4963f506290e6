"""`entitlements_catalog plan`: what a file would change in Stripe's catalogue."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from entitlements_app import counts

from . import plan_text, reading, showing
from .showing import add_decisions
from .terminal import DIFFERS

HELP = (
    "Tell what a file would change in Stripe's catalogue, as it is now, and how many customers hold each feature. "
    "Nothing is changed. Exits with 0 if nothing differs, with 2 if something does, and with 1 after an error."
)


def add_arguments(parser: CommandParser) -> None:
    reading.add_file(parser, "The TOML file; - is standard input.")
    add_decisions(parser)
    parser.add_argument("--json", action="store_true", help="The same as data, for scripts.")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    file = reading.read_file(options)
    plan = showing.compare(file, reading.read_for(file, command), options)
    if options["json"]:
        mode, customers = reading.mode(), counts.now_holding(plan_text.get_keys(plan))
        data = {"mode": mode, "api_base": reading.api_base(), **plan_text.as_data(plan, customers, mode)}
        command.stdout.write(json.dumps(data, indent=2))
    else:
        showing.show(plan, command, options)
    if not plan.is_same:
        sys.exit(DIFFERS)
