"""Tie dj-stripe's customers to its subscribers here, as soon as it does.

All of it happens in the transaction in which dj-stripe writes its row, so that both hold or neither does. dj-stripe
writes a customer with each of its webhooks, and may ask Stripe before it commits: while nothing has changed, one query
is all, and no row is locked.

While dj-stripe processes an event that nobody vouches for, no change of a subscriber is followed: whoever posts such an
event could name himself as who pays.

Locks are taken in this order: dj-stripe's customers, then ours as everywhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from djstripe.models import Customer as Theirs

from entitlements_app import conf, linking, transactions
from entitlements_app.exceptions import AlreadyLinked, CustomerDeleted
from entitlements_app.models import Customer
from entitlements_app.subscribers import get_subscriber_model, subscriber_key
from entitlements_app.transactions import primary

from . import details
from .accounts import is_own
from .subscribers import is_same_model, key_of, key_path, models_differ

logger = logging.getLogger(__name__)

COMMAND = "manage.py entitlements_link_djstripe"

# On dj-stripe's row, from before it is saved until it is.
_BEFORE = "_entitlements_before"
_TELLS = "_entitlements_tells"  # who the customer is

_unvouched: ContextVar[bool] = ContextVar(f"{__name__}.unvouched", default=False)


class _Unvouched(ValueError):
    """Nobody vouches for the event that says so."""


def connect() -> None:
    """Listen to dj-stripe, from now on."""
    for model in apps.get_models():
        if issubclass(model, Theirs):  # a proxy, or what inherits, is the sender of what is saved through it
            pre_save.connect(_look, sender=model)
            post_save.connect(_follow_save, sender=model)
            post_delete.connect(_follow_deletion, sender=model)
        if model._meta.concrete_model is get_subscriber_model() and is_same_model():
            # Django has both rows of customers name nobody. The other order would meet a save half-way.
            pre_delete.disconnect(linking.lock_before_deletion, sender=model)
            pre_delete.connect(_lock_theirs_before_deletion, sender=model)
            pre_delete.connect(linking.lock_before_deletion, sender=model)


def distrust(*, on: bool) -> None:
    """While this is on, nothing that dj-stripe writes here, in this thread or task, is followed."""
    _unvouched.set(on)


@dataclass(frozen=True)
class _Before:
    """How the two stood before dj-stripe's row was written: our customer, and the subscriber that its row had."""

    ours: Customer | None
    subscriber_id: Any


def _look(*, instance: Any, raw: bool, using: str, update_fields: Collection[str] | None, **_: Any) -> None:
    """Receiver of `pre_save`: what stood before. In one query while the two agree, in none if there was nothing."""
    instance.__dict__.pop(_BEFORE, None)
    instance.__dict__.pop(_TELLS, None)
    if raw or (update_fields is not None and not {"subscriber", "subscriber_id"}.intersection(update_fields)):
        return
    is_new = instance._state.adding
    if not is_same_model():
        if is_new and instance.subscriber_id is not None:
            logger.warning("%s is not linked: %s", instance.id, models_differ())
    elif is_new:
        if instance.subscriber_id is not None:
            instance.__dict__[_BEFORE] = _Before(None, None)
            instance.__dict__[_TELLS] = True
    else:
        ours = _ours(instance)
        instance.__dict__[_TELLS] = details.is_news(ours, instance)
        if (ours.subscriber_id if ours else None) != key_of(instance):
            rows = Theirs._base_manager.using(using).filter(djstripe_id=instance.djstripe_id)
            instance.__dict__[_BEFORE] = _Before(ours, rows.values_list(key_path(), flat=True).first())


def _follow_save(*, instance: Any, using: str, **_: Any) -> None:
    """Receiver of `post_save`: the same here, unless the site has said otherwise by `link`.

    What we refuse is logged and stops nobody. What the database refuses is raised: a caller's `atomic` then undoes
    both, and whoever tries again does both. Without one dj-stripe's row is written already; the command links it.
    """
    before, tells = instance.__dict__.pop(_BEFORE, None), instance.__dict__.pop(_TELLS, False)
    if (before is None and not tells) or not is_own(instance):
        return
    if before is not None:
        with _refusals_logged(instance, before):
            _follow(instance, before)
    if tells and not _unvouched.get():
        details.take_after_commit(instance, using=using, livemode=_livemode(instance))


def _follow(row: Any, before: _Before) -> None:
    if _unvouched.get():
        raise _Unvouched(_Unvouched.__doc__)
    ours, key = before.ours, key_of(row)
    if ours is None or ours.subscriber_id is None:
        linking.link(row.subscriber, row.id, livemode=_livemode(row))
    elif ours.subscriber_id != before.subscriber_id:  # by the site's own `link`
        if key is not None:
            raise AlreadyLinked(f"It is linked to {get_subscriber_model()._meta.label} {ours.subscriber_id}.")
    elif key is None:
        _unlink(ours)
    else:
        move = partial(linking.link, row.subscriber, ours.stripe_id, livemode=ours.livemode, move=True)
        linking.unless_moved(ours, move)


def _follow_deletion(*, instance: Any, **_: Any) -> None:
    """Receiver of `post_delete`: nobody is known to pay any more. What Stripe has deleted, an event tells."""
    if instance.subscriber_id is None or not is_same_model() or _unvouched.get():
        return
    ours, key = _ours(instance), key_of(instance)
    if ours is not None and ours.subscriber_id == key and is_own(instance):
        with _refusals_logged(instance, _Before(ours, key)):
            _unlink(ours)


def _lock_theirs_before_deletion(*, instance: Model, using: str, **_: Any) -> None:
    """Receiver of a subscriber's `pre_delete`, before that of `linking`."""
    transactions.write_first()
    rows = Theirs._base_manager.using(using).filter(**{key_path(): subscriber_key(instance)})
    list(transactions.lock_no_key(rows.order_by("djstripe_id")).values_list("djstripe_id"))


def _unlink(ours: Customer) -> None:
    linking.unless_moved(ours, partial(linking.unlink, ours.stripe_id, livemode=ours.livemode))


@contextmanager
def _refusals_logged(row: Any, before: _Before) -> Iterator[None]:
    """Only with news: dj-stripe saves a customer often, and nobody needs to read the same each time."""
    try:
        yield
    except (AlreadyLinked, CustomerDeleted, ObjectDoesNotExist, ValueError) as error:
        if before.subscriber_id != row.subscriber_id:
            movable = isinstance(error, AlreadyLinked | _Unvouched) and row.subscriber_id is not None
            remedy = f" If dj-stripe is right: {COMMAND} --move" if movable else ""
            logger.warning(
                "dj-stripe gives %s to %s, and it stays as it was here: %s%s",
                row.id,
                row.subscriber_id or "nobody",
                error,
                remedy,
            )


def _livemode(row: Any) -> bool:
    return conf.livemode() if row.livemode is None else row.livemode


def _ours(row: Any) -> Customer | None:
    rows = primary(Customer).filter(stripe_id=row.id, account="", livemode=_livemode(row))
    return next(iter(rows), None)
