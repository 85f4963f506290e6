"""Whom a text means: a subscriber by a name, an e-mail address or a primary key, or through a Stripe customer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db.models import Model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import conf
from .models import Customer
from .subscriber_search import can_be_found
from .subscribers import get_subscriber_model, read_key
from .transactions import alias, primary

LISTED = 10

_CALLED = {
    "customer": gettext_lazy("Stripe customer"),
    "name": gettext_lazy("name"),
    "email": gettext_lazy("e-mail address"),
    "pk": gettext_lazy("primary key"),
}


class Candidate(NamedTuple):
    """One that could be meant, and the text that means it alone."""

    exact: str
    row: Model


class NobodyMeant(LookupError):
    """There is no such subscriber or customer. The message says what was tried."""


class SeveralMeant(LookupError):
    """The text could mean several: some of them are `candidates`, and there are more if `is_cut`."""

    def __init__(self, text: str, candidates: list[Candidate], *, is_cut: bool) -> None:
        super().__init__(_("%(text)r could be several. Say which:") % {"text": text})
        self.candidates = candidates
        self.is_cut = is_cut


def find(text: str) -> Model:
    """The subscriber that is meant, or the customer, if that is nobody's. Raises `NobodyMeant` or `SeveralMeant`."""
    readings = _readings()
    prefix, _colon, rest = text.partition(":")
    if prefix in readings and rest:
        text, readings = rest, {prefix: readings[prefix]}
    found = {prefix: read(text) if can_be_found(text) else [] for prefix, read in readings.items()}
    different = {(type(row), row.pk): row for rows in found.values() for row in rows}
    if len(different) > 1:
        raise _several(text, found)
    if not different:
        raise NobodyMeant(_not_found(text, list(readings)))
    return different.popitem()[1]


def find_subscriber(text: str) -> Model:
    """The subscriber that is meant; a customer that is nobody's is none. Raises like `find`."""
    found = find(text)
    if isinstance(found, Customer):
        raise NobodyMeant(_("The customer %(customer)s is linked to nobody.") % {"customer": found})
    return found


def get_name(found: Model) -> str:
    """How a subscriber is told from others; a customer that was found is nobody's."""
    if isinstance(found, Customer):
        return _("nobody")
    return f"{found} ({found._meta.verbose_name}, pk:{found.pk})"


def get_ways() -> str:
    """In which ways a text can name a subscriber, as a list for people."""
    return _list_ways(list(_readings()))


# In which ways a text is read


def _readings() -> dict[str, Callable[[str], list[Model]]]:
    """By the prefix that chooses one."""
    model = get_subscriber_model()
    readings: dict[str, Callable[[str], list[Model]]] = {"customer": _customers, "pk": _by_pk}
    if hasattr(model._default_manager, "get_by_natural_key"):
        readings["name"] = _by_name
    if _email_field(model):
        readings["email"] = _by_email
    return readings


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
    return list(model._default_manager.using(alias()).filter(**same)[: LISTED + 1])


def _email_field(model: type[Model]) -> str | None:
    name = getattr(model, "EMAIL_FIELD", "email")
    return name if name in {field.name for field in model._meta.fields} else None


def _by_pk(text: str) -> list[Model]:
    key = read_key(text)
    return [] if key is None else list(get_subscriber_model()._base_manager.using(alias()).filter(pk=key))


# What is said of a text that means no one, or several


def _several(text: str, found: dict[str, list[Model]]) -> SeveralMeant:
    candidates = [
        Candidate(f"{prefix}:{text}" if len(rows) == 1 else f"pk:{row.pk}", row)
        for prefix, rows in found.items()
        for row in rows[:LISTED]
    ]
    return SeveralMeant(text, candidates, is_cut=any(len(rows) > LISTED for rows in found.values()))


def _not_found(text: str, prefixes: list[str]) -> str:
    message = _("There is no %(model)s %(text)r. Tried as: %(ways)s.") % {
        "model": get_subscriber_model()._meta.verbose_name,
        "text": text,
        "ways": _list_ways(prefixes),
    }
    if text.startswith("cus_"):
        message += _(
            " A customer is known from its first webhook event on, or from linking.link(subscriber, stripe_id)."
        )
    return message


def _list_ways(prefixes: list[str]) -> str:
    return ", ".join(str(_CALLED[prefix]) for prefix in prefixes)
