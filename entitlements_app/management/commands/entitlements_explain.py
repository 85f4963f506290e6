from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from entitlements_app import conf
from entitlements_app.explain import explain, explain_customer
from entitlements_app.explanation import Explanation
from entitlements_app.explanation_text import Paragraph, get_paragraphs
from entitlements_app.models import Customer
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.transactions import alias, primary

_LISTED = 10


class Command(BaseCommand):
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
            found = _find(options["subscriber"])
            told = _explain(found, options["key"])
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(_as_data(found, told), cls=DjangoJSONEncoder, indent=2, ensure_ascii=False))
        else:
            self._write(found, told)

    def _write(self, found: Model, told: Explanation) -> None:
        paragraphs = [Paragraph("Subscriber", [_named(found)]), *get_paragraphs(told)]
        width = max(len(paragraph.label) for paragraph in paragraphs)
        self.stdout.write(f"{told.reason}\n\n")
        for label, lines in paragraphs:
            for number, line in enumerate(lines):
                self.stdout.write(f"{'' if number else label:{width}}  {line}")


def _explain(found: Model, key: str) -> Explanation:
    return explain_customer(found, key) if isinstance(found, Customer) else explain(found, key)


def _as_data(found: Model, told: Explanation) -> dict[str, Any]:
    return {"subscriber": None if isinstance(found, Customer) else str(found), **asdict(told)}


def _named(found: Model) -> str:
    if isinstance(found, Customer):
        return "nobody"
    return f"{found} ({found._meta.verbose_name}, pk:{found.pk})"


# Who is meant


def _find(text: str) -> Model:
    """The subscriber that is meant, or the customer, if that is nobody's. Raises `CommandError` unless it is one."""
    readings = _readings()
    prefix, _, rest = text.partition(":")
    if prefix in readings and rest:
        text, readings = rest, {prefix: readings[prefix]}
    found = {prefix: read(text) for prefix, read in readings.items()}
    different = {(type(row), row.pk): row for rows in found.values() for row in rows}
    if len(different) > 1:
        raise CommandError(_say_which(text, found))
    if not different:
        raise CommandError(_not_found(text, list(readings)))
    return different.popitem()[1]


def _customers(text: str) -> list[Model]:
    rows = primary(Customer).filter(stripe_id=text).select_related("subscriber")
    found = list(rows.filter(account="", livemode=conf.livemode())) or list(rows)
    return [row.subscriber or row for row in found]


def _by_name(text: str) -> list[Model]:
    manager = get_subscriber_model()._default_manager.db_manager(alias())
    try:
        return [manager.get_by_natural_key(text)]  # type: ignore[attr-defined]  # see _readings
    except (ObjectDoesNotExist, TypeError, ValueError, ValidationError):  # also a natural key of several fields
        return []


def _by_email(text: str) -> list[Model]:
    model = get_subscriber_model()
    same = {f"{_email_field(model)}__iexact": text}
    return list(model._default_manager.using(alias()).filter(**same)[: _LISTED + 1])


def _email_field(model: type[Model]) -> str | None:
    name = getattr(model, "EMAIL_FIELD", "email")
    return name if name in {field.name for field in model._meta.fields} else None


def _by_pk(text: str) -> list[Model]:
    model = get_subscriber_model()
    try:
        pk = model._meta.pk.to_python(text)
    except ValidationError:
        return []
    return list(model._base_manager.using(alias()).filter(pk=pk))


def _readings() -> dict[str, Callable[[str], list[Model]]]:
    """In which ways a text can name a subscriber, by prefix."""
    model = get_subscriber_model()
    readings: dict[str, Callable[[str], list[Model]]] = {"customer": _customers, "pk": _by_pk}
    if hasattr(model._default_manager, "get_by_natural_key"):
        readings["name"] = _by_name
    if _email_field(model):
        readings["email"] = _by_email
    return readings


_CALLED = {"customer": "Stripe customer", "name": "name", "email": "e-mail address", "pk": "primary key"}


def _say_which(text: str, found: dict[str, list[Model]]) -> str:
    lines = []
    for prefix, rows in found.items():
        for row in rows[:_LISTED]:
            exact = f"{prefix}:{text}" if len(rows) == 1 else f"pk:{row.pk}"
            lines.append(f"  {exact}  {_named(row)}")
        if len(rows) > _LISTED:
            lines.append("  and more")
    return f"{text!r} could be several. Say which:\n" + "\n".join(lines)


def _not_found(text: str, prefixes: list[str]) -> str:
    tried = ", ".join(_CALLED[prefix] for prefix in prefixes)
    message = f"There is no {get_subscriber_model()._meta.verbose_name} {text!r}. Tried as: {tried}."
    if text.startswith("cus_"):
        message += " A customer is known from its first webhook event on, or from linking.link(subscriber, stripe_id)."
    return message
