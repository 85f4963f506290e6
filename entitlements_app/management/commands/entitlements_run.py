from __future__ import annotations

import time
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import budget, catalog_sync, conf, inbox, overrides, provisioning, reconcile

RUN_SECONDS = 50
DELIVERY_SECONDS = 25  # slow receivers must not keep the mirror from being true


class Command(BaseCommand):
    help = (
        "One pass of what is due: webhook events that still wait, changes that receivers of signals have still to be "
        "told of, starts and ends of overrides, once a day the catalogue, then fetches from Stripe. For cron, every "
        "minute. "
        f"Ends when nothing is due, or after {RUN_SECONDS} seconds. Runs may overlap. Silent with --verbosity 0, "
        "but for problems. Exits with 1 while Stripe refuses the API key."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--resume", action="store_true", help="Call Stripe again after it had refused the API key.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._run(resume=options["resume"], quiet=options["verbosity"] == 0)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error

    def _run(self, *, resume: bool, quiet: bool) -> None:
        conf.check()
        deadline = time.monotonic() + RUN_SECONDS
        if resume and not budget.resume():
            self.stdout.write("Calls to Stripe were not stopped.")
        events = inbox.process_due(deadline=deadline)
        if not quiet:
            self.stdout.write(f"Webhook events: {events} taken.")
        deliveries = provisioning.deliver_due(deadline=min(deadline, time.monotonic() + DELIVERY_SECONDS))
        if not quiet:
            self.stdout.write(deliveries.as_line())
        boundaries = overrides.tell_boundaries(deadline=deadline)
        if not quiet:
            self.stdout.write(boundaries.as_line())
        if conf.stripe_api_key() is None:
            self.stderr.write(self.style.WARNING("Nothing is fetched: ENTITLEMENTS_STRIPE_API_KEY is not set."))
            return
        self._sync_catalog(deadline=deadline, quiet=quiet)
        report = reconcile.fetch_due(deadline=deadline)
        if not quiet:
            self.stdout.write(report.as_line())
        if report.stopped or budget.stopped_reason():
            raise CommandError(report.problem or budget.STOPPED)
        if report.problem:
            self.stderr.write(self.style.WARNING(f"Fetching ended early. {report.problem}"))

    def _sync_catalog(self, *, deadline: float, quiet: bool) -> None:
        catalog = catalog_sync.sync_if_due(deadline=deadline)
        if not quiet:
            self.stdout.write(catalog.as_line() if catalog else "Catalogue: not due.")
        if catalog and catalog.problem:
            self.stderr.write(self.style.WARNING(f"The catalogue was not read. {catalog.problem}"))
