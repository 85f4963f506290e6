"""What the page of a webhook event says of it, in sentences."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from django.utils import timezone
from django.utils.translation import gettext as _

from entitlements_app import conf, inbox
from entitlements_app.models import WebhookEvent
from entitlements_app.wording import format_moment

Status = WebhookEvent.Status


def get_meaning(event: WebhookEvent) -> str:
    """What its status means, and what is to be done."""
    return _MEANINGS[Status(event.status)](event)


def get_source(event: WebhookEvent) -> str:
    """How it came here."""
    if event.sent_at is None:
        return _("Not by a webhook that counts: found by asking the Events API, or tried again by staff.")
    return _("By a webhook, signed at %(at)s (UTC).") % {"at": as_utc(event.sent_at)}


def _pending(event: WebhookEvent) -> str:
    at = event.next_attempt_at
    if event.attempts == 0:
        return _("It waits to be processed for the first time.")
    if at is None or at <= timezone.now():
        return _("It failed, and is tried again when the inbox is next worked off.")
    return _("It failed, and is tried again on %(at)s.") % {"at": format_moment(at)}


def _processed(_event: WebhookEvent) -> str:
    return _("It was applied, or its customer was marked so that Stripe is asked.")


def _ignored(event: WebhookEvent) -> str:
    if event.error.startswith(inbox.DISMISSED):
        return _("It had failed, and somebody dismissed it. Nothing follows from it.")
    if event.account:
        return _("It is of another account than the site's own, so it was stored and nothing else.")
    if event.livemode is not conf.livemode():
        return _("It is of the other mode than this site's, so it was stored and nothing else.")
    return _("Nothing follows from an event like this one, so it was stored and nothing else.")


def _failed(event: WebhookEvent) -> str:
    if event.customer_stripe_id:
        return _("It could not be processed, so Stripe is asked about its customer. Mend the cause, then try it again.")
    return _(
        "It could not be read, and names no customer whom Stripe could be asked about. Dismiss it when you know why."
    )


_MEANINGS: dict[Status, Callable[[WebhookEvent], str]] = {
    Status.PENDING: _pending,
    Status.PROCESSED: _processed,
    Status.IGNORED: _ignored,
    Status.FAILED: _failed,
}


def as_utc(seconds: int) -> str:
    """Stripe's seconds, which may be beyond any date."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
