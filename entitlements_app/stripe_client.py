"""The only import of `stripe`: verify a signature, make a call. Errors are translated."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import stripe
from django.views.decorators.debug import sensitive_variables

from . import budget, conf, stripe_objects
from .budget import Allowance
from .exceptions import StripeRefused, StripeUnavailable

TOLERANCE = 300  # seconds; older signatures are refused, a `t` in the future is not
CALL_SECONDS = 10.0  # longest wait for one answer


class SignatureInvalid(Exception):
    """The body was not signed by Stripe with one of the endpoint's secrets, or too long ago."""


class NoAnswer(StripeUnavailable):
    """Stripe could not be reached, or was silent for too long."""


class TooManyCalls(StripeUnavailable):
    """Stripe asks for fewer calls."""


class UnusableAnswer(StripeUnavailable):
    """Stripe answered, but not what was asked. The next question may well be answered."""


class NoSuchObject(StripeRefused):
    """Stripe does not know the object in this account and mode."""


class KeyReused(StripeRefused):
    """The idempotency key was used for another call."""


LONGEST_SAID = 300  # characters of what Stripe says of a refusal


@dataclass(frozen=True)
class Answer:
    """Parsed JSON, with the answer's `Date` in Stripe seconds, and how many seconds it took."""

    data: Any
    date: int | None
    duration: float
    replayed: bool = False


@sensitive_variables()
def verify(body: str, header: str, *, secrets: Iterable[str], received_at: float) -> int:
    """Return the time, in Stripe seconds, at which Stripe signed this body, which was received at `received_at`.

    Raises `SignatureInvalid` unless one of these secrets signed it, at most TOLERANCE seconds before. None of them may
    be empty: with an empty key anybody can sign.
    """
    if not header.isascii():
        raise SignatureInvalid
    oldest = received_at - TOLERANCE
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


def get(path: str, params: dict[str, Any], allowance: Allowance) -> Answer:
    """Make one call. Raises `NoSuchObject`, `StripeRefused` or `StripeUnavailable`."""
    return _call("get", path, params, allowance)


def post(path: str, params: dict[str, Any], allowance: Allowance, *, idempotency_key: str) -> Answer:
    """Make one call that changes something, at most once for each idempotency key. Raises what `get` raises.

    With `KeyReused` the key stood for another call. An answer may be `replayed`: of the first call with the key, of up
    to 24 hours ago. A failure with HTTP 5xx is replayed as well.
    """
    return _call("post", path, params | {"idempotency_key": idempotency_key}, allowance)


def delete(path: str, allowance: Allowance) -> Answer:
    """Make one call that deletes something. Raises what `get` raises; a second one for the same is `NoSuchObject`."""
    return _call("delete", path, {}, allowance)


def _call(method: str, path: str, params: dict[str, Any], allowance: Allowance) -> Answer:
    if conf.stripe_api_key() is None:
        raise StripeRefused("ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked.")
    allowance.take()
    if allowance.longest_call <= 0:
        raise budget.Exhausted("There was no time left to ask Stripe.")
    client = _client(_timeouts(allowance.longest_call))
    began = time.monotonic()
    try:
        answer: Any = client.raw_request(method, path, **params)
    except stripe.StripeError as error:
        # The SDK's frames hold the key, and an error report shows the frames of a cause: leave them behind.
        problem = error.with_traceback(None)
    else:
        duration = time.monotonic() - began
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        return Answer(answer.data, _date(answer.headers.get("Date")), duration, replayed)
    translated = _translated(problem, is_read=method == "get")
    if isinstance(translated, budget.Stopped):
        allowance.stop(translated)
    elif isinstance(translated, NoAnswer | TooManyCalls):
        allowance.pause()
    raise translated


def _timeouts(left: float) -> tuple[float, float]:
    """Seconds to connect and to read. In half seconds, so that few clients, each with its connections, serve all."""
    halves = max(2, int(min(left, CALL_SECONDS) * 2))
    connect = max(1, halves // 3)
    return connect / 2, (halves - connect) / 2


@sensitive_variables()
def _client(timeouts: tuple[float, float]) -> stripe.StripeClient:
    return _client_of(conf.stripe_api_key() or "", conf.stripe_api_base(), timeouts, os.getpid())


@lru_cache(maxsize=64)
@sensitive_variables()
def _client_of(key: str, base: str | None, timeouts: tuple[float, float], pid: int) -> stripe.StripeClient:  # noqa: ARG001
    """One client per process: connections must not be shared across a fork. It keeps one session per thread."""
    return stripe.StripeClient(
        key,
        base_addresses={"api": base} if base else {},
        http_client=stripe.RequestsClient(timeout=timeouts),
        max_network_retries=0,  # a failed call is planned again; repeating it here would overdraw the budget
    )


def _translated(error: stripe.StripeError, *, is_read: bool) -> Exception:
    """Our error for Stripe's, decided by HTTP status and code: texts are not part of its API."""
    status = error.http_status
    code = error.error.code if error.error is not None else None
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        reason = f"HTTP {status}"
        needed = f" {budget.PERMISSIONS}" if reason == budget.NOT_PERMITTED else ""
        return budget.Stopped(f"Stripe refused the API key ({reason}).{needed}", reason=reason)
    if status in (400, 404) and code == "resource_missing":
        return NoSuchObject("Stripe does not know the object in this account and mode.")
    if status is None:
        return NoAnswer(f"Stripe could not be asked ({_reason(error)}).")
    if code == "lock_timeout":
        return UnusableAnswer(f"Stripe has locked the object ({_reason(error)}).", status=status)
    if status == 429 or code == "rate_limit":
        return TooManyCalls(f"Stripe asks for fewer calls ({_reason(error)}).", status=status)
    if status >= 500:
        return StripeUnavailable(f"Stripe has trouble ({_reason(error)}).", status=status)
    if status in (409, 424) or status < 400:
        return UnusableAnswer(f"Stripe's answer cannot be used ({_reason(error)}).", status=status)
    if isinstance(error, stripe.IdempotencyError):
        return KeyReused("The idempotency key was used for another call. Take another one for another change.")
    said = "" if is_read else _said(error)
    param = str(getattr(error.error, "param", None) or "")
    return StripeRefused(f"Stripe refused the call ({_reason(error)}).{said}", param=param)


def _said(error: stripe.StripeError) -> str:
    """What Stripe says of a change that it refuses, in a line for whoever wants it."""
    said = "".join(char if char.isprintable() else " " for char in str(error.user_message or ""))
    text = " ".join(said.split())
    return f" It says: {text[:LONGEST_SAID]}" if text else ""


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
