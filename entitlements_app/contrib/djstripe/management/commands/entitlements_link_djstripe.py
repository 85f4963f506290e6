from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import router
from django.db.models import Q, QuerySet
from djstripe.models import Customer as Theirs

from entitlements_app import conf
from entitlements_app.bulk_links import BATCH
from entitlements_app.contrib.djstripe import details
from entitlements_app.contrib.djstripe.accounts import own_account
from entitlements_app.contrib.djstripe.subscribers import is_same_model, key_path, models_differ
from entitlements_app.management import linking_commands
from entitlements_app.management.interrupts import INTERRUPTED
from entitlements_app.management.site_command import SiteCommand
from entitlements_app.models import Customer
from entitlements_app.transactions import primary


class Command(SiteCommand):
    help = (
        "Link all customers of dj-stripe to its subscribers: once for those that it had before, and whenever rows of "
        "its table were written without a signal. Run it as often as you like: what is linked already is passed over, "
        "so that an interrupted run goes on where it was. No call is made; Stripe is asked afterwards what they hold."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        linking_commands.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not is_same_model():
            raise CommandError(models_differ())
        known = _Known()
        if options["verbosity"]:
            for line in known.passed_over():
                self.stdout.write(line)
        try:
            linking_commands.link_all(self, known, total=known.count(), source="dj-stripe", options=options)
        except CommandError as error:
            if error.returncode != INTERRUPTED:  # some could not be linked
                self._take_details(known, options)
            raise
        self._take_details(known, options)

    def _take_details(self, known: _Known, options: dict[str, Any]) -> None:
        if options["dry_run"]:
            return
        taken = details.take_missing(known.details(), livemode=conf.livemode())
        if taken and options["verbosity"]:
            self.stdout.write(f"{taken:,} customer(s) have their name and e-mail address from dj-stripe now.")


class _Known:
    """The own customers that dj-stripe knows in this mode, each with its subscriber, as often as one goes through."""

    def __init__(self) -> None:
        self._livemode = conf.livemode()
        self._all: QuerySet[Any] = Theirs._base_manager.using(router.db_for_write(Theirs))
        of_mode = self._all.filter(Q(livemode=self._livemode) | Q(livemode=None))
        owner = own_account()
        is_own = Q() if owner is None else Q(djstripe_owner_account=None) | Q(djstripe_owner_account__id=owner)
        self._others = of_mode.exclude(is_own) if owner else of_mode.none()
        self._own = of_mode.filter(is_own)
        self._paid = self._own.exclude(subscriber=None)

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        return linking_commands.values(self._paid, key_path(), "id")

    def details(self) -> Iterator[tuple[str, Any, Any]]:
        return linking_commands.values(self._own, "id", "email", "stripe_data__name")

    def count(self) -> int:
        return int(self._paid.count())

    def passed_over(self) -> Iterator[str]:
        """What is not linked, and why, where there is any."""
        if number := self._all.filter(livemode=not self._livemode).count():
            mode, other = ("live", "test") if self._livemode else ("test", "live")
            yield f"{number:,} customer(s) of {other} mode are passed over: this site is in {mode} mode."
        if number := self._others.count():
            yield f"{number:,} customer(s) of other Stripe accounts are passed over."
        if number := self._own.filter(subscriber=None).count():
            yield (
                f"{number:,} customer(s) without a subscriber at dj-stripe are passed over; {self._linked_here():,} of "
                "them are linked here, and stay so."
            )

    def _linked_here(self) -> int:
        ids = (stripe_id for (stripe_id,) in linking_commands.values(self._own.filter(subscriber=None), "id"))
        linked = primary(Customer).filter(account="", livemode=self._livemode).exclude(subscriber=None)
        total = 0
        while batch := list(islice(ids, BATCH)):
            total += linked.filter(stripe_id__in=batch).count()
        return total
