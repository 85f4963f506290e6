"""What the commands share that link many customers: how far one is, whom it could not link and why, what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet

from entitlements_app import bulk_links, conf, reconcile
from entitlements_app.bulk_links import LinkReport, NotLinked, Why
from entitlements_app.subscribers import get_subscriber_model

from .interrupts import INTERRUPTED, between_steps
from .progress import Progress, in_words

PAGE = 5000
SHOWN = 80  # characters of a text that is no id


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--move", action="store_true", help="Take customers over that are linked to another subscriber here."
    )
    parser.add_argument("--dry-run", action="store_true", help="Tell what would be linked, write nothing.")


def values(rows: QuerySet[Any], *names: str) -> Iterator[tuple[Any, ...]]:
    """These values of all rows by primary key, some thousands at a time: no cursor is open while others write."""
    page = list(rows.order_by("pk").values_list("pk", *names)[:PAGE])
    while page:
        yield from (row[1:] for row in page)
        page = list(rows.filter(pk__gt=page[-1][0]).order_by("pk").values_list("pk", *names)[:PAGE])


def link_all(
    command: BaseCommand, pairs: Iterable[tuple[Any, str]], *, total: int, source: str, options: dict[str, Any]
) -> None:
    """Link all `pairs`, which is gone through more than once, of which there are about `total`, and tell about it.

    `source` says where they come from. Raises `CommandError` if any customer could not be linked.
    """
    is_dry = options["dry_run"]
    try:
        mode = "live" if conf.livemode() else "test"
        _say(command, options, f"{total:,} customer(s) to link in {mode} mode, named by {source}.")
        report = LinkReport()
        unlinked = 0
        contested = bulk_links.contested(pairs)
        with Progress(command.stderr, total) as progress, between_steps() as look:
            for part in bulk_links.link_by_key(pairs, contested=contested, move=options["move"], dry=is_dry):
                for each in part.not_linked:
                    progress.interrupt()
                    command.stderr.write(_why_not(each))
                progress.step(part.pairs)
                unlinked += len(part.not_linked)
                part.not_linked = []
                report.add(part)
                look()
        _say(command, options, _summary(report, unlinked, dry=is_dry))
        if not is_dry:
            _tell_what_comes_next(command, options)
    except KeyboardInterrupt:
        rest = "" if is_dry else " What is linked stays so; run the same command again, and it goes on from there."
        raise CommandError(f"Interrupted.{rest}", returncode=INTERRUPTED) from None
    if unlinked:
        others = "" if is_dry else " All others are."
        raise CommandError(f"{unlinked:,} customer(s) {_could(is_dry)} not be linked, as told above.{others}")


def _say(command: BaseCommand, options: dict[str, Any], line: str) -> None:
    if options["verbosity"]:
        command.stdout.write(line)


def _could(is_dry: bool) -> str:
    return "would" if is_dry else "could"


def _summary(report: LinkReport, unlinked: int, *, dry: bool) -> str:
    moved = f" ({report.moved:,} of them taken over from another subscriber)" if report.moved else ""
    line = f"{report.linked:,} {'would be linked' if dry else 'linked'}{moved}, {report.already:,} linked already"
    if unlinked:
        line += f", {unlinked:,} {_could(dry)} not be linked"
    return f"{line}. Nothing was written." if dry else f"{line}."


def _tell_what_comes_next(command: BaseCommand, options: dict[str, Any]) -> None:
    waiting = reconcile.marked().count()
    if not waiting:
        return
    if conf.stripe_api_key() is None:
        line = (
            f"{waiting:,} customer(s) wait until Stripe is asked what they hold, which needs "
            "ENTITLEMENTS_STRIPE_API_KEY. It is not set."
        )
    else:
        rate = conf.stripe_rate()
        line = (
            f"{waiting:,} customer(s) wait until Stripe is asked what they hold: at least {in_words(waiting / rate)} "
            f"at {rate:g} a second (ENTITLEMENTS_STRIPE_RATE). entitlements_run and workers do so, behind customers of "
            "whom there is news; manage.py entitlements_sync --marked does it now and shows how far it is."
        )
    _say(command, options, line)


def _why_not(each: NotLinked) -> str:
    label = get_subscriber_model()._meta.label
    who = f"{label} {each.subscriber_id}"
    if each.why is Why.UNUSABLE:
        shown = str(each.stripe_id)
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
        return f"{shown!r} of {who}: no Stripe ID, which has 1 to 255 characters. Correct it."
    reasons = {
        Why.CONTESTED: "several subscribers name it, so none gets it. Leave it with the one who pays.",
        Why.GONE: "this subscriber does not exist any more. Remove what still names it.",
        Why.DELETED: "Stripe deleted it, which is final. Name the customer that replaced it, or none.",
        Why.OTHERS: f"it is linked to {label} {each.holder}. If {each.subscriber_id} pays, --move takes it over.",
    }
    return f"{each.stripe_id} of {who}: {reasons[each.why]}"
