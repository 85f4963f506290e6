"""A plan, as `plan` and `apply` make and show it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from entitlements_app import counts
from entitlements_app.catalog_file import CatalogFile
from entitlements_app.catalog_plan import Plan, StripeHas, make_plan

from . import plan_text, reading
from .terminal import say


def add_decisions(parser: CommandParser) -> None:
    """What nobody can take back has to be asked for."""
    parser.add_argument(
        "--archive",
        action="store_true",
        help="Archive features that are in Stripe and not in the file. Archiving is final.",
    )
    parser.add_argument(
        "--recreate",
        action="store_true",
        help="Make a new feature for a key of the file that only archived features have.",
    )


def compare(file: CatalogFile, stripe: StripeHas, options: dict[str, Any]) -> Plan:
    """What the file wants, given what was decided in `options`."""
    return make_plan(file, stripe, archive=options["archive"], recreate=options["recreate"])


def show(plan: Plan, command: BaseCommand, options: dict[str, Any]) -> None:
    """Each difference, with the number of customers who hold the feature now."""
    named = "standard input" if options["file"] == "-" else options["file"]
    say(command, options, f"{reading.place()}, against {named}")
    customers = counts.now_holding(plan_text.get_keys(plan))
    for line in plan_text.as_lines(plan, customers, reading.mode()):
        say(command, options, line)
