"""Change something in Stripe once, however often that has to be tried.

What Stripe promises of idempotency keys: https://docs.stripe.com/api/idempotent_requests

# Note [Once]
A change whose answer was lost may have happened or not. Sent again with the same idempotency key it happens at most
once, and Stripe tells how it ended. So a key belongs to what somebody wants done, and to each try of it: it is made
when it is first wanted, and what failed openly hands it out. It never follows from what is sent: who removes a
feature and wants the very same again tomorrow wants something new.

An answer with HTTP 5xx is kept and told again for the same key, so that trying on with it is in vain for 24 hours; yet
what was wanted may have been done. Only looking tells. If it is not there, another key is taken.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import stripe_client
from .budget import Allowance, Exhausted, Stopped
from .exceptions import StripeRefused, StripeUnavailable
from .stripe_client import Answer, TooManyCalls

_T = TypeVar("_T")

TRIES = 3
WAIT = 0.5  # seconds before the second try; twice as long before each further one
LONGEST_IDEMPOTENCY_KEY = 255


def new_idempotency_key() -> str:
    """A key for one change that is wanted. Whoever may have to ask twice keeps it."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Change(Generic[_T]):
    """What is wanted of Stripe: a POST with these parameters.

    `find` asks Stripe whether it is done already, and returns what is there, or None.
    """

    path: str
    params: dict[str, Any]
    find: Callable[[Allowance], _T | None]


def make(change: Change[_T], allowance: Allowance, *, idempotency_key: str | None = None) -> Answer | _T:
    """Make the change. Returns Stripe's answer, or else what `find` found to be there.

    Raises `StripeRefused` for what Stripe refuses and is not there either, and `StripeUnavailable`, with the
    idempotency key for the next try where it is open whether this one was done.
    """
    key = _checked(idempotency_key) or new_idempotency_key()
    is_open = False
    for attempt in range(TRIES):
        try:
            return stripe_client.post(change.path, change.params, allowance, idempotency_key=key)
        except Stopped:
            raise
        except StripeRefused:
            # It may have been done by a try that nobody remembers.
            if (found := _look(change, allowance)) is not None:
                return found
            raise
        except StripeUnavailable as error:
            problem = error
        if isinstance(problem, Exhausted):
            break
        is_open = is_open or not isinstance(problem, TooManyCalls)
        if problem.status is not None and problem.status >= 500:
            try:
                found = change.find(allowance)
            except (StripeUnavailable, StripeRefused):
                break
            if found is not None:
                return found
            key, is_open = new_idempotency_key(), False
        if attempt + 1 < TRIES:
            time.sleep(min(WAIT * 2**attempt, max(allowance.seconds_left, 0)))
    if not is_open:
        raise problem
    raise StripeUnavailable(
        f"{problem} Whether it was done is not known. Try again: it is done once.",
        status=problem.status,
        idempotency_key=key,
    ) from problem


def _look(change: Change[_T], allowance: Allowance) -> _T | None:
    """What is there, if Stripe can say so now."""
    try:
        return change.find(allowance)
    except (StripeUnavailable, StripeRefused):
        return None


def _checked(key: str | None) -> str | None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= LONGEST_IDEMPOTENCY_KEY and key.isascii()):
        raise ValueError(f"An idempotency key has 1 to {LONGEST_IDEMPOTENCY_KEY} ASCII characters.")
    return key
