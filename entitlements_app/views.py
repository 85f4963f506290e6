"""The webhook view.

Until the signature has been checked a request is a stranger's: its body is read, bounded, as bytes, and neither parsed
nor stored. From the moment that the event is committed the answer is 2xx, whatever its processing then does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from . import conf, inbox, reconcile, stripe_client, stripe_objects
from .models import WebhookEvent
from .stripe_client import SignatureInvalid
from .stripe_objects import Malformed

_View = Callable[[HttpRequest], HttpResponse]

logger = logging.getLogger(__name__)

MAX_BODY = 2**20  # bytes


# A refusal is a plain answer and no exception: what raises here would mail the admins for each stranger's request,
# and under DEBUG show them the frames that hold the secrets.
def _refuse(reason: str, *, status: int = 400) -> HttpResponse:
    logger.warning("Refused a webhook: %s", reason)
    return HttpResponse(reason, status=status, content_type="text/plain; charset=utf-8")


def _not_configured(problem: str) -> HttpResponse:
    logger.error("Every webhook is refused until the settings are mended: %s", problem)
    return HttpResponse("This endpoint is not configured.", status=400, content_type="text/plain; charset=utf-8")


def _non_atomic(view: _View) -> _View:
    """With ATOMIC_REQUESTS the event would be rolled back together with a failure of its processing."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@_non_atomic
@sensitive_variables("secrets")
@csrf_exempt
@login_not_required
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """Receive one event. 200: stored. 400: not from Stripe, or no event. 413: over 1 MiB. 405: not a POST."""
    try:
        secrets = conf.webhook_secrets()
        conf.livemode()
    except ImproperlyConfigured as error:
        return _not_configured(str(error))
    if not secrets:
        return _not_configured("ENTITLEMENTS_WEBHOOK_SECRETS is empty.")
    try:
        body = request.read(MAX_BODY + 1)
    except UnreadablePostError:
        return _refuse("The body could not be read.")
    if len(body) > MAX_BODY:
        return _refuse("The body is too large.", status=413)
    try:
        text = body.decode()
        sent_at = stripe_client.verify(text, request.headers.get("Stripe-Signature", ""), secrets)
    except (SignatureInvalid, UnicodeDecodeError):
        return _refuse("The signature does not match.")
    try:
        event = stripe_objects.parse_event(text)
    except Malformed as error:
        return _refuse(f"Not an event: {error}.")
    stored = inbox.store(event, sent_at=sent_at)
    _follow_up(stored)
    return HttpResponse(stored.stripe_id, content_type="text/plain; charset=utf-8")


def _follow_up(event: WebhookEvent) -> None:
    try:
        inbox.process(event)
        inbox.process_overdue()
        reconcile.fetch_one()
    except Exception:  # The event is committed: Stripe need not send it again, and it will be tried again.
        logger.exception("Processing after webhook event %s failed.", event.stripe_id)
