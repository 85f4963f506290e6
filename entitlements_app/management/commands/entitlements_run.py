from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import budget, conf, inbox, reconcile

RUN_SECONDS = 50


class Command(BaseCommand):
    help = (
        "One pass of what is due: webhook events that still wait, then fetches from Stripe. For cron, every minute. "
        f"Ends when nothing is due, or after {RUN_SECONDS} seconds. Runs may overlap."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--resume", action="store_true", help="Call Stripe again after it had refused the API key.")

    def handle(self, *args: Any, **options: Any) -> None:
        deadline = time.monotonic() + RUN_SECONDS
        if options["resume"] and not budget.resume():
            self.stdout.write("Calls to Stripe were not stopped.")
        events = inbox.process_due(deadline=deadline)
        self.stdout.write(f"Webhook events: {events} taken.")
        if conf.stripe_api_key() is None:
            self.stdout.write(self.style.WARNING("Fetches: none, ENTITLEMENTS_STRIPE_API_KEY is not set."))
            return
        report = reconcile.fetch_due(deadline=deadline)
        self.stdout.write(report.as_line())
        if report.stopped:
            raise CommandError(report.problem)
        if report.problem:
            self.stderr.write(self.style.WARNING(f"Fetching ended early. {report.problem}"))
