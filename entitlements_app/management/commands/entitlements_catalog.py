from __future__ import annotations

import sys
from argparse import SUPPRESS
from types import ModuleType
from typing import Any

from django.core.management.base import CommandError, CommandParser

from entitlements_app import conf
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.management.catalogue import apply, export, gaps, plan, unused
from entitlements_app.management.interrupts import INTERRUPTED
from entitlements_app.management.site_command import SiteCommand

# Each a module of `management/catalogue` with HELP, `add_arguments(parser)` and `run(command, options)`.
SUBCOMMANDS: dict[str, ModuleType] = {
    "plan": plan,
    "apply": apply,
    "export": export,
    "gaps": gaps,
    "unused": unused,
}

MISUSED = 2  # argparse exits with it, as we do for something else


class Command(SiteCommand):
    help = (
        "The catalogue: features, products and what is attached to them, as a file, and in the site. Exits with 0 if "
        "all is as it should be, with 2 if something differs, and with 1 after an error."
    )
    stealth_options = ("stdin",)

    _is_understood = False

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except SystemExit as stop:
            if stop.code == MISUSED and not self._is_understood:
                sys.exit(1)
            raise

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
        for name, module in SUBCOMMANDS.items():
            subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP, parents=[_of_django()])
            module.add_arguments(subparser)

    def handle(self, *args: Any, **options: Any) -> None:
        self._is_understood = True
        try:
            conf.check()
            SUBCOMMANDS[options["subcommand"]].run(self, options)
        except (StripeUnavailable, StripeRefused) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.", returncode=INTERRUPTED) from None


def _of_django() -> CommandParser:
    """The options that each command has, to stand behind a subcommand as well."""
    parser = CommandParser(add_help=False, argument_default=SUPPRESS)
    parser.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], help=SUPPRESS)
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, help=SUPPRESS)
    for name in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(name, action="store_true", help=SUPPRESS)
    return parser
