"""Who has a live subscription to a product and lacks a feature that is attached to it: what Stripe owes its customers.

Stripe gives a feature that is attached later to the subscriptions that there are with their next period, and at times
not even then. Nothing tells of it. This is a report: no gate ever answers by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Q
from django.utils import timezone

from . import bridges, conf, mirror, reconcile, subscription_reads, transactions
from .budget import Allowance
from .exceptions import StripeRefused
from .fetch_pool import FetchReport
from .fetches import Fetch
from .gap_store import Gap, GapStore
from .models import ActiveEntitlement, Customer, Product, ProductFeature
from .settle import Synced
from .stripe_client import NoSuchObject
from .stripe_objects import Subscription
from .subscription_reads import LIVE, Batch
from .transactions import own, primary
from .windows import SETTLE

# Of whom our copy may be behind, for a count; `_is_doubted` says it of a row.
DOUBTED = Q(fetched_at=None) | Q(hinted_at__isnull=False) | Q(missing_since__isnull=False)
NAMED = 10  # products that are named of those whose features are not known


class Attached(NamedTuple):
    """A feature that a product has, by Stripe's id and by its key."""

    feature: str
    lookup_key: str


Owing = Mapping[str, Sequence[Attached]]


class Scope(NamedTuple):
    """Which subscriptions are looked at: of a customer, to a product, or all."""

    customer: str = ""
    product: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.customer and not self.product


@dataclass
class Scan:
    """What was looked at, and of how many nothing can be said.

    `live` subscriptions were judged, `others` grant nothing new. `too_new`: subscriptions that Stripe may not have
    computed yet. `unsettled`: customers of whom news came in the last minute. `unconfirmed`: customers that Stripe
    should have been asked about first, and could not be. `unread`: live subscriptions to products whose features are
    not known here, some of which `unread_products` names.
    """

    store: GapStore
    scope: Scope
    live: int = 0
    others: int = 0
    too_new: int = 0
    unsettled: int = 0
    unconfirmed: int = 0
    confirmed: int = 0
    unread: int = 0
    unread_products: set[str] = field(default_factory=set)
    is_finished: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether each live subscription was seen, but for those of test clocks."""
        return self.is_finished and self.scope.is_whole


class CatalogueUnread(StripeRefused):
    """Nobody knows here which features are attached to which product."""


def read_owing() -> Owing:
    """The features of each product, archived ones too, as they grant as well. Of one that is not in it nobody knows.

    Nor of one that was never read: what is known of it is what was attached from here. Raises `CatalogueUnread`.
    """
    read = own(Product).filter(features_read_at__isnull=False)
    owing: dict[str, list[Attached]] = {product: [] for product in read.values_list("stripe_id", flat=True)}
    rows = own(ProductFeature).order_by("feature__lookup_key", "pk")
    for product, *attached in rows.values_list("product__stripe_id", "feature__stripe_id", "feature__lookup_key"):
        if product in owing:
            owing[product].append(Attached(*attached))
    if not owing:
        raise CatalogueUnread(
            "Which features are attached to which product is not known here yet. "
            "Run `manage.py entitlements_sync --catalog` first."
        )
    return owing


def find(
    scan: Scan,
    owing: Owing,
    allowance: Allowance,
    report: FetchReport,
    *,
    confirm: bool = False,
    on_batch: Callable[[int], None] = lambda _: None,
) -> None:
    """Read the subscriptions of the scope, and put what is owed into the scan's store.

    A candidate of whom our copy may be behind is confirmed first, by a fetch; with `confirm` each is. Customers that
    are not known get their row. `on_batch` is told how many subscriptions were read. Each batch takes the same few
    queries. Raises `StripeUnavailable` or `StripeRefused`: then the scan is not finished. Not in an atomic block.
    """
    transactions.refuse_open_transaction("Looking for gaps")
    for batch in _batches(scan.scope, allowance):
        if report.on_wait is not None:
            report.on_wait()
        _Page(scan, owing, report, confirm=confirm).judge(batch)
        on_batch(len(batch.subscriptions))
    scan.is_finished = True


def _batches(scope: Scope, allowance: Allowance) -> Iterator[Batch]:
    try:
        if not scope.product:
            yield from subscription_reads.iter_subscriptions(allowance, customer=scope.customer)
            return
        for price in subscription_reads.list_prices(scope.product, allowance):
            yield from subscription_reads.iter_subscriptions(allowance, customer=scope.customer, price=price)
    except NoSuchObject:
        named = " or ".join(filter(None, scope))
        mode = "live" if conf.livemode() else "test"
        raise StripeRefused(f"Stripe does not know {named or 'the list'} in this account, in {mode} mode.") from None


class _Page:
    """A page of subscriptions, and what we hold of their customers."""

    def __init__(self, scan: Scan, owing: Owing, report: FetchReport, *, confirm: bool) -> None:
        self._scan, self._owing, self._report, self._confirm = scan, owing, report, confirm
        self._customers: dict[str, Customer] = {}
        self._held: defaultdict[int, set[str]] = defaultdict(set)

    def judge(self, batch: Batch) -> None:
        live = [row for row in batch.subscriptions if row.status in LIVE]
        self._scan.others += len(batch.subscriptions) - len(live)
        self._scan.live += len(live)
        self._count_unread(live)
        self._read({row.customer for row in live})
        if self._scan.scope.is_whole:
            self._keep_bridges(live)
        old = [row for row in live if row.created <= batch.asked_at - SETTLE.total_seconds()]
        self._scan.too_new += len(live) - len(old)
        if lacking := self._lacking(old):
            self._make_sure(lacking)
            self._scan.store.add(self._gaps(old))

    def _read(self, stripe_ids: Collection[str]) -> None:
        rows = own(Customer).filter(stripe_id__in=stripe_ids)
        found = {row.stripe_id: row for row in rows}
        self._customers |= found
        pks = {row.pk for row in found.values()}
        for pk in pks:
            self._held[pk] = set()
        entitlements = primary(ActiveEntitlement).filter(customer__in=pks)
        for pk, key in entitlements.values_list("customer_id", "lookup_key"):
            self._held[pk].add(key)

    def _count_unread(self, live: Iterable[Subscription]) -> None:
        if not self._scan.scope.product:
            for row in live:
                unread = row.products - self._owing.keys()
                self._scan.unread += bool(unread)
                free = NAMED - len(self._scan.unread_products)
                self._scan.unread_products.update(sorted(unread - self._scan.unread_products)[:free])

    def _attached(self, subscription: Subscription) -> Iterator[tuple[str, Attached]]:
        for product in sorted(subscription.products):
            if self._scan.scope.product in ("", product):
                for attached in self._owing.get(product, ()):
                    yield product, attached

    def _lacking(self, subscriptions: Iterable[Subscription]) -> set[str]:
        """Customers that lack something as far as we know."""
        return {
            row.customer
            for row in subscriptions
            for _, attached in self._attached(row)
            if self._lacks(row.customer, attached.lookup_key)
        }

    def _lacks(self, stripe_id: str, key: str) -> bool:
        customer = self._customers.get(stripe_id)
        return customer is None or (customer.deleted_at is None and key not in self._held[customer.pk])

    # Is our copy behind?

    def _make_sure(self, lacking: Collection[str]) -> None:
        """Ask Stripe about those of whom we may not know the latest. Those that are in doubt still are left out."""
        if unknown := sorted(lacking - self._customers.keys()):
            made = transactions.write(lambda: mirror.lock_by_stripe_id(unknown, livemode=conf.livemode()))
            self._customers |= made
        doubted = [row for name in sorted(lacking) if self._is_doubted(row := self._customers[name])]
        if not doubted:
            return
        answered = self._fetch([row.pk for row in doubted])
        self._read({row.stripe_id for row in doubted})
        now = timezone.now()
        for row in doubted:
            if row.pk not in answered or _is_unknown(self._customers[row.stripe_id]):
                self._scan.unconfirmed += 1
            elif _is_unsettled(self._customers[row.stripe_id], now):
                self._scan.unsettled += 1
            else:
                continue
            del self._customers[row.stripe_id]

    def _is_doubted(self, row: Customer) -> bool:
        return self._confirm or row.fetched_at is None or row.hinted_at is not None or row.missing_since is not None

    def _fetch(self, pks: Sequence[int]) -> set[int]:
        """Through the one write path. Returns who was answered about."""
        answered = set()
        before, tell = self._report.problem, self._report.on_answer

        def remember(fetch: Fetch, synced: Synced) -> None:
            answered.add(fetch.pk)
            if tell is not None:
                tell(fetch, synced)

        self._report.on_answer = remember
        try:
            reconcile.fetch_these(pks, self._report)
        finally:
            self._report.on_answer = tell
        if self._report.stopped:
            raise StripeRefused(self._report.problem or before)
        self._scan.confirmed += len(answered)
        return answered

    # What is owed

    def _gaps(self, subscriptions: Sequence[Subscription]) -> list[Gap]:
        owed = [
            (row, product, attached, self._customers[row.customer])
            for row in subscriptions
            if row.customer in self._customers
            for product, attached in self._attached(row)
            if self._lacks(row.customer, attached.lookup_key)
        ]
        holders = _holders({customer.subscriber_id for *_, customer in owed}, {row[2].lookup_key for row in owed})
        return [
            Gap(
                product,
                attached.feature,
                attached.lookup_key,
                customer.pk,
                customer.stripe_id,
                row.id,
                row.created,
                row.period_end,
                holders.get((customer.subscriber_id, attached.lookup_key), ""),
            )
            for row, product, attached, customer in owed
        ]

    def _keep_bridges(self, live: Iterable[Subscription]) -> None:
        """Bridges that a live subscription of their subscriber still asks for. In doubt they stay."""
        owed: defaultdict[Any, set[str]] = defaultdict(set)
        for row in live:
            if (customer := self._customers.get(row.customer)) and customer.subscriber_id is not None:
                owed[customer.subscriber_id] |= owed_keys(row, self._owing)
        rows = bridges.standing(livemode=conf.livemode()).filter(subscriber_id__in=owed)
        self._scan.store.keep_bridges(
            pk
            for pk, subscriber_id, key in rows.values_list("pk", "subscriber_id", "lookup_key")
            if {key, ANY} & owed[subscriber_id]
        )


ANY = ""  # stands for each key: nobody knows which


def owed_keys(subscription: Subscription, owing: Owing) -> set[str]:
    """The keys that a live subscription asks for, and `ANY` if it is to a product whose features are not known."""
    keys = {attached.lookup_key for product in subscription.products for attached in owing.get(product, ())}
    return keys if subscription.products <= owing.keys() else keys | {ANY}


def _holders(subscriber_ids: Collection[Any], keys: Collection[str]) -> dict[tuple[Any, str], str]:
    """Which customer of a subscriber holds a key."""
    granting = ActiveEntitlement.objects.using(transactions.alias()).granting(conf.livemode())
    if not (wanted := set(subscriber_ids) - {None}):
        return {}
    rows = granting.filter(customer__subscriber_id__in=wanted, lookup_key__in=keys)
    named = rows.values_list("customer__subscriber_id", "lookup_key", "customer__stripe_id")
    return {(pk, key): stripe_id for pk, key, stripe_id in named}


def _is_unknown(customer: Customer) -> bool:
    """Whether Stripe says that it does not know whom it sells to: then something else is wrong."""
    return customer.missing_since is not None


def _is_unsettled(customer: Customer, now: datetime) -> bool:
    return customer.hinted_at is not None and now - customer.hinted_at < SETTLE
