from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from entitlements_app import conf, reconcile, sync
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.fetch_pool import FetchReport
from entitlements_app.models import Customer
from entitlements_app.transactions import alias


class Command(BaseCommand):
    help = "Ask Stripe now what customers are entitled to, and make the local copy equal to it."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--customer", nargs="+", metavar="cus_…", help="These customers.")
        which.add_argument(
            "--marked",
            action="store_true",
            help="All customers of whom there was news that no fetch has settled yet.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._sync(**options)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error

    def _sync(self, *, marked: bool, customer: list[str] | None, **options: Any) -> None:
        if conf.stripe_api_key() is None:
            raise CommandError("ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked.")
        if marked or customer is None:
            self._sync_marked()
        else:
            self._sync_customers(customer)

    def _sync_marked(self) -> None:
        report = FetchReport()
        reconcile.fetch_marked(report)
        self.stdout.write(report.as_line())
        if report.problem or report.failed:
            raise CommandError(report.problem or "Some customers could not be fetched; see the log.")

    def _sync_customers(self, stripe_ids: list[str]) -> None:
        customers = self._known(stripe_ids)
        for customer in customers:
            try:
                synced = sync.sync_customer(customer)
            except (StripeUnavailable, StripeRefused) as error:
                raise CommandError(f"{customer.stripe_id}: {error}") from error
            self.stdout.write(f"{customer.stripe_id}: {_told(synced)}")

    def _known(self, stripe_ids: list[str]) -> list[Customer]:
        mode = "live" if conf.livemode() else "test"
        customers = Customer.objects.using(alias()).in_mode(conf.livemode())
        rows = {row.stripe_id: row for row in customers.filter(stripe_id__in=stripe_ids)}
        unknown = [stripe_id for stripe_id in stripe_ids if stripe_id not in rows]
        if unknown:
            raise CommandError(
                f"Not known in {mode} mode: {', '.join(map(repr, unknown))}. Nothing was fetched. A customer becomes "
                "known with its first webhook event, or by entitlements_app.linking.link(subscriber, stripe_id)."
            )
        return [rows[stripe_id] for stripe_id in dict.fromkeys(stripe_ids)]


def _told(synced: sync.Synced) -> str:
    if not synced.applied:
        return "nothing to apply: it is deleted, or newer news came while Stripe was asked"
    if not synced.known:
        return "Stripe does not know it in this account and mode; what a fetch had confirmed before is kept"
    if not synced.changed:
        return "no change"
    signs = [f"+{key}" for key in sorted(synced.granted)] + [f"-{key}" for key in sorted(synced.revoked)]
    return " ".join(signs)
