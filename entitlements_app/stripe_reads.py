"""What is asked of Stripe: whole lists, one customer. All pages or nothing, with the time at which it was true."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from . import conf, stripe_client, stripe_objects, windows
from .budget import Allowance
from .stripe_client import Answer, NoSuchObject, UnusableAnswer
from .stripe_objects import CustomerDetails, Event, Grant, Malformed, Page

_Row = TypeVar("_Row")

PAGE_SIZE = 100
MAX_PAGES = 100
RESTARTS = 2


@dataclass(frozen=True)
class Listing(Generic[_Row]):
    """A full list, and the window of Stripe seconds in which it was true."""

    rows: tuple[_Row, ...]
    window: windows.Window


@dataclass(frozen=True)
class Retrieved:
    """A customer that Stripe knows, and the window of the answer."""

    details: CustomerDetails
    window: windows.Window


def list_active_entitlements(customer_id: str, allowance: Allowance) -> Listing[Grant]:
    """What the customer holds, one grant for each feature.

    Raises `NoSuchObject`, `StripeRefused`, or `StripeUnavailable` if any page is missing or unreadable.
    """
    params = {"customer": customer_id, "expand": ["data.feature"]}
    read = partial(stripe_objects.parse_list, parse=stripe_objects.parse_grant, livemode=conf.livemode())
    listing = read_all("/v1/entitlements/active_entitlements", params, allowance, read)
    grants = {grant.feature_id: grant for grant in listing.rows}
    return Listing(rows=tuple(grants.values()), window=listing.window)


def retrieve_customer(customer_id: str, allowance: Allowance) -> Retrieved:
    """The customer, which Stripe may know as deleted.

    Raises `NoSuchObject`, `StripeRefused` or `StripeUnavailable`.
    """
    started = time.time()
    answer = stripe_client.get(f"/v1/customers/{quote(customer_id, safe='')}", {}, allowance)
    details = readable(stripe_objects.parse_customer, answer)
    return Retrieved(details=details, window=_window(answer, answer, started=started))


def iter_events(
    types: Sequence[str], created: dict[str, int], allowance: Allowance
) -> Iterator[tuple[Page[Event], int]]:
    """The pages of the events of these types and times, newest first, each with Stripe's time when it answered.

    However many these are: whoever wants fewer stops. Raises what a call raises.
    """
    params = {"types": list(types)} | ({"created": created} if created else {})
    asked = time.time()
    try:
        for page, answer in iter_pages("/v1/events", params, allowance, stripe_objects.parse_events, most=None):
            yield page, windows.stripe_now(answer.date, asked=asked)
            asked = time.time()
    except CursorGone:
        raise UnusableAnswer("The list of events changed while it was read.") from None


def read_all(
    path: str, params: dict[str, Any], allowance: Allowance, read: Callable[[Any], Page[_Row]]
) -> Listing[_Row]:
    """All rows of a list, or an error; read anew if it changed between two pages. `read` may raise `Malformed`."""
    for _ in range(RESTARTS + 1):
        started = time.time()
        try:
            pages = list(iter_pages(path, params, allowance, read))
        except CursorGone:
            continue
        rows = tuple(row for page, _ in pages for row in page.rows)
        return Listing(rows=rows, window=_window(pages[0][1], pages[-1][1], started=started))
    raise UnusableAnswer(f"The list {path} kept changing while it was read.")


class CursorGone(Exception):
    """The last row of a page went away before the next page was asked for."""


def iter_pages(
    path: str,
    params: dict[str, Any],
    allowance: Allowance,
    read: Callable[[Any], Page[_Row]],
    *,
    most: int | None = MAX_PAGES,
    after: str = "",
) -> Iterator[tuple[Page[_Row], Answer]]:
    """The pages of a list, each with its answer, as they come. Raises `CursorGone` besides what a call raises.

    More than `most` pages are `UnusableAnswer`; with None there may be any number. `after` is the id of the row after
    which they begin.
    """
    cursor = after
    for _ in itertools.islice(itertools.count(), most):
        begin = {"starting_after": cursor} if cursor else {}
        try:
            answer = stripe_client.get(path, params | {"limit": PAGE_SIZE} | begin, allowance)
        except NoSuchObject:
            if cursor:
                raise CursorGone from None
            raise
        page = readable(read, answer)
        yield page, answer
        if not page.has_more:
            return
        if page.last_id in ("", cursor):
            raise UnusableAnswer("Stripe's list does not end: has_more is true, but there is no next page.")
        cursor = page.last_id
    raise UnusableAnswer(
        f"Stripe's list {path} has more than {most} pages of {PAGE_SIZE}, and no more are read. "
        "Of products and features, archive what is no longer sold."
    )


def readable(read: Callable[[Any], _Row], answer: Answer) -> _Row:
    """What the answer says. Raises `UnusableAnswer` where `read` raises `Malformed`."""
    try:
        return read(answer.data)
    except Malformed as error:
        raise UnusableAnswer(f"Stripe's answer could not be read ({error}).") from error


def _window(first: Answer, last: Answer, *, started: float) -> windows.Window:
    return windows.fetch_window(
        first_date=first.date, last_date=last.date, duration=first.duration, started=started, ended=time.time()
    )
