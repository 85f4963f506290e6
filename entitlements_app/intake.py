"""What is done with an event when it is known who says so. Every endpoint that events reach ends here.

`receive` is for what Stripe signed: kept, each event once, whichever endpoints it came by. `hint` is for what nobody
vouches for: it is neither kept nor believed.
"""

from __future__ import annotations

import logging

from django.utils import timezone

from . import conf, dispatch, inbox, reconcile, sync, transactions
from .models import Customer, WebhookEvent
from .stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, Event
from .sync import News
from .transactions import own
from .windows import SETTLE

logger = logging.getLogger(__name__)

MAX_BODY = 2**20  # bytes


def receive(event: Event, *, sent_at: int) -> WebhookEvent:
    """Commit an event that Stripe signed at `sent_at`, then process it, or wake the worker that will.

    Returns its row. Raises what the database raises if the event cannot be committed, and nothing after the commit.
    """
    stored = inbox.store(event, sent_at=sent_at)
    try:
        _follow_up(stored)
    except Exception:  # The event is committed: Stripe need not send it again, and it will be tried again.
        logger.exception("Processing after webhook event %s failed.", event.id)
    return stored


def _follow_up(event: WebhookEvent) -> None:
    if conf.webhook_processing() == "celery":
        if event.status == WebhookEvent.Status.PENDING:
            dispatch.wake("process_events")
        return
    inbox.process(event)
    inbox.process_overdue()
    reconcile.fetch_one()


def hint(event: Event) -> bool:
    """Have Stripe asked about the customer of an event that may be forged. Returns whether it will be.

    Only about a customer that we know, and at once only if it was not asked about in the last minute: whoever forges
    events neither fills a table nor spends the call budget. No row gets the event's id, which the real one may still
    come with. Raises what the database raises.
    """
    if not event.customer or event.account or event.livemode is not conf.livemode():
        return False
    customer = own(Customer).filter(stripe_id=event.customer, deleted_at=None).first()
    if customer is None:
        return False
    lately = customer.fetched_at is not None and customer.fetched_at > timezone.now() - SETTLE
    tells = event.type in (SUMMARY_UPDATED, CUSTOMER_DELETED)
    news = News(event.customer, hint=True, urgent=tells and not lately and not customer.urgent)
    if transactions.write(lambda: sync.apply_news([news], livemode=event.livemode)):
        _ask_soon(event)
    return True


def _ask_soon(event: Event) -> None:
    try:
        if conf.webhook_processing() == "celery":
            dispatch.wake("confirm_customers")
        else:
            reconcile.fetch_one()
    except Exception:  # The customer is marked, and will be asked about.
        logger.exception("Asking Stripe after webhook event %s failed.", event.id)
