"""Links of many customers at once, in batches: what hinders one does not hinder the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import islice, pairwise
from typing import Any, NamedTuple

from django.db import IntegrityError, connections
from django.utils import timezone

from . import conf, mirror, transactions
from .models import Customer
from .stripe_objects import is_usable_id
from .subscribers import get_subscriber_model
from .transactions import alias, primary

BATCH = 500  # links in one transaction: its locks last about as long as those of one fetch, and its cost is shared


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


def contested(pairs: Iterable[tuple[Any, str]]) -> set[str]:
    """Ids that are named for several subscribers. `pairs` is gone through up to twice.

    It keeps a number for each, and more only of those that come again.
    """
    hashes = sorted(hash(stripe_id) for _, stripe_id in pairs)
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
    """Link each customer of the own account to the subscriber with that primary key; a report for each batch.

    A report comes once its batch is committed. `contested` are those that `contested` finds in all the pairs. Who goes
    through the same pairs again passes over what is linked with one short query for each batch. With `dry` nothing is
    written, and the report is of what would come of it.
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
