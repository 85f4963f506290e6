"""The call budget: how fast all workers together may call Stripe, for one account and mode, and whether at all.

The budget is one row per account and mode, taken by one UPDATE on the database's clock, so that neither workers nor
their clocks need to agree. `next_call_at` is when the next call may start; each call moves it on.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Q, QuerySet, When
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables

from . import conf
from .exceptions import StripeRefused, StripeUnavailable
from .models import AccountState
from .transactions import primary

logger = logging.getLogger(__name__)

# A worker that wakes up late may catch up this much.
SLACK = timedelta(seconds=0.2)
SHORTEST_SLEEP = 0.02
# No call is planned farther ahead than this: what is was left by another rate, or by a clock that was set back.
FARTHEST = timedelta(seconds=60)


STOPPED = (
    "Calls to Stripe are stopped since it refused the API key. Set another key, "
    "or run `manage.py entitlements_run --resume`."
)


class Stopped(StripeRefused):
    """Calls are stopped since Stripe refused the API key."""


class Exhausted(StripeUnavailable):
    """The call budget has nothing left in the time there is."""


class Allowance:
    """What one piece of work may spend: so many seconds, and calls from the budget as it comes free."""

    def __init__(self, *, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._prepaid = False

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def prepay(self) -> bool:
        """Take the first call now, if there is one now. Raises `Stopped` while calls are stopped."""
        self._prepaid = self._prepaid or _take()
        if not self._prepaid:
            _raise_if_stopped()
        return self._prepaid

    def take(self) -> None:
        """Take one call, waiting for it. Raises `Exhausted` if none comes free in time, or `Stopped`."""
        wait = max(1 / conf.stripe_rate(), SHORTEST_SLEEP)
        while not self.prepay():
            if self.seconds_left < wait:
                raise Exhausted("The call budget (ENTITLEMENTS_STRIPE_RATE) is used up for now.")
            time.sleep(min(wait, 1))
        self._prepaid = False


def _take() -> bool:
    now = Now()
    interval = timedelta(seconds=1 / conf.stripe_rate())
    beyond = ExpressionWrapper(now + (FARTHEST + interval), output_field=DateTimeField())
    planned = Case(When(next_call_at__gt=beyond, then=now), default=F("next_call_at"))
    step = ExpressionWrapper(Greatest(Coalesce(planned, now), now) + interval, output_field=DateTimeField())
    horizon = ExpressionWrapper(now + SLACK, output_field=DateTimeField())
    free = Q(next_call_at=None) | Q(next_call_at__lte=horizon) | Q(next_call_at__gt=beyond)
    allowed = Q(stopped_at=None) | ~Q(stopped_key=_fingerprint())
    taken = _row().filter(free, allowed).update(next_call_at=step, stopped_at=None)
    if not taken and not _row().exists():
        state = AccountState(account="", livemode=conf.livemode())
        primary(AccountState).bulk_create([state], ignore_conflicts=True)
        return _take()
    return bool(taken)


def pause(seconds: float) -> None:
    """No call for that long: Stripe is out of reach or asked for less."""
    later = ExpressionWrapper(Now() + timedelta(seconds=seconds), output_field=DateTimeField())
    _row().update(next_call_at=later)


def stop(reason: str) -> None:
    """No call at all until there is another key or someone resumes: Stripe refused the key."""
    _row().update(stopped_at=timezone.now(), stopped_key=_fingerprint(), stopped_reason=reason)
    logger.critical(
        "Stripe refused the API key (%s). Nothing is fetched until ENTITLEMENTS_STRIPE_API_KEY changes "
        "or `manage.py entitlements_run --resume` is run.",
        reason,
    )


def resume() -> bool:
    """Allow calls again. Returns whether they had been stopped."""
    return bool(_row().exclude(stopped_at=None).update(stopped_at=None, stopped_reason="", next_call_at=None))


def stopped_reason() -> str:
    """Why calls with the present key are stopped, empty if they are not."""
    row = _row().filter(stopped_at__isnull=False, stopped_key=_fingerprint()).first()
    return row.stopped_reason if row else ""


def _raise_if_stopped() -> None:
    if stopped_reason():
        raise Stopped(STOPPED)


def _row() -> QuerySet[AccountState]:
    return primary(AccountState).filter(account="", livemode=conf.livemode())


@sensitive_variables()
def _fingerprint() -> str:
    """Tells one key from another without storing it."""
    key = conf.stripe_api_key() or ""
    return salted_hmac("entitlements_app.budget", key, algorithm="sha256").hexdigest()[:32]
