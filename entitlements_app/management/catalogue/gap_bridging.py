"""What `gaps --bridge` writes: first it is told, and then, if that is agreed to, done."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from entitlements_app import gap_bridges
from entitlements_app.budget import Allowance
from entitlements_app.exceptions import StripeRefused, StripeUnavailable
from entitlements_app.fetch_pool import FetchReport
from entitlements_app.gap_bridges import Outlook
from entitlements_app.gaps import Owing, Scan
from entitlements_app.overrides import Bridging
from entitlements_app.who_is_meant import get_name
from entitlements_app.wording import format_moment

from . import reading
from .gap_report import Names
from .plan_text import printable
from .terminal import DIFFERS, number, say, says_yes, standard_input

LOOKED_AT_AGAIN = 100  # bridges, a call each: a question may stand open for long, and meanwhile somebody cancels


class GapBridging:
    """The bridges for what one scan has found, and the end of those that nobody is owed any more."""

    def __init__(
        self,
        scan: Scan,
        until: datetime,
        names: Names,
        command: BaseCommand,
        options: dict[str, Any],
        *,
        report: FetchReport,
    ) -> None:
        self._scan, self._until, self._names, self._report = scan, until, names, report
        self._command, self._options = command, options
        self._is_dry = options["dry_run"]
        self._outlook = Outlook()
        self._gone = 0
        self._written = dict.fromkeys(Bridging, 0)
        self._ended = 0
        self._otherwise = 0

    def run(self, owing: Owing, allowance: Allowance, *, began: datetime) -> int:
        """Returns the command's exit code. Raises `CommandError` if Stripe cannot be asked: then nothing is written."""
        if self._scan.is_whole:
            try:
                self._gone = gap_bridges.find_gone(self._scan, owing, allowance, began=began)
            except (StripeUnavailable, StripeRefused) as error:
                raise CommandError(f"{error} No override was written.") from error
        self._tell_plan()
        to_do = self._outlook.to_write + self._gone
        if self._is_dry:
            self._say("No override was written.")
        elif to_do and not self._is_agreed():
            self._say("No override was written.")
            return DIFFERS
        elif to_do:
            self._write(None if self._options["yes"] or to_do > LOOKED_AT_AGAIN else owing, allowance)
        left = self._outlook.unlinked + self._otherwise + (to_do if self._is_dry else 0)
        return DIFFERS if left else 0

    def _tell_plan(self) -> None:
        zone = timezone.get_current_timezone_name()
        self._say(
            f"\nBridges, each until Stripe grants the key, and at most until {format_moment(self._until)} ({zone}):"
        )
        for planned in gap_bridges.plan(self._scan.store, until=self._until, outlook=self._outlook):
            if self._is_dry or self._options["verbosity"] > 1:
                was = f", which stands until {format_moment(planned.until_now)}" if planned.until_now else ""
                denied = "; an override denies it, so the answer stays no" if planned.denied else ""
                verb = "Move the bridge" if planned.until_now else "Bridge"
                key, name = printable(planned.gap.lookup_key), printable(get_name(planned.subscriber))
                self._say(f"  {verb} “{key}” for {name}, {planned.gap.customer}{was}{denied}")
        if self._is_dry or self._options["verbosity"] > 1:
            for bridge in gap_bridges.read_gone(self._scan.store):
                key, name = printable(bridge.lookup_key), printable(get_name(bridge.subscriber))
                self._say(f"  End the bridge of “{key}” for {name}: no live subscription asks for it")
        for line in self._counts():
            self._say(f"  {line}")

    def _counts(self) -> list[str]:
        outlook = self._outlook
        told = [
            (outlook.made, "to make"),
            (outlook.moved, "to move to this end"),
            (self._gone, "to end, as no live subscription asks for them any more"),
            (outlook.standing, "stand with this end"),
        ]
        counts = [f"{number(count, 'bridge')} {what}" for count, what in told if count]
        if outlook.held:
            counts.append(f"{number(outlook.held, 'gap')} without need: another customer of the subscriber has the key")
        if outlook.unlinked:
            counts.append(
                f"{number(outlook.unlinked, 'gap')} that cannot be bridged: the customer is linked to nobody. Link it: "
                "entitlements_app.linking.link(subscriber, stripe_id), or the customer's page in the admin"
            )
        if not self._scan.is_whole:
            counts.append(
                "Bridges that nobody is owed any more are ended only by a run without --customer and --product"
            )
        return counts or ["nothing to do"]

    def _is_agreed(self) -> bool:
        if self._options["yes"]:
            return True
        question = f"Write this, in {reading.mode()} mode?"
        stdin = standard_input(self._options)
        return says_yes(question, self._command, stdin, otherwise="no override was written")

    def _write(self, owing: Owing | None, allowance: Allowance) -> None:
        """With `owing`, Stripe is asked again before each. Raises `CommandError` with what was done if it cannot be."""
        try:
            self._make(owing, allowance)
            self._end(owing, allowance)
        except (StripeUnavailable, StripeRefused) as error:
            raise CommandError(f"{error} {self._done()} Run it again for the rest.") from error
        self._say(self._done())
        if granted := self._written[Bridging.NOT_NEEDED]:
            self._say(f"{granted:,} not needed: Stripe has granted the key meanwhile.")
        if self._otherwise:
            self._say(
                f"{self._otherwise:,} left alone: the subscriptions have changed meanwhile. Run it again to see how."
            )

    def _make(self, owing: Owing | None, allowance: Allowance) -> None:
        for planned in gap_bridges.plan(self._scan.store, until=self._until, outlook=Outlook()):
            self._look_up()
            key = planned.gap.lookup_key
            if owing is not None and not gap_bridges.is_owed(planned.subscriber.pk, key, owing, allowance):
                self._otherwise += 1
                continue
            reason = gap_bridges.get_reason(planned.gap, self._names.product(planned.gap.product))
            self._written[gap_bridges.write(planned, until=self._until, reason=reason)] += 1

    def _end(self, owing: Owing | None, allowance: Allowance) -> None:
        for bridge in gap_bridges.read_gone(self._scan.store):
            self._look_up()
            about = (bridge.subscriber_id, bridge.lookup_key)
            if owing is not None and gap_bridges.is_owed(*about, owing, allowance) is not False:
                self._otherwise += 1
                continue
            self._ended += gap_bridges.end(bridge)

    def _done(self) -> str:
        made, moved = self._written[Bridging.MADE], self._written[Bridging.MOVED]
        return f"{number(made, 'bridge')} made, {moved:,} moved, {self._ended:,} ended."

    def _say(self, line: str) -> None:
        if not self._options["json"]:
            say(self._command, self._options, line)

    def _look_up(self) -> None:
        """Where an interrupt is heard: between two bridges."""
        if self._report.on_wait is not None:
            self._report.on_wait()

    def as_data(self) -> dict[str, Any]:
        outlook = self._outlook
        return {
            "until": self._until,
            "dry_run": self._is_dry,
            "to_make": outlook.made,
            "to_move": outlook.moved,
            "to_end": self._gone,
            "standing": outlook.standing,
            "held_by_another_customer": outlook.held,
            "not_linked": outlook.unlinked,
            "made": self._written[Bridging.MADE],
            "moved": self._written[Bridging.MOVED],
            "ended": self._ended,
        }
