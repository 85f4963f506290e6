"""Keep the catalogue in step with Stripe's, which tells of no change: read it every day, and write what differs.

Everything is read before anything is written, in one transaction. A list that cannot be read whole changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from . import budget, catalog_reads, catalog_writes, conf, runs, transactions
from .budget import Allowance, SideAllowance
from .catalog_reads import Catalog
from .catalog_writes import Saved, Versions
from .exceptions import StripeRefused, StripeUnavailable
from .models import Feature, Product, ProductFeature, SyncRun
from .runs import Kind
from .transactions import alias, own, primary

logger = logging.getLogger(__name__)

EVERY = timedelta(days=1)
AGAIN = timedelta(hours=1)  # after a failure, and while there are products that nobody has asked about yet
PRODUCTS_AT_ONCE = 200  # asked about in a periodic run: a call each
PRODUCT_SECONDS = 20.0  # spent on them, as customers wait for their fetches
FEATURELESS = timedelta(days=30)  # a product without features waits so much longer than one with
MISSING_AT_ONCE = 100  # features in no list that are asked about one by one

FOR_EVER = timedelta(days=36500)

LOGGED_AT_MOST = 20
SECONDS = 3600.0  # of a run by hand
SIGN_OF_LIFE = 30.0

FORBIDDEN = (
    "Stripe does not let this API key read the catalogue (HTTP 403). "
    "A restricted key must be allowed to read Entitlements and Products."
)


class Busy(StripeUnavailable):
    """Another process is reading the catalogue."""


@dataclass(frozen=True)
class CatalogReport:
    """What a run did: a line for each change, how much was compared, and what went wrong, if anything did.

    `asked`: about so many products' features; `waiting`: so many products have never been asked about yet.
    """

    changes: tuple[str, ...] = ()
    features: int = 0
    products: int = 0
    asked: int = 0
    waiting: int = 0
    calls: int = 0
    problem: str = ""

    def as_line(self) -> str:
        if self.problem:
            return "Catalogue: not read."
        waiting = f" {self.waiting} product(s) wait for their turn." if self.waiting else ""
        return (
            f"Catalogue: {self.features} features, {self.products} products, {len(self.changes)} changes, "
            f"{self.calls} calls.{waiting}"
        )


def run_now(*, dry: bool = False) -> CatalogReport:
    """Read the whole catalogue. Raises what `sync.sync_catalog` says. A dry run only tells what would change."""
    transactions.refuse_open_transaction("Reading the catalogue")
    if dry:
        allowance = _Allowance(None, seconds=SECONDS)
        versions = catalog_writes.get_versions()
        catalog = _read(allowance, most=None)
        return _report(catalog, save(catalog, versions, dry=True), allowance)
    run = runs.start(Kind.CATALOG)
    if run is None:
        raise Busy("The catalogue is being read by another process.")
    return _do(run, seconds=SECONDS, most=None)


def sync_if_due(*, deadline: float) -> CatalogReport | None:
    """Read the catalogue unless that was done today, or is being done, or cannot be: then `None`.

    Ends about `deadline` (on `time.monotonic`). A catalogue of many products is read in portions, each whole. What goes
    wrong is logged and told in the report: it is tried again after an hour. Raises `RuntimeError` in an atomic block.
    """
    transactions.refuse_open_transaction("Reading the catalogue")
    if conf.stripe_api_key() is None or budget.stopped_reason() or deadline <= time.monotonic():
        return None
    run = runs.start_if_due(Kind.CATALOG, every=AGAIN if _waiting() else EVERY, retry=AGAIN)
    if run is None:
        return None
    try:
        return _do(run, seconds=deadline - time.monotonic(), most=PRODUCTS_AT_ONCE)
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("Reading the catalogue failed; it is tried again. %s", error)
        return CatalogReport(problem=str(error))
    except Exception:  # of whatever kind: customers must not wait for the catalogue
        logger.exception("Reading the catalogue failed.")
        return CatalogReport(problem="Reading the catalogue failed; see the log.")


class _Allowance(SideAllowance):
    """The calls of one run, which so says that it is still at work."""

    def __init__(self, run: SyncRun | None, *, seconds: float) -> None:
        super().__init__(seconds=seconds, forbidden=FORBIDDEN)
        self._run = run
        self._said = time.monotonic()

    def take(self) -> None:
        super().take()
        if self._run and time.monotonic() - self._said > SIGN_OF_LIFE:
            self._said = time.monotonic()
            runs.count(self._run)


def _do(run: SyncRun, *, seconds: float, most: int | None) -> CatalogReport:
    """Read, write, and end the run, whatever happens."""
    allowance = _Allowance(run, seconds=seconds)
    try:
        versions = catalog_writes.get_versions()
        catalog = _read(allowance, most=most)
        saved = save(catalog, versions)
    except BaseException as error:  # an interrupt, too, is told where runs are listed
        runs.count(run, failed=1, calls=allowance.calls)
        ours = isinstance(error, StripeUnavailable | StripeRefused)
        runs.finish(run, error=str(error) if ours else f"{type(error).__name__}; see the log.")
        raise
    done = saved.features + saved.products + saved.attachments
    runs.count(run, done=done, changed=len(saved.changes), calls=allowance.calls)
    runs.finish(run)
    if saved.changes:
        logger.info("The catalogue changed %d times: %s", len(saved.changes), "; ".join(saved.changes[:LOGGED_AT_MOST]))
    return _report(catalog, saved, allowance)


def save(catalog: Catalog, versions: Versions, *, dry: bool = False) -> Saved:
    """Write what was read since these `versions`, of products all that are active. With `dry` nothing stays."""
    first = not _has_succeeded()

    def work() -> Saved:
        saved = catalog_writes.save(catalog, versions, now=timezone.now(), first=first)
        if dry:
            transaction.set_rollback(True, using=alias())
        return saved

    return transactions.write(work)


def _report(catalog: Catalog, saved: Saved, allowance: Allowance) -> CatalogReport:
    return CatalogReport(
        changes=saved.changes,
        features=saved.features,
        products=saved.products,
        asked=len(catalog.attachments),
        waiting=_waiting(),
        calls=allowance.calls,
    )


def _read(allowance: Allowance, *, most: int | None) -> Catalog:
    """The lists, then as many products as there is time for."""
    features = catalog_reads.list_features(allowance)
    products = catalog_reads.list_products(allowance)
    features |= catalog_reads.retrieve_features(_missing(features.keys()), allowance)
    until = None
    if most is not None:
        until = time.monotonic() + min(PRODUCT_SECONDS, allowance.seconds_left)
    turns = _turns(products.keys())[:most]
    attachments, gone = catalog_reads.ask_about_products(turns, allowance, until=until)
    return Catalog(features, products, attachments, gone)


def _missing(listed: Set[str]) -> list[str]:
    """Features that we know and no list has, placeholders first."""
    rows = own(Feature).order_by("name", "-pk")
    missing = [stripe_id for stripe_id in rows.values_list("stripe_id", flat=True) if stripe_id not in listed]
    return missing[:MISSING_AT_ONCE]


def _turns(listed: Set[str]) -> list[str]:
    """In which order products are asked about.

    First those never asked about and those that have left the list of active ones, then those that were asked longest
    ago, where one without features counts as asked FEATURELESS later than it was.
    """
    rows = own(Product)
    with_features = rows.annotate(has_features=Exists(primary(ProductFeature).filter(product=OuterRef("pk"))))
    now = timezone.now()
    rested = dict.fromkeys(listed, FOR_EVER)
    for stripe_id, active, read_at, has_features in with_features.values_list(
        "stripe_id", "active", "features_read_at", "has_features"
    ):
        if read_at is not None and active is (stripe_id in listed):
            rested[stripe_id] = now - read_at - (timedelta(0) if has_features else FEATURELESS)
        else:
            rested[stripe_id] = FOR_EVER
    return sorted(rested, key=lambda stripe_id: (-rested[stripe_id], stripe_id))


def _waiting() -> int:
    """How many products nobody has asked about yet."""
    return own(Product).filter(features_read_at=None).count()


def _has_succeeded() -> bool:
    """Whether the catalogue was ever read before."""
    ended = own(SyncRun).filter(kind=Kind.CATALOG, finished_at__isnull=False)
    return ended.filter(error="").exists()
