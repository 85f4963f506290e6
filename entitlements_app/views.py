"""The webhook endpoint; `CheckoutReturnView`, which has a module of its own, is found here too.

Until the signature has been checked a request is a stranger's: its body is read, bounded, as bytes, and neither parsed
nor stored. From the moment that the event is committed the answer is 2xx, whatever its processing, or waking the worker
that is to process it, then does.
"""

from __future__ import annotations

import logging
import time

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import conf, intake, stripe_client, stripe_objects
from .checkout_return import CheckoutReturnView
from .intake import MAX_BODY
from .stripe_client import SignatureInvalid
from .stripe_objects import Event, Malformed
from .transactions import without_atomic_requests

__all__ = ["CheckoutReturnView", "webhook"]

logger = logging.getLogger(__name__)


class _Refused(Exception):
    """The request is refused with this answer."""

    def __init__(self, answer: HttpResponse) -> None:
        self.answer = answer


@without_atomic_requests  # else the event would be rolled back together with a failure of its processing
@csrf_exempt
@login_not_required
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """Receive one event. 200: stored. 400: not from Stripe, or no event. 413: over 1 MiB. 405: not a POST."""
    try:
        event, sent_at = _read(request)
    except _Refused as refused:
        return refused.answer
    stored = intake.receive(event, sent_at=sent_at)
    return _plain(stored.stripe_id, status=200)


def _read(request: HttpRequest) -> tuple[Event, int]:
    """The verified event, and when Stripe signed it. The body stays in this frame, out of any later error report."""
    try:
        conf.check()
        if not conf.webhook_secrets():
            raise ImproperlyConfigured("ENTITLEMENTS_WEBHOOK_SECRETS is empty.")
    except ImproperlyConfigured as error:
        logger.error("Every webhook is refused until the settings are mended: %s", error)
        raise _Refused(_plain("This endpoint is not configured.", status=400)) from None
    try:
        body = request.read(MAX_BODY + 1)
    except UnreadablePostError:
        raise _refused("The body could not be read.") from None
    if len(body) > MAX_BODY:
        raise _refused("The body is too large.", status=413)
    try:
        text = body.decode()
        header = request.headers.get("Stripe-Signature", "")
        sent_at = stripe_client.verify(text, header, secrets=conf.webhook_secrets(), received_at=time.time())
        return stripe_objects.parse_event(text), sent_at
    except (SignatureInvalid, UnicodeDecodeError):
        raise _refused("The signature does not match.") from None
    except Malformed as error:
        raise _refused(f"Not an event: {error}.") from None


def _refused(reason: str, *, status: int = 400) -> _Refused:
    """A plain answer: Django's own for an exception would mail the admins for each stranger's request."""
    logger.warning("Refused a webhook: %s", reason)
    return _Refused(_plain(reason, status=status))


def _plain(text: str, *, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
