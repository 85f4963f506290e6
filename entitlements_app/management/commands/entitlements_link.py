from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.core.management.base import CommandError, CommandParser
from django.db import router
from django.db.models import CharField, Model, QuerySet, TextField

from entitlements_app.guesses import Guesses
from entitlements_app.management import linking_commands
from entitlements_app.management.site_command import SiteCommand
from entitlements_app.subscribers import get_subscriber_model, is_subscriber_model


class Command(SiteCommand):
    help = (
        "Link all Stripe customers that a field of your own names to their subscribers. Run it as often as you like: "
        "what is linked already is passed over, so that an interrupted run goes on where it was. No call is made; "
        "Stripe is asked afterwards what they hold."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "field", metavar="app_label.Model.field", help="The field with the id, like auth.User.stripe_customer_id."
        )
        parser.add_argument(
            "--subscriber",
            metavar="PATH",
            default="",
            help="How to get from that model to who pays, like user or account__owner. Not for the model that pays.",
        )
        linking_commands.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        named = _Named(options["field"], options["subscriber"])
        if options["verbosity"] and (ownerless := named.ownerless()):
            self.stdout.write(
                f"{ownerless:,} customer(s) are passed over: there is no {options['subscriber']} who would pay."
            )
        linking_commands.link_all(self, named, total=named.count(), source=options["field"], options=options)


class _Named:
    """The customers that a field names, each with the primary key of its subscriber, as often as one goes through.

    Raises `CommandError` if there is no such field, or no subscriber at the end of the path.
    """

    def __init__(self, field: str, path: str) -> None:
        model, self._field = _find(field)
        self._key = "__".join([*_steps(model, path), str(get_subscriber_model()._meta.pk.name)])
        # On the primary: what decides a write is never read from a replica.
        rows: QuerySet[Model] = model._default_manager.using(router.db_for_write(model))
        self._rows = rows.exclude(**{f"{self._field}__isnull": True})
        with suppress(FieldError):  # of an encrypted field, whose values the database cannot compare
            self._rows = self._rows.exclude(**{self._field: ""})

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        for key, value in linking_commands.values(self._owned(), self._key, self._field):
            # A field may make something else of a text; who links it tells that it is no id.
            stripe_id = value.strip() if isinstance(value, str) else value
            if stripe_id not in ("", None):
                yield key, stripe_id

    def count(self) -> int:
        return self._owned().count()

    def ownerless(self) -> int:
        return self._rows.filter(**{f"{self._key}__isnull": True}).count() if "__" in self._key else 0

    def _owned(self) -> QuerySet[Model]:
        return self._rows.filter(**{f"{self._key}__isnull": False})


def _find(label: str) -> tuple[type[Model], str]:
    if label.count(".") != 2:
        raise CommandError(f"{label!r}: expected app_label.Model.field, like auth.User.stripe_customer_id.")
    model_label, name = label.rsplit(".", 1)
    try:
        model = apps.get_model(model_label)
    except LookupError as error:
        known = (model._meta.label for model in apps.get_models())
        raise CommandError(f"{error}{_did_you_mean(model_label, known)}") from error
    texts = [field.name for field in model._meta.concrete_fields if isinstance(field, (CharField, TextField))]
    if name not in texts:
        listed = f" It has {', '.join(texts)}." if texts else ""
        raise CommandError(f"{model._meta.label} has no text field {name!r}.{_did_you_mean(name, texts)}{listed}")
    return model, name


def _steps(model: type[Model], path: str) -> list[str]:
    """The steps of the path from that model to the one that pays, each of which leads to one row at most."""
    label, payer = model._meta.label, get_subscriber_model()
    steps = path.split("__") if path else []
    for step in steps:
        try:
            field = model._meta.get_field(step)
        except FieldDoesNotExist as error:
            leading = [each.name for each in model._meta.get_fields() if _leads_to_one(each)]
            known = f" What leads on from there: {', '.join(leading)}." if leading else ""
            raise CommandError(f"--subscriber {path}: {error}.{known}") from error
        if not _leads_to_one(field):
            raise CommandError(
                f"--subscriber {path}: {model._meta.label}.{step} does not lead to one row. "
                "A foreign key or a one-to-one relation does, from either side of the latter."
            )
        model = cast(type[Model], field.related_model)
    if is_subscriber_model(model):
        return steps
    if steps:
        raise CommandError(
            f"--subscriber {path}: that is a {model._meta.label}, and {payer._meta.label} pays "
            "(ENTITLEMENTS_SUBSCRIBER_MODEL). Go on from there with __."
        )
    direct = [each.name for each in model._meta.get_fields() if _leads_to_one(each, payer)]
    example = f", like --subscriber {direct[0]}" if direct else ""
    raise CommandError(
        f"{label} is not who pays: {payer._meta.label} does (ENTITLEMENTS_SUBSCRIBER_MODEL). "
        f"Say how to get from the one to the other{example}."
    )


def _leads_to_one(field: Any, model: type[Model] = Model) -> bool:
    return bool(
        (field.many_to_one or field.one_to_one)
        and isinstance(field.related_model, type)  # a generic relation leads anywhere
        and issubclass(field.related_model, model)
    )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    meant = Guesses(known).most_similar(word)
    return f" Did you mean {meant}?" if meant else ""
