from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import stripe
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, get_internal_wsgi_application
from django.db import connection

from entitlements_app.testing import StripeSimulator
from example_project.settings import BESIDE_DJSTRIPE, PORT, STRIPE, STRIPE_PORT, WEBHOOK_PATH
from example_project.shop import billing, catalogue, people
from example_project.shop.demo_sign_in import PASSWORD, USERS
from example_project.shop.plans import PLANS

if BESIDE_DJSTRIPE:
    from example_project.shop import beside_djstripe

HOST = "127.0.0.1"
CRON_SECONDS = 60
WEBHOOK_URL = f"http://{HOST}:{PORT}{WEBHOOK_PATH}"

# What a site subscribes its endpoint to in Stripe's Dashboard. That of dj-stripe is there for more.
EVENTS_NEEDED = (
    "entitlements.active_entitlement_summary.updated",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
)
ENABLED_EVENTS = ("*",) if BESIDE_DJSTRIPE else EVENTS_NEEDED


class Command(BaseCommand):
    help = (
        "Run this site from a fresh database, and a simulated Stripe beside it, until Ctrl-C. With STRIPE_API_KEY and "
        "STRIPE_WEBHOOK_SECRET set it talks to that Stripe test account instead."
    )
    # Some open the database, which is not there yet: they run once it is.
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = HOST  # this machine talks to itself without one
        # The ports before the database: it may be that of a demo that runs.
        try:
            with _listening() as site, _simulated_stripe() as simulator:
                self._make_database()
                Thread(target=site.serve_forever, name="site", daemon=True).start()
                self._fill()
                if simulator is not None:  # nobody wants them in an account
                    self._end_day(simulator)
                    for _ in people.live():
                        self._end_day(simulator)
                self._run_pending()
                self._announce(simulator)
                while True:
                    time.sleep(CRON_SECONDS)
                    self._run_pending()
        except KeyboardInterrupt:
            self.stdout.write("\nStopped.")

    def _make_database(self) -> None:
        """Start anew, as the simulated Stripe does; from a test account, all is fetched again."""
        path = Path(connection.settings_dict["NAME"])
        connection.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{path.name}*"):  # with a journal, if the last one was killed
            left.unlink()
        if BESIDE_DJSTRIPE:
            self.stdout.write("Making the tables, those of dj-stripe too. It takes some ten seconds.")
            self.stdout.flush()
        call_command("migrate", verbosity=0)
        self.check()

    def _fill(self) -> None:
        """Users, a catalogue, customers, subscriptions: all of it as the site itself would do it."""
        try:
            if BESIDE_DJSTRIPE:
                beside_djstripe.make_endpoint(WEBHOOK_URL, enabled_events=ENABLED_EVENTS, secret=STRIPE.webhook_secret)
            catalogue.find_or_create(billing.client())
            password = make_password(PASSWORD)
            for name in USERS:
                is_staff = name in ("admin", "support")
                user = User(username=name, email=f"{name}@example.com", is_staff=is_staff, is_superuser=name == "admin")
                user.password = password
                user.save()
                if name == "support":
                    user.groups.add(people.support_group())
                if name in PLANS:
                    billing.switch_plan(user, PLANS[name])
        except stripe.StripeError as error:
            raise CommandError(f"Stripe did not take what the demo needs: {error.user_message or error}") from error

    def _end_day(self, simulator: StripeSimulator) -> None:
        """In the life of people whom the demo tells of. Each takes a moment."""
        simulator.wait_for_deliveries()

    def _announce(self, simulator: StripeSimulator | None) -> None:
        if simulator is not None:
            self.stdout.write("\nA fresh start: the simulated Stripe keeps nothing, so the database began anew too.")
            self.stdout.write(f"The simulated Stripe listens on {simulator.url}; nothing leaves this machine.")
        else:
            self.stdout.write(
                f"\nThis talks to {STRIPE.api_base or 'your Stripe test account'}, which keeps what it has."
            )
            self.stdout.write("Webhooks arrive while this runs in another terminal:\n\n")
            events = "" if BESIDE_DJSTRIPE else f" --events {','.join(ENABLED_EVENTS)}"
            self.stdout.write(f"    stripe listen{events} \\")
            self.stdout.write(f"        --forward-to {WEBHOOK_URL}")
        if BESIDE_DJSTRIPE:
            self.stdout.write(f"It runs beside {beside_djstripe.VERSION}, whose endpoint the webhooks are posted to.")
        self.stdout.write(self.style.SUCCESS(f"\n    Open http://{HOST}:{PORT}/\n\n"), ending="")
        self.stdout.write("Ctrl-C stops it.\n")
        self.stdout.flush()

    def _run_pending(self) -> None:
        """What a line in a crontab does each minute on a real site."""
        said = StringIO()
        try:
            call_command("entitlements_run", stdout=said, stderr=said)
        except CommandError as error:
            said.write(str(error))
        self.stdout.write(f"[cron] entitlements_run: {' '.join(said.getvalue().split())}")
        self.stdout.flush()


class _RequestHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name in http.server)
        """Without the question that each open page asks each second."""
        if not str(args[0]).startswith("GET /news/"):
            super().log_message(format, *args)


@contextmanager
def _listening() -> Iterator[ThreadedWSGIServer]:
    """The site on its port. Requests wait until someone calls `serve_forever`."""
    try:
        server = ThreadedWSGIServer((HOST, PORT), _RequestHandler)
    except OSError as error:
        raise _port_refused("PORT", PORT, "the site", error) from error
    server.set_app(StaticFilesHandler(get_internal_wsgi_application()))
    with server:
        yield server


@contextmanager
def _simulated_stripe() -> Iterator[StripeSimulator | None]:
    if not STRIPE.simulated:
        yield None
        return
    simulator = StripeSimulator(api_key=STRIPE.api_key, webhook_secret=STRIPE.webhook_secret, port=STRIPE_PORT)
    simulator.add_webhook_endpoint(WEBHOOK_URL, enabled_events=ENABLED_EVENTS)
    try:
        simulator.start()
    except OSError as error:
        raise _port_refused("STRIPE_PORT", STRIPE_PORT, "the simulated Stripe", error) from error
    try:
        yield simulator
    finally:
        simulator.stop()


def _port_refused(name: str, port: int, user: str, error: OSError) -> CommandError:
    other = {"PORT": PORT, name: port + 1 if port < 65535 else port - 1}
    chosen = " ".join(f"{key}={value}" for key, value in other.items())
    return CommandError(
        f"Port {port} is not free for {user} ({error.strerror}). Another demo may be running. "
        f"Choose another port: {chosen} make demo{' DJSTRIPE=1' if BESIDE_DJSTRIPE else ''}"
    )
