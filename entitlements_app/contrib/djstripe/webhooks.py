"""Bring the events that reach dj-stripe's endpoint into the inbox.

Note [Before and after]
dj-stripe commits a row for the request, its trigger, and then does all else in one transaction, in which it asks Stripe
for a minute, if need be, and may fail, or be killed over it. So an event is received here as soon as the trigger is
there, by a signature that is verified here, and before dj-stripe begins: its row is committed by itself, as by this
app's own endpoint, which would otherwise wait for dj-stripe's transaction if the same event came to both.

What failed then, and what has no signature that counts, is brought when dj-stripe is done: after its commit, or after
its failure. After its commit, whatever fails here is raised: the answer is 500, and Stripe sends the event again.
dj-stripe has done its work by then and does it once. It has not been kept from it: not by our tables, nor by our
settings. After its failure the answer is 500 anyway, and what is told is dj-stripe's error.

Note [What is believed]
Only what the endpoint's secret signed, at most five minutes before it came, whatever tolerance dj-stripe's row has:
with one of 0 it accepts what was caught years ago. Under DEBUG it lets the request say by which secret it is signed;
here the row's secret counts. Where the row says that signatures are not verified, nobody has seen that its secret is
one, so it does not count: dj-stripe compares such an event with Stripe's, but only the object in it, or not at all. All
this is a hint (`intake.hint`): Stripe is asked. dj-stripe itself believes it, and may write that a customer has another
subscriber now; while it processes such an event, `customers` follows nothing that it writes.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.signals import request_started
from django.db import connections, transaction
from django.db.models.signals import post_save
from django.utils.datastructures import CaseInsensitiveMapping
from django.views.decorators.debug import sensitive_variables
from djstripe.enums import WebhookEndpointValidation
from djstripe.models import WebhookEventTrigger
from djstripe.signals import webhook_post_process, webhook_pre_process, webhook_processing_error
from djstripe.views import ProcessWebhookView

from entitlements_app import conf, intake, stripe_client, stripe_objects
from entitlements_app.stripe_objects import Event, Malformed
from entitlements_app.transactions import alias

from . import customers
from .accounts import is_own_account, owner_of

logger = logging.getLogger(__name__)

_UID = "entitlements_app.contrib.djstripe.webhooks"


def connect() -> None:
    """Listen to dj-stripe, from now on."""
    post_save.connect(_arrived, sender=WebhookEventTrigger, dispatch_uid=_UID)
    webhook_pre_process.connect(_begins, dispatch_uid=_UID)
    webhook_post_process.connect(_processed, dispatch_uid=_UID)
    webhook_processing_error.connect(_failed, dispatch_uid=_UID)
    # A receiver of the site that raises may keep the other two from being told.
    request_started.connect(_ends, dispatch_uid=_UID)
    # Of dj-stripe's database it is exempt already. A failure of dj-stripe's is not to roll back our rows in another.
    transaction.non_atomic_requests(using=alias())(ProcessWebhookView.dispatch)


def _arrived(instance: Any, *, created: bool, raw: bool, **_: object) -> None:
    if not created or raw:
        return
    try:
        with _undone_alone():
            _bring(instance)
    except Exception as error:  # noqa: BLE001  (of whatever kind: dj-stripe's own work does not depend on ours)
        logger.warning("An event is tried again when dj-stripe is done with it (%s).", type(error).__name__)


def _undone_alone() -> AbstractContextManager[object]:
    """Where a site has a transaction around dj-stripe's view, a failure of ours is not to be the end of it."""
    is_inside = connections[alias()].in_atomic_block
    return transaction.atomic(using=alias()) if is_inside else nullcontext()


def _begins(instance: Any, **_: object) -> None:
    customers.distrust(on=_signed_at(instance) is None)


def _ends(**_: object) -> None:
    customers.distrust(on=False)


def _processed(instance: Any, **_: object) -> None:
    _ends()
    transaction.on_commit(partial(_bring, instance))  # of the database that dj-stripe's transaction is of


def _failed(instance: Any, **_: object) -> None:
    _ends()
    try:
        with _undone_alone():
            _bring(instance)
    except Exception:  # dj-stripe's error is the one that is raised; Stripe sends the event again
        logger.exception("An event that dj-stripe failed on could not be stored.")


def _bring(trigger: Any) -> None:
    """Hand a trigger's event to `intake`, once; one that nobody vouches for when dj-stripe has let it pass."""
    if getattr(trigger, "_entitlements_brought", False):
        return
    signed_at = _signed_at(trigger)
    if signed_at is None and not trigger.valid:
        return
    event = _event(trigger)
    if event is not None:
        _hand_over(event, signed_at, trigger.webhook_endpoint)
    trigger._entitlements_brought = True


def _hand_over(event: Event, signed_at: int | None, endpoint: Any) -> None:
    conf.check()
    owner = owner_of(endpoint) if endpoint else None
    if owner is not None and not is_own_account(owner):
        event = replace(event, account=event.account or owner)
    if signed_at is not None:
        intake.receive(event, sent_at=signed_at)
    elif not intake.hint(event):
        logger.info("%s (%s), which nobody vouches for, is of no customer that is known here.", event.id, event.type)


@sensitive_variables()
def _signed_at(trigger: Any) -> int | None:
    """When Stripe signed what the trigger holds; `None` without a signature that counts: Note [What is believed]."""
    endpoint = trigger.webhook_endpoint
    if endpoint is None or endpoint.djstripe_validation_method != WebhookEndpointValidation.verify_signature:
        return None
    header = CaseInsensitiveMapping(trigger.headers).get("stripe-signature", "")
    secrets = [endpoint.secret] if endpoint.secret.strip() else []
    try:
        return stripe_client.verify(trigger.body, header, secrets=secrets, received_at=trigger.created.timestamp())
    except stripe_client.SignatureInvalid:
        return None


def _event(trigger: Any) -> Event | None:
    """The event, if it says something about entitlements. The endpoint is dj-stripe's, which is sent many others."""
    if len(trigger.body) > intake.MAX_BODY:
        logger.warning("Refused an event that dj-stripe received: the body is too large.")
        return None
    try:
        event = stripe_objects.parse_event(trigger.body)
    except Malformed as error:
        logger.warning("Refused an event that dj-stripe received: not an event: %s.", error)
        return None
    return event if event.handled or event.thin else None
