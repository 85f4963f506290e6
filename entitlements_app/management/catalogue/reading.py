"""The file that was named, and Stripe's catalogue as it is now, for the commands about both."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import catalog_file, catalog_plan, catalog_reads, catalog_sync, conf
from entitlements_app.budget import Allowance, SideAllowance
from entitlements_app.catalog_file import CatalogFile, Mistakes
from entitlements_app.catalog_plan import StripeHas
from entitlements_app.management.progress import Progress
from entitlements_app.stripe_client import NoSuchObject
from entitlements_app.stripe_objects import Attachment, CatalogProduct

from .terminal import standard_input, waiting

STRIPE = "https://api.stripe.com"
SHOWN_AFTER = 3.0  # seconds that calls will take: then it is told how far they are


def add_file(parser: CommandParser, about: str) -> None:
    """The argument that names the file."""
    parser.add_argument("file", metavar="FILE", help=about)


def mode() -> str:
    """In which mode the catalogue is."""
    return "live" if conf.livemode() else "test"


def place() -> str:
    """Whose catalogue it is."""
    return f"Stripe's catalogue in {mode()} mode, at {api_base()}"


def api_base() -> str:
    """Where Stripe is asked."""
    return conf.stripe_api_base() or STRIPE


def read_file(options: dict[str, Any]) -> CatalogFile:
    """Raises `CommandError` with all that is wrong in it, and if it is for the other mode."""
    named = options["file"]
    try:
        if named == "-":
            stdin = standard_input(options)
            content = b"" if stdin is None else stdin.buffer.read(catalog_file.LARGEST + 1)
        else:
            with open(named, "rb") as file:
                content = file.read(catalog_file.LARGEST + 1)
        return _of_mode(catalog_file.parse(content))
    except OSError as error:
        raise CommandError(f"{named}: {error.strerror or error}.") from error
    except ValueError as error:  # a null byte in its name
        raise CommandError(f"{named!r}: {error}.") from error
    except Mistakes as error:
        lines = "\n  ".join(error.mistakes)
        where = "Standard input" if named == "-" else named
        raise CommandError(f"{where} cannot be used, and Stripe was not asked:\n  {lines}") from None


def _of_mode(file: CatalogFile) -> CatalogFile:
    if file.mode not in ("", mode()):
        raise Mistakes([f"mode: this file is for {file.mode} mode, and the configured API key is of {mode()} mode."])
    return file


def new_allowance() -> Allowance:
    """For reading it all once."""
    return SideAllowance(seconds=catalog_sync.SECONDS, forbidden=catalog_sync.FORBIDDEN)


def read_for(file: CatalogFile, command: BaseCommand) -> StripeHas:
    """What Stripe has of what the file names, and all features. Raises what a call raises."""
    allowance = new_allowance()
    with waiting(command):
        features = catalog_reads.list_features(allowance)
        products = catalog_reads.list_products(allowance)
    for named in catalog_plan.unknown_products(file, StripeHas(features, products)):
        product = _retrieve(named, allowance)
        if product is not None:
            products[product.id] = product
    found, _ = catalog_plan.find_products(file, StripeHas(features, products))
    attachments, gone = list_attachments([product.id for product in found.values()], allowance, command)
    left = {product_id: product for product_id, product in products.items() if product_id not in gone}
    return StripeHas(features, left, attachments)


def list_attachments(
    ids: Collection[str], allowance: Allowance, command: BaseCommand
) -> tuple[dict[str, tuple[Attachment, ...]], set[str]]:
    """What is attached to each of these products, and which of them are gone; a call each, so it is told how far."""
    attachments: dict[str, tuple[Attachment, ...]] = {}
    gone = set()
    progress = Progress(command.stderr, len(ids)) if len(ids) / conf.stripe_rate() > SHOWN_AFTER else None
    for product_id in ids:
        try:
            attachments[product_id] = catalog_reads.list_attachments(product_id, allowance)
        except NoSuchObject:
            gone.add(product_id)
        if progress:
            progress.step()
    if progress:
        progress.interrupt()
    return attachments, gone


def _retrieve(named: str, allowance: Allowance) -> CatalogProduct | None:
    if not named.strip("."):  # `.` and `..` are other places than a product's
        return None
    try:
        return catalog_reads.retrieve_product(named, allowance)
    except NoSuchObject:
        return None
