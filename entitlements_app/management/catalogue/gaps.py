"""`entitlements_catalog gaps`: who pays for a product and lacks a feature of it. `gap_bridging` grants it meanwhile."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from entitlements_app import conf, gap_bridges, gaps, subscription_reads
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.fetch_pool import FetchReport
from entitlements_app.gap_store import GapStore
from entitlements_app.gaps import DOUBTED, Owing, Scan, Scope
from entitlements_app.management.interrupts import INTERRUPTED, between_answers
from entitlements_app.management.progress import Progress, in_words
from entitlements_app.management.until import parse_until
from entitlements_app.models import Customer
from entitlements_app.transactions import alias

from .gap_bridging import GapBridging
from .gap_report import Names, lines, what_can_be_done, write_json
from .terminal import DIFFERS, number, say

HELP = (
    "Which customers have a live subscription (trialing, active or past due) to a product, and lack a feature that is "
    "attached to it: Stripe gives it to the subscriptions that there are with their next period, and at times not even "
    "then. Reads all subscriptions at Stripe, a hundred with a call. With --bridge the features are granted here until "
    "Stripe grants them. Exits with 0 if there are no gaps, or all are bridged, with 2 if some are left, and with 1 "
    "after an error."
)


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--customer",
        default="",
        metavar="cus_…",
        help="Only this customer's subscriptions. Those of test clocks are found in no other way.",
    )
    parser.add_argument(
        "--product", default="", metavar="prod_…", help="Only subscriptions to this product, which saves calls."
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="Ask Stripe about each customer that seems to lack something, a call each. Otherwise only about those "
        "whose copy here may be behind.",
    )
    parser.add_argument(
        "--bridge",
        metavar="until=…",
        help="Grant what is lacking, as overrides that end by themselves when Stripe grants it, at the latest then: "
        "until=2026-12-31 (when that day ends), until=2026-12-31T18:00, until=30d. Bridges of an earlier run get this "
        "end. A run over everything also ends the bridges that no live subscription asks for any more: run it daily.",
    )
    parser.add_argument("--dry-run", action="store_true", help="With --bridge: tell what would be written.")
    parser.add_argument("--yes", action="store_true", help="With --bridge: do not ask.")
    parser.add_argument(
        "--most", type=int, default=20, metavar="N", help="List so many customers of each feature (20)."
    )
    parser.add_argument("--json", action="store_true", help="The same as data, with all customers.")


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    until = parse_until(options["bridge"]) if options["bridge"] is not None else None
    _check(options, until)
    report = FetchReport()
    try:
        with between_answers(report), GapStore() as store:
            code = _Run(command, options, report, store, until).run()
    except KeyboardInterrupt:
        text = "Interrupted. Begin anew: a bridge that was made stands, and is not made twice."
        raise CommandError(text, returncode=INTERRUPTED) from None
    if code:
        sys.exit(code)


def _check(options: dict[str, Any], until: datetime | None) -> None:
    if conf.stripe_api_key() is None:
        raise CommandError("ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked.")
    if until is None and (options["dry_run"] or options["yes"]):
        raise CommandError("--dry-run and --yes go with --bridge.")
    if options["json"] and until is not None and not (options["yes"] or options["dry_run"]):
        raise CommandError("--json asks nothing: with --bridge it takes --yes or --dry-run.")
    if options["most"] < 0:
        raise CommandError("--most is a number of customers.")


class _Run:
    """One report, and what is done about it."""

    def __init__(
        self,
        command: BaseCommand,
        options: dict[str, Any],
        report: FetchReport,
        store: GapStore,
        until: datetime | None,
    ) -> None:
        self._command, self._options, self._report, self._until = command, options, report, until
        self._began = timezone.now()
        self._allowance = subscription_reads.new_allowance()
        self._scan = Scan(store, Scope(options["customer"].strip(), options["product"].strip()))

    def run(self) -> int:
        owing = gaps.read_owing()
        self._find(owing)
        names = Names()
        if not self._options["json"]:
            for line in lines(self._scan, names, most=self._options["most"]):
                self._say(line)
        found, _ = self._scan.store.count()
        code, bridged = DIFFERS if found else 0, None
        if self._until is not None:
            bridging = GapBridging(self._scan, self._until, names, self._command, self._options, report=self._report)
            code = bridging.run(owing, self._allowance, began=self._began)
            bridged = bridging.as_data()
        elif found and not self._options["json"]:
            bridged_already = gap_bridges.count_bridged(self._scan.store)
            if bridged_already:
                self._say(f"Bridged, until Stripe grants what is lacking: {bridged_already:,} of {found:,}.")
            if bridged_already < found:
                self._say("\n".join(what_can_be_done()))
        if self._options["json"]:
            write = self._command.stdout.write
            write_json(lambda text: write(text, ending=""), self._scan, names, bridged)
        if self._scan.unconfirmed:
            customers = number(self._scan.unconfirmed, "customer")
            raise CommandError(f"{customers} could not be confirmed, so the report is not complete; see the log.")
        return code

    # What is found

    def _find(self, owing: Owing) -> None:
        scope = self._scan.scope
        if scope.product and scope.product not in owing:
            raise CommandError(
                f"The features of {scope.product!r} are not known here. Is the id right? A new product is known after "
                "manage.py entitlements_sync --catalog."
            )
        self._say(self._cost())
        try:
            with Progress(self._command.stderr, None) as progress:
                gaps.find(
                    self._scan,
                    owing,
                    self._allowance,
                    self._report,
                    confirm=self._options["confirm"],
                    on_batch=progress.step,
                )
        except (StripeUnavailable, StripeRefused) as error:
            done = f" {number(self._scan.live, 'live subscription')} had been read." if self._scan.live else ""
            raise CommandError(f"{error}{done} Nothing is reported: some would be missing.") from error

    def _cost(self) -> str:
        rate = conf.stripe_rate()
        at = f"at {rate:g} a second (ENTITLEMENTS_STRIPE_RATE)"
        scope = self._scan.scope
        if not scope.is_whole:
            return f"Reading the subscriptions of {' and '.join(filter(None, scope))}, {at}."
        customers = Customer.objects.using(alias()).in_mode(conf.livemode()).filter(deleted_at=None)
        known = customers.count()
        pages = max(1, -(-known // subscription_reads.PAGE_SIZE))
        doubted = known if self._options["confirm"] else customers.filter(DOUBTED).count()
        return (
            f"Reading all subscriptions, {subscription_reads.PAGE_SIZE} with a call, {at}.\n"
            f"Stripe does not tell how many there are: one for each of the {number(known, 'customer')} known here "
            f"would be {number(pages, 'call')}, at least {in_words(pages / rate)}.\n"
            "Besides, a call for each customer that has to be confirmed before it is said to lack something: at most "
            f"{doubted:,} of those known here, and each that is not.\n"
        )

    def _say(self, line: str) -> None:
        if not self._options["json"]:
            say(self._command, self._options, line)
