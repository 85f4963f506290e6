"""The only import of `stripe`: verify a signature, ask what a customer is entitled to. Errors are translated."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import stripe
from django.views.decorators.debug import sensitive_variables

from . import budget, conf, stripe_objects, windows
from .budget import Allowance
from .exceptions import StripeRefused, StripeUnavailable
from .stripe_objects import Grant, Malformed

TOLERANCE = 300  # seconds; older signatures are refused, a `t` in the future is not
CALL_SECONDS = 10.0  # longest wait for one answer
PAGE_SIZE = 100
MAX_PAGES = 100
RESTARTS = 2
PAUSE_SECONDS = 5  # no call for so long after Stripe could not be reached or asked for less


class SignatureInvalid(Exception):
    """The body was not signed by Stripe with one of our secrets, or too long ago."""


class NoSuchCustomer(StripeRefused):
    """Stripe does not know the customer in this account and mode."""


@dataclass(frozen=True)
class Listing:
    """A customer's full list of active entitlements, and the window of Stripe seconds in which it was true."""

    grants: tuple[Grant, ...]
    window: windows.Window


@dataclass(frozen=True)
class _Answer:
    data: Any
    date: int | None
    duration: float


@sensitive_variables()
def verify(body: str, header: str, secrets: Sequence[str], *, now: float | None = None) -> int:
    """Return the time, in Stripe seconds, at which Stripe signed this body.

    Raises `SignatureInvalid` unless one of the secrets signed it, at most TOLERANCE seconds ago.
    """
    if not header.isascii():
        raise SignatureInvalid
    oldest = (time.time() if now is None else now) - TOLERANCE
    for secret in secrets:
        try:
            # The age is checked below: the SDK reads the clock by itself and a tolerance of 0 would switch it off.
            stripe.WebhookSignature.verify_header(body, header, secret, None)
        except (stripe.SignatureVerificationError, ValueError):
            continue
        sent_at = _signed_time(header)
        if not 0 <= sent_at <= stripe_objects.MAX_SECONDS or sent_at < oldest:
            break
        return sent_at
    # `from None`: the SDK's exception carries the body and the header.
    raise SignatureInvalid from None


def _signed_time(header: str) -> int:
    """The `t` that was signed, found exactly as the SDK finds it: any other reading could be led to another `t`."""
    items = [item.split("=", 2) for item in header.split(",")]
    return int(next(item[1] for item in items if item[0] == "t"))


def list_active_entitlements(customer_id: str, allowance: Allowance) -> Listing:
    """All pages, or nothing.

    Raises `NoSuchCustomer`, `StripeRefused`, or `StripeUnavailable` if any page is missing or unreadable.
    """
    for _ in range(RESTARTS + 1):
        try:
            return _all_pages(customer_id, allowance)
        except _CursorGone:
            continue
    raise StripeUnavailable("The list of active entitlements kept changing while it was read.")


class _CursorGone(Exception):
    """The last row of a page was revoked before the next page was asked for."""


def _all_pages(customer_id: str, allowance: Allowance) -> Listing:
    started = time.time()
    grants: dict[str, Grant] = {}
    first: _Answer | None = None
    cursor = ""
    for _ in range(MAX_PAGES):
        params: dict[str, Any] = {"customer": customer_id, "limit": PAGE_SIZE}
        if cursor:
            params["starting_after"] = cursor
        try:
            answer = _get("/v1/entitlements/active_entitlements", params, allowance)
        except NoSuchCustomer:
            if cursor:
                raise _CursorGone from None
            raise
        first = first or answer
        page = _readable(answer)
        grants |= {grant.feature_id: grant for grant in page.grants}
        if not page.has_more:
            window = windows.fetch_window(
                first_date=first.date,
                last_date=answer.date,
                duration=first.duration,
                started=started,
                ended=time.time(),
            )
            return Listing(grants=tuple(grants.values()), window=window)
        if page.last_id in ("", cursor):
            raise StripeUnavailable("Stripe's list does not end: has_more is true, but there is no next page.")
        cursor = page.last_id
    raise StripeUnavailable(f"Stripe's list has more than {MAX_PAGES} pages.")


def _readable(answer: _Answer) -> stripe_objects.Page:
    try:
        return stripe_objects.parse_page(answer.data, livemode=conf.livemode())
    except Malformed as error:
        raise StripeUnavailable(f"Stripe's answer could not be read ({error}).") from error


def empty_listing() -> Listing:
    """That a customer holds nothing, where Stripe refused to list it: our clock stands in for the answer's `Date`."""
    now = time.time()
    window = windows.fetch_window(first_date=None, last_date=None, duration=0, started=now, ended=now)
    return Listing(grants=(), window=window)


def is_customer_deleted(customer_id: str, allowance: Allowance) -> bool:
    """Whether Stripe says that this customer, which it knows, was deleted.

    Raises `NoSuchCustomer`, `StripeRefused` or `StripeUnavailable`.
    """
    answer = _get(f"/v1/customers/{quote(customer_id, safe='')}", {}, allowance)
    try:
        return stripe_objects.parse_customer_deleted(answer.data)
    except Malformed as error:
        raise StripeUnavailable(f"Stripe's answer could not be read ({error}).") from error


@sensitive_variables()
def _get(path: str, params: dict[str, Any], allowance: Allowance) -> _Answer:
    key = conf.stripe_api_key()
    if key is None:
        raise StripeRefused("ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked.")
    allowance.take()
    left = allowance.seconds_left
    if left <= 0:
        raise StripeUnavailable("There was no time left to ask Stripe.")
    client = _client(key, conf.stripe_api_base(), _timeouts(left), os.getpid())
    began = time.monotonic()
    try:
        response: Any = client.raw_request("get", path, **params)
    except stripe.StripeError as error:
        # `from None`: the SDK's frames hold the key, and an error report shows the frames of a cause.
        raise _translated(error) from None
    return _Answer(data=response.data, date=_date(response.headers.get("Date")), duration=time.monotonic() - began)


def _timeouts(left: float) -> tuple[float, float]:
    """Seconds to connect and to read. In half seconds, so that few clients, each with its connections, serve all."""
    halves = max(2, int(min(left, CALL_SECONDS) * 2))
    connect = max(1, halves // 3)
    return connect / 2, (halves - connect) / 2


@lru_cache(maxsize=64)
def _client(key: str, base: str | None, timeouts: tuple[float, float], pid: int) -> stripe.StripeClient:  # noqa: ARG001
    """One client per process: connections must not be shared across a fork. It keeps one session per thread."""
    return stripe.StripeClient(
        key,
        base_addresses={"api": base} if base else {},
        http_client=stripe.RequestsClient(timeout=timeouts),
        max_network_retries=0,  # a failed call is planned again; repeating it here would overdraw the budget
    )


def _translated(error: stripe.StripeError) -> Exception:
    """Our error for Stripe's, decided by HTTP status and code: texts are not part of its API."""
    status = error.http_status
    code = error.error.code if error.error is not None else None
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        budget.stop(f"HTTP {status}")
        return budget.Stopped(f"Stripe refused the API key (HTTP {status}).")
    if status in (400, 404) and code == "resource_missing":
        return NoSuchCustomer("Stripe does not know the customer in this account and mode.")
    if status is None or status == 429 or code == "rate_limit":
        budget.pause(PAUSE_SECONDS)
        return StripeUnavailable(f"Stripe could not be asked ({_reason(error)}).", status=status)
    if status in (409, 424) or status >= 500 or status < 400:
        return StripeUnavailable(f"Stripe did not answer ({_reason(error)}).", status=status)
    return StripeRefused(f"Stripe refused the call ({_reason(error)}).")


def _reason(error: stripe.StripeError) -> str:
    parts = [type(error).__name__]
    if error.http_status is not None:
        parts.append(f"HTTP {error.http_status}")
    if error.request_id:
        parts.append(str(error.request_id))
    if base := conf.stripe_api_base():
        parts.append(f"at {base}")
    return ", ".join(parts)


def _date(header: str | None) -> int | None:
    """The answer's `Date`, in Stripe seconds."""
    try:
        return int(parsedate_to_datetime(header or "").timestamp())
    except (TypeError, ValueError, OverflowError):
        return None
