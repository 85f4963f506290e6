"""`entitlements_catalog apply`: make Stripe's catalogue what a file says."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from entitlements_app import catalog, catalog_copy, catalog_sync, catalog_writes
from entitlements_app.catalog_file import CatalogFile
from entitlements_app.catalog_plan import (
    Archive,
    Attach,
    ChangeFeature,
    CreateFeature,
    Detach,
    Plan,
    Step,
    StripeHas,
)
from entitlements_app.catalog_reads import Catalog
from entitlements_app.catalog_writes import Versions
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.management.interrupts import INTERRUPTED, between_steps
from entitlements_app.models import Feature

from . import plan_text, reading, showing
from .showing import add_decisions
from .terminal import DIFFERS, number, say, says_yes, standard_input, waiting

HELP = (
    "Make Stripe's catalogue what a file says: show the plan, ask, and do it. It can be repeated at any time, and does "
    "what is left to do. Exits with 0 if nothing differs any more, with 2 if something does, and with 1 after an error."
)

FEW = 3  # features that --yes archives, however many there are

AGAIN = "Run it again: it compares anew, and does what is left."


def add_arguments(parser: CommandParser) -> None:
    reading.add_file(parser, "The TOML file; - is standard input, and needs --yes.")
    add_decisions(parser)
    parser.add_argument("--yes", action="store_true", help="Do not ask.")
    parser.add_argument(
        "--archive-most",
        action="store_true",
        help=f"With --archive and --yes: archive even if it is more than {FEW}, and more than half of all features.",
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    if options["archive_most"] and not (options["archive"] and options["yes"]):
        raise CommandError("--archive-most goes with --archive and --yes.")
    try:
        file = reading.read_file(options)
        versions = catalog_writes.get_versions()
        agreed = _agreed(file, command, options)
    except KeyboardInterrupt:
        raise CommandError("Interrupted. Nothing was changed.", returncode=INTERRUPTED) from None
    if agreed is None:
        say(command, options, "Nothing was changed.")
        sys.exit(DIFFERS)
    stripe, plan = agreed
    _copy(stripe, versions)
    _apply(plan, command, options)
    if plan.conflicts:
        if plan.steps:
            say(command, options, plan_text.remaining(plan))
        sys.exit(DIFFERS)


def _agreed(file: CatalogFile, command: BaseCommand, options: dict[str, Any]) -> tuple[StripeHas, Plan] | None:
    """What there is, and the plan for it that somebody said yes to and that is still right; `None` after a no."""
    stripe = reading.read_for(file, command)
    plan = showing.compare(file, stripe, options)
    showing.show(plan, command, options)
    if options["yes"]:
        if not options["archive_most"]:
            _refuse_most(plan)
        return stripe, plan
    while plan.steps:
        if not _says_yes(plan, command, options):
            return None
        stripe = reading.read_for(file, command)
        now = showing.compare(file, stripe, options)
        if now == plan:
            break
        plan = now
        say(command, options, "\nStripe's catalogue has changed meanwhile. Now it is:\n")
        showing.show(plan, command, options)
    return stripe, plan


def _copy(stripe: StripeHas, versions: Versions) -> None:
    """Write what was read: a run that was killed may have changed what nobody has written down here."""
    active = {product_id: product for product_id, product in stripe.products.items() if product.active}
    attachments = {product_id: rows for product_id, rows in stripe.attachments.items() if product_id in active}
    catalog_sync.save(Catalog(stripe.features, active, attachments), versions)


def _refuse_most(plan: Plan) -> None:
    """A file that was cut off between two tables is a valid one. Raises `CommandError`."""
    if plan.archives > FEW and 2 * plan.archives > plan.unarchived:
        raise CommandError(
            f"{_archived(plan)} Nothing was changed. If the file is whole and says what is meant, run it with "
            "--archive-most as well, or without --yes."
        )


def _archived(plan: Plan) -> str:
    return f"{plan.archives} of Stripe's {number(plan.unarchived, 'feature')} would be archived for good."


def _says_yes(plan: Plan, command: BaseCommand, options: dict[str, Any]) -> bool:
    changes = "this change" if len(plan.steps) == 1 else f"these {len(plan.steps)} changes"
    stdin = None if options["file"] == "-" else standard_input(options)
    archived = f"{_archived(plan)}\n" if plan.archives else ""
    return says_yes(
        f"{archived}Make {changes} in {reading.mode()} mode?", command, stdin, otherwise="nothing was changed"
    )


def _apply(plan: Plan, command: BaseCommand, options: dict[str, Any]) -> None:
    """Do the steps in order, each told when it is done. Raises `CommandError` with what was done if one fails."""
    if plan.steps:
        say(command, options, "")
    created: dict[str, str] = {}
    done = 0
    try:
        with between_steps() as look:
            for step in plan.steps:
                look()
                with waiting(command):
                    _do(step, created)
                done += 1
                for line in plan_text.step_lines(step):
                    say(command, options, f"{line}: done")
                command.stdout.flush()
    except KeyboardInterrupt:
        raise CommandError(_unfinished(plan, done, "Interrupted."), returncode=INTERRUPTED) from None
    except (StripeUnavailable, StripeRefused, DatabaseError) as error:
        raise CommandError(_unfinished(plan, done, str(error))) from error
    if done:
        say(command, options, f"Done: {done} of {done}.")


def _do(step: Step, created: dict[str, str]) -> None:
    """`created`: the IDs of features made so far, by lookup key."""
    match step:
        case CreateFeature():
            created[step.lookup_key] = catalog.create_feature(step.name, step.lookup_key, step.metadata).stripe_id
        case ChangeFeature():
            details = step.feature.details
            metadata = dict.fromkeys(details.metadata, "") | dict(step.metadata)
            changed = {key: value for key, value in metadata.items() if details.metadata.get(key) != value}
            name = None if step.name == details.name else step.name
            catalog.update_feature(_row(step.feature.id), name=name, metadata=changed)
        case Attach():
            catalog.attach_feature(step.product.id, _row(step.feature_id or created[step.lookup_key]))
        case Detach():
            catalog.detach_feature(step.product.id, _row(step.feature.id))
        case Archive():
            catalog.archive_feature(_row(step.feature.id))


def _row(feature_id: str) -> Feature:
    """What the plan is about, known here or not: as a text, its ID would also mean who has it as lookup key."""
    row = catalog_copy.get_by_id(feature_id) or catalog_copy.retrieve_feature(feature_id, reading.new_allowance())
    if row is None:
        raise StripeRefused(f"Stripe does not know the feature {feature_id} any more.")
    return row


def _unfinished(plan: Plan, done: int, problem: str) -> str:
    left = [line for step in plan.steps[done:] for line in plan_text.step_lines(step)]
    lines = "".join(f"\n  {line}" for line in left)
    return f"{problem}\n{done} of {len(plan.steps)} changes were made. Left to do:{lines}\n{AGAIN}"
