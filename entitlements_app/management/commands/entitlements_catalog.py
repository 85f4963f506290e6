from __future__ import annotations

from types import ModuleType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import conf
from entitlements_app.exceptions import StripeRefused, StripeUnavailable

# Each a module of `management/catalogue` with HELP, `add_arguments(parser)` and `run(command, options)`.
SUBCOMMANDS: dict[str, ModuleType] = {}


class Command(BaseCommand):
    help = (
        "The catalogue: features, products and what is attached to them, as a file, and in the site. Exits with 0 if "
        "all is as it should be, with 2 if something differs, and with 1 after an error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
        for name, module in SUBCOMMANDS.items():
            module.add_arguments(subparsers.add_parser(name, help=module.HELP, description=module.HELP))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            conf.check()
            SUBCOMMANDS[options["subcommand"]].run(self, options)
        except (StripeUnavailable, StripeRefused, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
