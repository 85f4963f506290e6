from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from entitlements_app import catalog_sync, conf, reconcile, runs, sync
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.fetch_pool import FetchReport
from entitlements_app.fetches import Fetch
from entitlements_app.management.interrupts import INTERRUPTED, between_answers
from entitlements_app.management.progress import Progress, in_words
from entitlements_app.management.site_command import SiteCommand
from entitlements_app.models import Customer
from entitlements_app.sync import Synced
from entitlements_app.transactions import alias

RESUMABLE = timedelta(days=7)


class Command(SiteCommand):
    help = (
        "Ask Stripe now what customers are entitled to, or what its catalogue is, and make the local copy equal to "
        "it. Of customers it says before it starts how many calls that takes, and how long. Calls are made no faster "
        "than ENTITLEMENTS_STRIPE_RATE, together with everything else that calls. With --verbosity 2 each customer is "
        "told, not only those that changed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--customer", nargs="+", metavar="cus_…", help="These customers.")
        which.add_argument(
            "--marked",
            action="store_true",
            help="All customers of whom there was news that no fetch has settled yet.",
        )
        which.add_argument(
            "--all",
            action="store_true",
            help="All customers. Goes on where an earlier run was interrupted in the last seven days.",
        )
        which.add_argument(
            "--catalog", action="store_true", help="Features, products, and which features are attached to which."
        )
        parser.add_argument("--restart", action="store_true", help="With --all: begin anew instead.")
        parser.add_argument("--dry-run", action="store_true", help="Ask Stripe, tell what would change, write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._verbosity = options["verbosity"]
        self._is_dry = options["dry_run"]
        if options["restart"] and not options["all"]:
            raise CommandError("--restart goes with --all.")
        try:
            conf.check()
            if conf.stripe_api_key() is None:
                raise CommandError("ENTITLEMENTS_STRIPE_API_KEY is not set, so Stripe cannot be asked.")
            self._sync(options)
        except KeyboardInterrupt:
            rest = " The next --all goes on from there." if options["all"] and not self._is_dry else ""
            raise CommandError(f"Interrupted.{rest}", returncode=INTERRUPTED) from None

    def _sync(self, options: dict[str, Any]) -> None:
        if options["all"]:
            self._sync_all(restart=options["restart"])
        elif options["catalog"]:
            self._sync_catalog()
        elif options["marked"]:
            self._sync_many(reconcile.marked().count(), reconcile.fetch_marked)
        else:
            self._sync_customers(options["customer"])

    def _sync_catalog(self) -> None:
        try:
            report = catalog_sync.run_now(dry=self._is_dry)
        except (StripeUnavailable, StripeRefused) as error:
            raise CommandError(str(error)) from error
        for change in report.changes:
            self._say(change)
        self._say(report.as_line())
        if self._is_dry:
            self._say("Nothing was written.")

    def _sync_all(self, *, restart: bool) -> None:
        now = timezone.now()
        since = (None if restart else runs.interrupted_since(runs.Kind.ALL, within=RESUMABLE)) or now
        if since != now:
            local = timezone.localtime(since) if timezone.is_aware(since) else since
            self._say(f"Going on with the run of {local:%Y-%m-%d %H:%M}; --restart begins anew.")
        total = reconcile.unfetched(since).count()

        def fetch(report: FetchReport, *, dry: bool) -> None:
            reconcile.fetch_all(report, since=since, dry=dry)

        if self._is_dry:
            self._sync_many(total, fetch)
            return
        run = runs.start(runs.Kind.ALL, total=total)
        if run is None:
            raise CommandError(
                "Another run of --all is at work, or was killed less than five minutes ago: "
                "manage.py entitlements_status tells."
            )
        report = FetchReport()
        problem = ""
        try:
            self._sync_many(total, fetch, report=report, save=lambda done: runs.count(run, done=done))
        except BaseException as error:  # an interrupt, too, is to be told
            problem = "Interrupted." if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            raise
        finally:
            runs.count(run, changed=report.changed, failed=report.failed, calls=report.calls)
            runs.finish(run, error=problem)

    def _sync_many(
        self,
        total: int,
        fetch: Callable[..., None],
        *,
        report: FetchReport | None = None,
        save: Callable[[int], object] | None = None,
    ) -> None:
        """Fetch with a progress bar. Raises `CommandError` if any customer could not be fetched."""
        if not total:
            self._say("No customers to ask about.")
            return
        rate = conf.stripe_rate()
        self._say(
            f"{total:,} customer(s): about {total:,} call(s), at least {in_words(total / rate)} "
            f"at {rate:g} a second (ENTITLEMENTS_STRIPE_RATE)."
        )
        with Progress(self.stderr, total, save=save) as progress:

            def tell(fetch: Fetch, synced: Synced) -> None:
                if self._verbosity > 1 or (self._verbosity and (synced.changed or not synced.known)):
                    progress.interrupt()
                    self.stdout.write(f"{fetch.stripe_id}: {self._told(synced)}")
                progress.step()

            report = report or FetchReport()
            report.on_answer = tell
            with between_answers(report):
                fetch(report, dry=self._is_dry)
        self._say(report.as_line(dry=self._is_dry))
        if self._is_dry:
            self._say("Nothing was written.")
        if report.problem or report.failed:
            raise CommandError(report.problem or "Some customers could not be fetched; see the log.")

    def _sync_customers(self, stripe_ids: list[str]) -> None:
        customers = self._known(stripe_ids)
        if self._is_dry:
            pks = [customer.pk for customer in customers]
            self._sync_many(len(pks), lambda report, dry: reconcile.fetch_these(pks, report, dry=dry))
            return
        for customer in customers:
            try:
                synced = sync.sync_customer(customer)
            except (StripeUnavailable, StripeRefused) as error:
                raise CommandError(f"{customer.stripe_id}: {error}") from error
            self.stdout.write(f"{customer.stripe_id}: {self._told(synced)}")

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

    def _say(self, line: str) -> None:
        if self._verbosity:
            self.stdout.write(line)

    def _told(self, synced: Synced) -> str:
        if not synced.applied:
            return "nothing to apply: it is deleted, or newer news came while Stripe was asked"
        if not synced.known:
            return "Stripe does not know it in this account and mode; what a fetch had confirmed before is kept"
        if not synced.changed:
            return "no change"
        signs = [f"+{key}" for key in sorted(synced.granted)] + [f"-{key}" for key in sorted(synced.revoked)]
        causes = sorted({cause.label for cause in synced.drift.values()})
        told = f" (no event had told; likely cause: {', '.join(map(str, causes))})" if causes else ""
        return " ".join(signs) + told
