"""Bring what Stripe said into the mirror: the payload of an event, or the answer to a question.

Network first, then locks: no call is made inside a transaction, and an answer whose customer moved on meanwhile is
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.utils import timezone

from . import catalog_sync, conf, fetches, mirror, settle, windows
from .budget import Allowance
from .changes import Cause
from .mirror import Holding
from .models import Customer
from .settle import Synced
from .stripe_objects import Grant

__all__ = ["News", "Payload", "Synced", "apply_news", "sync_catalog", "sync_customer"]

SYNC_SECONDS = 30.0


@dataclass(frozen=True)
class Payload:
    """The newest summary event of a batch. `sole_of_its_second`: no other of the batch has its `created`."""

    created: int
    sent_at: int | None
    grants: tuple[Grant, ...]
    complete: bool
    sole_of_its_second: bool


@dataclass(frozen=True)
class News:
    """What a batch of events says of one customer. `hint`: that something may have changed; `urgent`: surely."""

    stripe_id: str
    payload: Payload | None = None
    hint: bool = False
    urgent: bool = False
    deleted: bool = False


def apply_news(news: Sequence[News], *, livemode: bool) -> bool:
    """Apply what each customer's newest payload says, or mark the customer for a fetch.

    Returns whether one of these customers is urgent now. The caller owns the transaction and has locked nothing but
    events.
    """
    customers = mirror.lock_by_stripe_id([item.stripe_id for item in news], livemode=livemode)
    site_links = conf.subscriber_for_customer() is not None
    now = timezone.now()  # of the writers that waited for one another the last has the latest
    holdings = []
    for item in news:
        customer = customers[item.stripe_id]
        if customer.deleted_at is not None:
            continue
        if item.deleted:
            holdings.append(mirror.delete(customer, now=now, cause=Cause.EVENT))
            continue
        if item.hint or item.urgent:
            mirror.hint(customer, now=now, urgent=item.urgent)
        if item.payload is not None and customer.subscriber_id is None and site_links:
            mirror.hint(customer, now=now, urgent=True)
        if item.payload is not None and _welcome(customer, item.payload, now=now):
            customer.window = windows.payload_window(item.payload.created)
            holdings.append(Holding(customer, item.payload.grants, Cause.EVENT))
    mirror.save(list(customers.values()), holdings)
    return any(customer.urgent for customer in customers.values())


def _welcome(customer: Customer, payload: Payload, *, now: datetime) -> bool:
    """Whether the payload becomes our state. Either way it is a hint as well."""
    verdict = windows.judge(
        created=payload.created,
        sent_at=payload.sent_at,
        complete=payload.complete,
        sole_of_its_second=payload.sole_of_its_second,
        window=customer.window,
    )
    mirror.hint(customer, now=now, urgent=verdict.urgent)
    return verdict.applies


def sync_customer(customer: Customer, *, with_details: bool = False) -> Synced:
    """Ask Stripe now what this customer holds, and make our rows equal to it.

    `with_details`: its e-mail address, name and metadata as well, which takes a second call. Waits for the call budget,
    30 s in all. Raises `StripeUnavailable` (nothing changed, try again), `StripeRefused`, `Customer.DoesNotExist`,
    `ValueError` for a customer of another account or mode than the configured one, and `RuntimeError` inside an atomic
    block. A deleted customer is not asked for.
    """
    row = mirror.asked_about().get(pk=customer.pk)
    if row.account or row.livemode is not conf.livemode():
        raise ValueError(
            f"{row.stripe_id} belongs to another account or mode than ENTITLEMENTS_STRIPE_API_KEY: "
            "asking about it with this key would take its access away."
        )
    if row.deleted_at is not None:
        return Synced(applied=False)
    return settle.run(replace(fetches.of(row), with_details=with_details), Allowance(seconds=SYNC_SECONDS))


def sync_catalog() -> catalog_sync.CatalogReport:
    """Read Stripe's catalogue now, and make our rows equal to it: features, products, and what is attached to them.

    Waits for the call budget; asks about each product, however many there are. Raises `StripeUnavailable` (nothing
    changed, try again; also while another process reads the catalogue), `StripeRefused`, and `RuntimeError` inside an
    atomic block.
    """
    return catalog_sync.run_now()
