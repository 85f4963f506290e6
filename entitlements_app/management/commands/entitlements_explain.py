from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from entitlements_app.explain import explain_found
from entitlements_app.explanation import Explanation
from entitlements_app.explanation_text import Paragraph, get_paragraphs
from entitlements_app.management.site_command import SiteCommand
from entitlements_app.models import Customer
from entitlements_app.who_is_meant import NobodyMeant, SeveralMeant, find, get_name


class Command(SiteCommand):
    help = (
        "Why a subscriber is entitled to a lookup key, or is not: its customers, what they hold, overrides, the last "
        "changes, what is still to come. Stripe is not asked. Exits with 0 for yes and for no."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "subscriber",
            metavar="SUBSCRIBER",
            help="A Stripe customer (cus_…), a name, an e-mail address or a primary key. If it could be several, say "
            "which: customer:cus_1, name:42, email:ada@example.com, pk:42.",
        )
        parser.add_argument("key", metavar="KEY", help="The lookup key of a feature, as a gate asks for it.")
        parser.add_argument("--json", action="store_true", help="The same as data.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["key"]:
            raise CommandError("KEY is empty. Name the lookup key of a feature.")
        try:
            found = find(options["subscriber"])
            told = explain_found(found, options["key"])
        except SeveralMeant as error:
            raise CommandError(_list_candidates(error)) from error
        except NobodyMeant as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(_as_data(found, told), cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))
        else:
            self._write(found, told)

    def _write(self, found: Model, told: Explanation) -> None:
        paragraphs = [Paragraph("Subscriber", [get_name(found)]), *get_paragraphs(told)]
        width = max(len(paragraph.label) for paragraph in paragraphs)
        self.stdout.write(f"{told.reason}\n\n")
        for label, lines in paragraphs:
            for number, line in enumerate(lines):
                self.stdout.write(f"{'' if number else label:{width}}  {line}")


def _as_data(found: Model, told: Explanation) -> dict[str, Any]:
    return {"subscriber": None if isinstance(found, Customer) else str(found), **asdict(told)}


def _list_candidates(error: SeveralMeant) -> str:
    lines = [str(error), *(f"  {exact}  {get_name(row)}" for exact, row in error.candidates)]
    return "\n".join([*lines, "  and more"] if error.is_cut else lines)
