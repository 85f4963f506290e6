"""Take from dj-stripe who a customer is: the name and the e-mail address that the admin shows and looks for.

This app asks Stripe for them only where it needs them, so of most customers it would know none. What was read of Stripe
later wins: what dj-stripe saves is taken at once, and what a fetch here brings overwrites it. Metadata are not taken:
`ENTITLEMENTS_SUBSCRIBER_FOR_CUSTOMER` may say by them who pays, and is to be asked about Stripe's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from djstripe.models import Customer as Theirs

from entitlements_app import mirror, transactions
from entitlements_app.models import Customer
from entitlements_app.stripe_objects import CustomerDetails, parse_customer
from entitlements_app.transactions import primary

BATCH = 500


class Told(NamedTuple):
    """What dj-stripe says; an empty text says nothing."""

    email: str
    name: str


def told_by(email: Any, name: Any) -> Told:
    """Cut to what fits here."""
    details = parse_customer({"object": "customer", "email": email, "name": name})
    return Told(details.email, details.name)


def is_news(ours: Customer | None, row: Any) -> bool:
    """Whether a row of dj-stripe's says something else than ours. Asks the database nothing."""
    return ours is not None and _differs(ours, told_by(row.email, row.name))


def take_after_commit(row: Any, *, using: str, livemode: bool) -> None:
    """Once dj-stripe's transaction has committed, take what its row then says. If that fails, it is logged."""

    def take_as_it_is_by_then() -> None:
        for saved in Theirs._base_manager.using(using).filter(djstripe_id=row.djstripe_id):
            _write({saved.id: told_by(saved.email, saved.name)}, livemode=livemode)

    transaction.on_commit(take_as_it_is_by_then, using=using, robust=True)


def take_missing(rows: Iterable[tuple[str, Any, Any]], *, livemode: bool) -> int:
    """Of customers without a name and an e-mail address here, take what dj-stripe says: id, e-mail, name of each.

    Returns of how many. In transactions of 500, with one short query for each that has nothing to bring.
    """
    rest = iter(rows)
    taken = 0
    while batch := list(islice(rest, BATCH)):
        told = {stripe_id: told_by(email, name) for stripe_id, email, name in batch}
        nameless = _own(told, livemode=livemode).filter(email="", name="").values_list("stripe_id", flat=True)
        wanted = {stripe_id: told[stripe_id] for stripe_id in nameless if any(told[stripe_id])}
        taken += _write(wanted, livemode=livemode) if wanted else 0
    return taken


def _write(told: Mapping[str, Told], *, livemode: bool) -> int:
    return transactions.write(partial(_save, told, livemode=livemode))


def _save(told: Mapping[str, Told], *, livemode: bool) -> int:
    locked = mirror.lock(list(_own(told, livemode=livemode).values_list("pk", flat=True)))
    details = {
        customer: CustomerDetails(
            deleted=False,
            email=told[customer.stripe_id].email or customer.email,
            name=told[customer.stripe_id].name or customer.name,
            metadata=customer.metadata,
        )
        for customer in locked.values()
        if customer.deleted_at is None and _differs(customer, told[customer.stripe_id])
    }
    mirror.save_details(details)
    return len(details)


def _differs(customer: Customer, told: Told) -> bool:
    return (told.email or customer.email, told.name or customer.name) != (customer.email, customer.name)


def _own(stripe_ids: Iterable[str], *, livemode: bool) -> QuerySet[Customer]:
    return primary(Customer).filter(stripe_id__in=list(stripe_ids), account="", livemode=livemode)
