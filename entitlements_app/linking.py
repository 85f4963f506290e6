"""Tie Stripe customers to subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db.models import Model
from django.utils import timezone

from . import bulk_links, cache, conf, dispatch, mirror, provisioning, transactions
from .bulk_links import LinkReport
from .exceptions import AlreadyLinked, CustomerDeleted
from .models import Customer, SubscriberState
from .stripe_objects import is_usable_id
from .subscribers import subscriber_key
from .transactions import primary

_T = TypeVar("_T")


def link(
    subscriber: Model, stripe_id: str, *, account: str = "", livemode: bool | None = None, move: bool = False
) -> Customer:
    """Say that this Stripe customer pays for this subscriber, before or after Stripe first mentions it.

    What the customer holds counts for the subscriber at once; the customer is marked for a fetch, and no call is made.
    Linking again changes nothing. `livemode` is by default the configured mode. Runs inside a caller's `atomic`.

    Raises `AlreadyLinked` if the customer belongs to another subscriber and `move` is not set, `CustomerDeleted` if
    Stripe deleted it, `TypeError` for an instance of another model, `ValueError` for an id that cannot be one.
    """
    key = _saved_key(subscriber)
    mode = conf.livemode() if livemode is None else livemode
    _check_id(stripe_id)

    def work() -> Customer:
        customer = mirror.lock_by_stripe_id([stripe_id], account=account, livemode=mode)[stripe_id]
        if customer.deleted_at is not None:
            raise CustomerDeleted(f"{stripe_id} was deleted in Stripe.")
        if customer.subscriber_id == key:
            return customer
        if customer.subscriber_id is not None and not move:
            raise AlreadyLinked(f"{stripe_id} is linked to another subscriber; move=True takes it over.")
        mirror.relink({customer: key}, now=timezone.now())
        if conf.webhook_processing() == "celery" and conf.stripe_api_key() is not None and not account:
            dispatch.wake_after_commit("confirm_customers")
        return customer

    return transactions.write(work)


def unlink(stripe_id: str, *, account: str = "", livemode: bool | None = None) -> Customer:
    """Say that this Stripe customer pays for nobody here. What it holds stays known and no longer counts.

    Unlinking again changes nothing. Raises `Customer.DoesNotExist` for a customer that was never seen.
    """
    mode = conf.livemode() if livemode is None else livemode
    _check_id(stripe_id)

    def work() -> Customer:
        pk = primary(Customer).get(stripe_id=stripe_id, account=account, livemode=mode).pk
        customer = mirror.lock([pk]).get(pk)
        if customer is None:
            raise Customer.DoesNotExist(stripe_id)
        if customer.subscriber_id is not None:
            mirror.relink({customer: None}, now=timezone.now())
        return customer

    return transactions.write(work)


def link_many(pairs: Iterable[tuple[Model, str]], *, livemode: bool | None = None, move: bool = False) -> LinkReport:
    """`link` each customer of the own account to the subscriber it is paired with, in transactions of 500.

    What hinders one does not hinder the others, and is told in the report: nobody gets a customer that is named for
    several. Unlike after `link`, the fetches that are due wait behind those of whom there is news.

    Raises `TypeError` for an instance of another model and `ValueError` for an unsaved one, before anything is linked.
    """
    keyed = [(_saved_key(subscriber), stripe_id) for subscriber, stripe_id in pairs]
    report = LinkReport()
    for part in bulk_links.link_by_key(keyed, contested=bulk_links.contested(keyed), livemode=livemode, move=move):
        report.add(part)
    return report


def unless_moved(customer: Customer, work: Callable[[], _T]) -> _T:
    """Do this work under the customer's lock: what somebody decided who saw it linked as `customer` says.

    Raises `AlreadyLinked`, and does nothing, if it is linked otherwise by now. Runs inside a caller's `atomic`.
    """

    def checked() -> _T:
        row = mirror.lock([customer.pk]).get(customer.pk)
        if row is None or row.subscriber_id != customer.subscriber_id:
            raise AlreadyLinked(f"{customer.stripe_id} was linked or unlinked meanwhile.")
        return work()

    return transactions.write(checked)


def lock_before_deletion(*, instance: Model, **_: object) -> None:
    """Receiver of a subscriber's `pre_delete`: take the customers' locks first, in order, like every other write.

    Django deletes the subscriber's state before it unlinks the customers; an event that meets it half-way would wait
    for the one while holding the other. Changes that wait to be delivered are about nobody from now on, and cached
    answers of the subscriber end with the commit.
    """
    key = subscriber_key(instance)
    transactions.write_first()
    for model in (Customer, SubscriberState):
        rows = primary(model).filter(subscriber_id=key)
        list(rows.order_by("livemode", "pk").select_for_update().values_list("pk"))
    provisioning.withdraw(key)
    cache.invalidate([key])


def _saved_key(subscriber: Model) -> Any:
    key = subscriber_key(subscriber)
    if key is None:
        raise ValueError("A customer can only be linked to a saved subscriber.")
    return key


def _check_id(stripe_id: str) -> None:
    if not is_usable_id(stripe_id):
        raise ValueError("A Stripe customer id is a text of 1 to 255 characters, like cus_NffrFeUfNV2Hib.")
