from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from entitlements_app import budget, catalog_sync, conf, counts, inbox, overrides, poll, provisioning, purge, reconcile
from entitlements_app.fetch_pool import FetchReport
from entitlements_app.management.interrupts import between_answers
from entitlements_app.management.site_command import SiteCommand

RUN_SECONDS = 50
DELIVERY_SECONDS = 25  # slow receivers must not keep the mirror from being true
# These also have their time at the end of a pass that had no second left.
PURGE_SECONDS = 5
COUNT_SECONDS = 5
POLL_SECONDS = 20  # after an outage there is much to find, and some of it can be fetched meanwhile


class Command(SiteCommand):
    help = (
        "One pass of what is due: webhook events that still wait, changes that receivers of signals have still to be "
        "told of, starts and ends of overrides, events that no webhook brought (every ten minutes), the catalogue "
        "(once a day), then fetches from Stripe, once a day what can be forgotten, and once an hour the numbers of the "
        "overview in Django admin. For cron, every minute. "
        f"Ends when nothing is due, or after about {RUN_SECONDS} seconds. Runs may overlap. Silent with --verbosity 0, "
        "but for problems. Exits with 1 while Stripe refuses the API key."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--resume", action="store_true", help="Call Stripe again after it had refused the API key.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._is_quiet = options["verbosity"] == 0
        self._deadline = time.monotonic() + RUN_SECONDS
        conf.check()
        if options["resume"] and not budget.resume():
            self.stdout.write("Calls to Stripe were not stopped.")
        self._work_here()
        stopped = self._ask_stripe()
        self._purge()
        self._count()
        if stopped:
            raise CommandError(stopped)

    def _work_here(self) -> None:
        self._say(f"Webhook events: {inbox.process_due(deadline=self._deadline)} taken.")
        self._say(provisioning.deliver_due(deadline=self._within(DELIVERY_SECONDS)).as_line())
        self._say(overrides.tell_boundaries(deadline=self._deadline).as_line())

    def _ask_stripe(self) -> str:
        """Returns why calls to Stripe are stopped, if they are."""
        if conf.stripe_api_key() is None:
            self._warn("Nothing is fetched: ENTITLEMENTS_STRIPE_API_KEY is not set.")
            return ""
        self._poll()
        self._sync_catalog()
        fetched = FetchReport()
        with between_answers(fetched):
            reconcile.fetch_due(deadline=self._deadline, report=fetched)
        self._say(fetched.as_line())
        if fetched.stopped or budget.stopped_reason():
            return fetched.problem or budget.STOPPED
        if fetched.problem:
            self._warn(f"Fetching ended early. {fetched.problem}")
        return ""

    def _poll(self) -> None:
        polled = poll.poll_if_due(deadline=self._within(POLL_SECONDS))
        if polled is None:
            self._say("Events API: not due.")
            return
        self._say(polled.as_line())
        if polled.found:
            inbox.process_due(deadline=self._deadline)
        if polled.problem and not polled.stopped:
            self._warn(f"Polling ended early. {polled.problem}")

    def _sync_catalog(self) -> None:
        catalog = catalog_sync.sync_if_due(deadline=self._deadline)
        self._say(catalog.as_line() if catalog else "Catalogue: not due.")
        if catalog and catalog.problem:
            self._warn(f"The catalogue was not read. {catalog.problem}")

    def _purge(self) -> None:
        purged = purge.purge_if_due(deadline=max(self._deadline, time.monotonic() + PURGE_SECONDS))
        if purged and purged.total:
            self._say(purged.as_line())

    def _count(self) -> None:
        counted = counts.count_if_due(deadline=max(self._deadline, time.monotonic() + COUNT_SECONDS))
        if counted and counted.problem:
            self._warn(f"Nothing was counted for the overview. {counted.problem}")
        elif counted:
            self._say(counted.as_line())

    def _within(self, seconds: float) -> float:
        return min(self._deadline, time.monotonic() + seconds)

    def _say(self, line: str) -> None:
        if not self._is_quiet:
            self.stdout.write(line)

    def _warn(self, line: str) -> None:
        self.stderr.write(self.style.WARNING(line))
