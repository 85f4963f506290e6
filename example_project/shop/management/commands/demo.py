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

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, get_internal_wsgi_application
from django.db import connection

from entitlements_app.testing import StripeSimulator
from example_project.settings import ENTITLEMENTS_STRIPE_API_KEY, ENTITLEMENTS_WEBHOOK_SECRETS, PORT, STRIPE_PORT
from example_project.shop import billing
from example_project.shop.demo_sign_in import PASSWORD, USERS
from example_project.shop.plans import PLANS

HOST = "127.0.0.1"
CRON_SECONDS = 60

# What a site subscribes its endpoint to in Stripe's Dashboard.
ENABLED_EVENTS = (
    "entitlements.active_entitlement_summary.updated",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
)


class Command(BaseCommand):
    help = "Run this site and a simulated Stripe that talk over HTTP, from a fresh database, until Ctrl-C."
    # Some open the database, which is not there yet: they run once it is.
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = HOST  # all traffic is with this machine itself
        stripe = StripeSimulator(
            api_key=ENTITLEMENTS_STRIPE_API_KEY,
            webhook_secret=ENTITLEMENTS_WEBHOOK_SECRETS[0],
            port=STRIPE_PORT,
        )
        # Both ports before the database: it may be that of a demo that runs.
        try:
            with _listening() as site, _running(stripe):
                self._make_database()
                Thread(target=site.serve_forever, name="site", daemon=True).start()
                self._fill(stripe)
                self._run_pending()
                self._announce(stripe)
                while True:
                    time.sleep(CRON_SECONDS)
                    self._run_pending()
        except KeyboardInterrupt:
            self.stdout.write("\nStopped.")

    def _make_database(self) -> None:
        """Start anew: the simulated Stripe forgets all when it stops, and a copy of nothing would be no copy."""
        path = Path(connection.settings_dict["NAME"])
        connection.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{path.name}*"):  # with a journal, if the last one was killed
            left.unlink()
        call_command("migrate", verbosity=0)
        self.check()

    def _fill(self, stripe: StripeSimulator) -> None:
        """Users, a catalogue, customers, subscriptions: all of it as the site itself would do it."""
        billing.create_catalogue()
        stripe.add_webhook_endpoint(f"http://{HOST}:{PORT}/stripe/webhook/", enabled_events=ENABLED_EVENTS)
        password = make_password(PASSWORD)
        for name in USERS:
            is_staff = name == "admin"
            user = User(username=name, email=f"{name}@example.com", is_staff=is_staff, is_superuser=is_staff)
            user.password = password
            user.save()
            if name in PLANS:
                billing.switch_plan(user, PLANS[name])
        stripe.wait_for_deliveries()

    def _announce(self, stripe: StripeSimulator) -> None:
        self.stdout.write("\nA fresh start: the simulated Stripe keeps nothing, so the demo's database began anew too.")
        self.stdout.write(f"The simulated Stripe listens on {stripe.url}; nothing leaves this machine.")
        self.stdout.write(self.style.SUCCESS(f"\n    Open http://{HOST}:{PORT}/\n\n"), ending="")
        self.stdout.write("Ctrl-C stops both.\n")
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


@contextmanager
def _listening() -> Iterator[ThreadedWSGIServer]:
    """The site on its port. Requests wait until someone calls `serve_forever`."""
    try:
        server = ThreadedWSGIServer((HOST, PORT), WSGIRequestHandler)
    except OSError as error:
        raise _port_refused("PORT", PORT, "the site", error) from error
    server.set_app(StaticFilesHandler(get_internal_wsgi_application()))
    with server:
        yield server


@contextmanager
def _running(stripe: StripeSimulator) -> Iterator[None]:
    try:
        stripe.start()
    except OSError as error:
        raise _port_refused("STRIPE_PORT", STRIPE_PORT, "the simulated Stripe", error) from error
    try:
        yield
    finally:
        stripe.stop()


def _port_refused(name: str, port: int, user: str, error: OSError) -> CommandError:
    other = {"PORT": PORT, name: port + 1 if port < 65535 else port - 1}
    chosen = " ".join(f"{key}={value}" for key, value in other.items())
    return CommandError(
        f"Port {port} is not free for {user} ({error.strerror}). Another demo may be running. "
        f"Choose another port: {chosen} make demo"
    )
