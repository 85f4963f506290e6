"""`entitlements_catalog export`: Stripe's catalogue as a file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import catalog_file, catalog_reads
from entitlements_app.catalog_file import CatalogFile, FileFeature, FileProduct, Mistakes
from entitlements_app.stripe_objects import Attachment, CatalogFeature, CatalogProduct

from . import plan_text, reading
from .terminal import number, say, waiting

HELP = (
    "Write Stripe's catalogue, as it is now, to a file: features that are not archived, and active products that have "
    "any. Compared with that file, nothing differs. Exits with 0, and with 1 after an error."
)

HEAD = "Features, and the products that have them: for manage.py entitlements_catalog plan and apply."


def add_arguments(parser: CommandParser) -> None:
    reading.add_file(parser, "The TOML file to write; - is standard output.")
    parser.add_argument("--force", action="store_true", help="Overwrite a file that exists.")
    parser.add_argument(
        "--names",
        action="store_true",
        help="Name a product by its name where no other active product has it, for a file of both modes.",
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    target = None if options["file"] == "-" else _target(options["file"], force=options["force"])
    text, summary = _export(command, names=options["names"])
    _check(text, command)
    if target is None:
        _write_out(command, text)
        return
    _target(options["file"], force=options["force"])  # it may exist by now
    _write(target, text)
    say(command, options, f"{summary}: written to {options['file']}.")


def _export(command: BaseCommand, *, names: bool) -> tuple[str, str]:
    """The file, and what is in it."""
    allowance = reading.new_allowance()
    with waiting(command):
        features = [row for row in catalog_reads.list_features(allowance).values() if row.details.active]
        products = catalog_reads.list_products(allowance)
    attachments, _ = reading.list_attachments(sorted(products), allowance, command)
    having = {product_id: rows for product_id, rows in attachments.items() if rows}
    tables = {product_id: products[product_id] for product_id in having}
    named = _names(tables, products) if names else {product_id: product_id for product_id in having}
    file = CatalogFile(
        features={row.lookup_key: FileFeature(row.details.name, row.details.metadata) for row in features},
        products={
            table: FileProduct(_keys(having[product_id]), "" if table != product_id else products[product_id].name)
            for product_id, table in named.items()
        },
    )
    remarks = {table: _remarks(having[product_id]) for product_id, table in named.items()}
    head = [HEAD]
    if any(table in products for table in named.values()):
        head.append(f"The IDs of products are those of {reading.mode()} mode.")
    summary = f"{number(len(features), 'feature')} and {number(len(having), 'product')} with features"
    return catalog_file.serialise(file, head=head, remarks=remarks), summary


def _check(text: str, command: BaseCommand) -> None:
    """Say so if Stripe holds what `plan` would not take."""
    try:
        catalog_file.parse(text.encode())
    except Mistakes as error:
        lines = "\n  ".join(error.mistakes)
        command.stderr.write(f"Before this file is used, it needs to be corrected:\n  {lines}")


def _names(tables: Mapping[str, CatalogProduct], products: Mapping[str, CatalogProduct]) -> dict[str, str]:
    """How each is named: by its name, unless a file would mean another by it, or nobody."""
    times = Counter(product.name for product in products.values())
    return {
        product_id: product.name
        if product.name.strip() and times[product.name] == 1 and product.name not in products
        else product_id
        for product_id, product in tables.items()
    }


def _keys(attachments: tuple[Attachment, ...]) -> tuple[str, ...]:
    return tuple(sorted({row.feature.lookup_key for row in attachments if row.feature.details.active}))


def _remarks(attachments: tuple[Attachment, ...]) -> list[str]:
    archived = [row.feature for row in attachments if not row.feature.details.active]
    return sorted(f"An archived feature is still attached: {_labelled(feature)}." for feature in archived)


def _labelled(feature: CatalogFeature) -> str:
    return plan_text.printable(f"{plan_text.plain(feature.lookup_key)} ({feature.id})")


def _target(named: str, *, force: bool) -> Path:
    """The file behind links. Raises `CommandError` if it cannot be written, or must not be."""
    target = Path(os.path.realpath(named))
    if target.is_dir() or not target.parent.is_dir():
        raise CommandError(f"{named}: this is a folder, or in none that exists.")
    if target.exists() and not force:
        raise CommandError(f"{named} exists. --force overwrites it.")
    return target


def _write(target: Path, text: str) -> None:
    """At once, so that nobody ever reads the half of it."""
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            with open(half, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, half)
            os.replace(half, target)
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{target}: {error.strerror or error}.") from error


def _write_out(command: BaseCommand, text: str) -> None:
    """In UTF-8, whatever the terminal has, as a file is."""
    command.stdout.flush()
    buffer = getattr(command.stdout, "buffer", None)
    if buffer is None:
        command.stdout.write(text, ending="")
    else:
        buffer.write(text.encode())
        buffer.flush()
