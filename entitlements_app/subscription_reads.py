"""Which subscriptions there are at Stripe, and which products they are to. For a report: access never follows from it.

Stripe lists a hundred with each call and tells no number beforehand, so they are read page by page and never held
together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import conf, stripe_objects, windows
from .budget import Allowance, Exhausted, SideAllowance
from .exceptions import StripeUnavailable
from .stripe_client import NoSuchObject, UnusableAnswer
from .stripe_objects import Page, Subscription
from .stripe_reads import PAGE_SIZE, CursorGone, iter_pages, read_all

__all__ = ["LIVE", "PAGE_SIZE", "Batch", "iter_subscriptions", "list_prices", "new_allowance"]

# Note [Live]
# Stripe grants while a subscription is `trialing` or `active`, and most likely while it is `past_due`: its guide takes
# access away when dunning ends in a cancellation, not with the first failed charge. A `paused` one keeps what it had,
# but nothing says that it gains what is attached later, and nobody pays for it; of `unpaid` nothing is known. Neither
# is owed a feature.
LIVE = frozenset({"trialing", "active", "past_due"})

PATH = "/v1/subscriptions"
PATIENCE = 3  # troubles in a row after which Stripe is left alone
PAUSE = 0.25  # seconds until it is asked again, four times as long the next time

FORBIDDEN = (
    "Stripe does not let this API key read subscriptions (HTTP 403). A restricted key must be allowed to read "
    "Subscriptions (subscription_read) and, for --product, Prices."
)


@dataclass(frozen=True)
class Batch:
    """A page of subscriptions, of whatever status, each with all its products. `asked_at` is Stripe's time then."""

    subscriptions: tuple[Subscription, ...]
    asked_at: int


def new_allowance() -> Allowance:
    """Calls for as long as it takes. A key that may not read subscriptions may well read entitlements."""
    return SideAllowance(seconds=float("inf"), forbidden=FORBIDDEN)


def iter_subscriptions(allowance: Allowance, *, customer: str = "", price: str = "") -> Iterator[Batch]:
    """All that are not canceled, newest first, or those of a customer or with a price. However many these are.

    Asked for without a status: in a list for each, a subscription that changes from one to another in the meantime
    would be in none. Those of test clocks are left out by Stripe unless the customer is named. Trouble is waited for a
    little. Raises `NoSuchObject`, `StripeRefused` or `StripeUnavailable`: then some are missing.
    """
    params = {name: value for name, value in (("customer", customer), ("price", price)) if value}
    cursor, troubles = "", 0
    while True:
        try:
            for page, asked_at in _pages(params, allowance, after=cursor):
                yield Batch(tuple(_whole(row, allowance) for row in page.rows), asked_at)
                cursor, troubles = page.last_id, 0
        except Exhausted:
            raise
        except CursorGone:
            raise UnusableAnswer("The list of subscriptions changed while it was read. Run it again.") from None
        except StripeUnavailable:
            troubles += 1
            if troubles >= PATIENCE:
                raise
            time.sleep(PAUSE * 4 ** (troubles - 1))
            continue
        return


def list_prices(product: str, allowance: Allowance) -> Sequence[str]:
    """The ids of a product's prices, archived ones too: subscriptions keep theirs. Raises what a call raises."""
    read = _reader(stripe_objects.parse_price)
    return read_all("/v1/prices", {"product": product}, allowance, read).rows


def _pages(params: dict[str, Any], allowance: Allowance, *, after: str) -> Iterator[tuple[Page[Subscription], int]]:
    read = _reader(partial(stripe_objects.parse_subscription, livemode=conf.livemode()))
    asked = time.time()
    for page, answer in iter_pages(PATH, params, allowance, read, most=None, after=after):
        yield page, windows.stripe_now(answer.date, asked=asked)
        asked = time.time()


def _whole(subscription: Subscription, allowance: Allowance) -> Subscription:
    """With all its products: of a long list of items Stripe shows the first ones only."""
    if subscription.complete or subscription.status not in LIVE:
        return subscription
    read = _reader(stripe_objects.parse_item)
    try:
        items = read_all("/v1/subscription_items", {"subscription": subscription.id}, allowance, read)
    except NoSuchObject:  # it went away meanwhile
        return replace(subscription, status="canceled")
    return replace(subscription, products=frozenset(items.rows), complete=True)


def _reader(parse: Any) -> Any:
    return partial(stripe_objects.parse_list, parse=parse, livemode=conf.livemode())
