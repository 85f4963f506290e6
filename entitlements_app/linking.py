"""Tie Stripe customers to subscribers."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

from django.db import IntegrityError, connections
from django.db.models import Model
from django.utils import timezone

from . import cache, conf, dispatch, mirror, provisioning, transactions
from .exceptions import AlreadyLinked, CustomerDeleted
from .models import Customer, SubscriberState
from .stripe_objects import is_usable_id
from .subscribers import get_subscriber_model, subscriber_key
from .transactions import alias, primary

_T = TypeVar("_T")

BATCH = 500  # links in one transaction: its locks last about as long as those of one fetch, and its cost is shared


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


# Many at once


class Why(Enum):
    """Why a customer was not linked."""

    UNUSABLE = auto()  # the text cannot be an id
    CONTESTED = auto()  # it was to be linked to several subscribers
    GONE = auto()  # there is no such subscriber, or no longer
    DELETED = auto()  # in Stripe
    OTHERS = auto()  # it is linked to another subscriber


class NotLinked(NamedTuple):
    subscriber_id: Any
    stripe_id: str
    why: Why
    holder: Any = None  # to whom it is linked


@dataclass
class LinkReport:
    """What became of pairs: linked now (`moved` of them from another subscriber), linked already, or not linked."""

    linked: int = 0
    moved: int = 0
    already: int = 0
    not_linked: list[NotLinked] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return self.linked + self.already + len(self.not_linked)

    def add(self, other: LinkReport) -> None:
        self.linked += other.linked
        self.moved += other.moved
        self.already += other.already
        self.not_linked += other.not_linked


def link_many(pairs: Iterable[tuple[Model, str]], *, livemode: bool | None = None, move: bool = False) -> LinkReport:
    """`link` each customer of the own account to the subscriber it is paired with, in transactions of 500.

    What hinders one does not hinder the others, and is told in the report: nobody gets a customer that is named for
    several. Unlike after `link`, the fetches that are due wait behind those of whom there is news.

    Raises `TypeError` for an instance of another model and `ValueError` for an unsaved one, before anything is linked.
    """
    keyed = [(_saved_key(subscriber), stripe_id) for subscriber, stripe_id in pairs]
    report = LinkReport()
    for part in link_by_key(keyed, contested=contested(keyed), livemode=livemode, move=move):
        report.add(part)
    return report


def contested(pairs: Iterable[tuple[Any, str]]) -> set[str]:
    """Ids that are named for several subscribers. `pairs` is gone through up to twice.

    Of a million it keeps eight bytes each, and more only of those that come again.
    """
    hashes = sorted(array("q", (hash(stripe_id) for _, stripe_id in pairs)))
    again = {one for one, next_one in pairwise(hashes) if one == next_one}
    named: defaultdict[str, set[Any]] = defaultdict(set)
    for key, stripe_id in pairs if again else ():
        if hash(stripe_id) in again:
            named[stripe_id].add(key)
    return {stripe_id for stripe_id, keys in named.items() if len(keys) > 1}


def link_by_key(
    pairs: Iterable[tuple[Any, str]],
    *,
    contested: Collection[str],
    livemode: bool | None = None,
    move: bool = False,
    dry: bool = False,
) -> Iterator[LinkReport]:
    """The same for primary keys of subscribers, with a report for each batch, once it is committed.

    `contested` are those that the function above finds in all the pairs. Who goes through the same pairs again passes
    over what is linked with one short query for each batch. With `dry` nothing is written, and the report is of what
    would come of it.
    """
    mode = conf.livemode() if livemode is None else livemode
    rest = iter(pairs)
    while batch := list(islice(rest, BATCH)):
        yield _link_batch(batch, contested, livemode=mode, move=move, dry=dry)


def _link_batch(
    batch: Sequence[tuple[Any, str]], contested: Collection[str], *, livemode: bool, move: bool, dry: bool
) -> LinkReport:
    report = LinkReport()
    wanted: dict[str, Any] = {}
    for key, stripe_id in batch:
        if not is_usable_id(stripe_id):
            report.not_linked.append(NotLinked(key, stripe_id, Why.UNUSABLE))
        elif stripe_id in contested:
            report.not_linked.append(NotLinked(key, stripe_id, Why.CONTESTED))
        elif stripe_id in wanted:
            report.already += 1
        else:
            wanted[stripe_id] = key
    rows = primary(Customer).filter(stripe_id__in=wanted, account="", livemode=livemode)
    for stripe_id, holder in list(rows.values_list("stripe_id", "subscriber_id")):
        if holder == wanted[stripe_id]:
            del wanted[stripe_id]
            report.already += 1
    if wanted:
        work = _Links(wanted, livemode=livemode, move=move)
        report.add(work.foresee() if dry else work.make())
    return report


class _Links:
    """Links to make in one transaction."""

    def __init__(self, wanted: dict[str, Any], *, livemode: bool, move: bool) -> None:
        self._wanted, self._livemode, self._move = wanted, livemode, move

    def foresee(self) -> LinkReport:
        rows = primary(Customer).filter(stripe_id__in=self._wanted, account="", livemode=self._livemode)
        return self._decide({row.stripe_id: row for row in rows}, self._existing())[0]

    def make(self) -> LinkReport:
        while True:
            existing = self._existing()
            try:
                return transactions.write(partial(self._write, existing))
            except IntegrityError:
                # A subscriber was deleted between the look for it and the commit. The next look misses it.
                if connections[alias()].in_atomic_block or not self._existing() < existing:
                    raise

    def _write(self, existing: Collection[Any]) -> LinkReport:
        stripe_ids = [stripe_id for stripe_id, key in self._wanted.items() if key in existing]
        customers = mirror.lock_by_stripe_id(stripe_ids, livemode=self._livemode)
        report, links = self._decide(customers, existing)
        if links:
            mirror.relink(links, now=timezone.now(), urgent=False)
        return report

    def _existing(self) -> set[Any]:
        """Subscribers who are there, also those that the site's own manager hides."""
        model = get_subscriber_model()
        rows = model._base_manager.using(alias()).filter(pk__in=set(self._wanted.values()))
        return set(rows.values_list("pk", flat=True))

    def _decide(
        self, customers: dict[str, Customer], existing: Collection[Any]
    ) -> tuple[LinkReport, dict[Customer, Any]]:
        report, links = LinkReport(), {}
        for stripe_id, key in self._wanted.items():
            customer = customers.get(stripe_id)
            holder = customer.subscriber_id if customer else None
            if key not in existing:
                report.not_linked.append(NotLinked(key, stripe_id, Why.GONE))
            elif customer is not None and customer.deleted_at is not None:
                report.not_linked.append(NotLinked(key, stripe_id, Why.DELETED))
            elif holder == key:  # by somebody else, meanwhile
                report.already += 1
            elif holder is not None and not self._move:
                report.not_linked.append(NotLinked(key, stripe_id, Why.OTHERS, holder))
            else:
                report.linked += 1
                report.moved += holder is not None
                if customer is not None:
                    links[customer] = key
        return report, links
