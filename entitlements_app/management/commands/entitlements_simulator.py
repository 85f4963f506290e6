import json
import re
import signal
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from entitlements_app.testing.simulator.deliveries import DeliveryRecord
from entitlements_app.testing.simulator.errors import ApiError
from entitlements_app.testing.simulator.seed import fill
from entitlements_app.testing.simulator.simulation import NO_SECRET
from entitlements_app.testing.simulator.stripe_simulator import StripeSimulator

_API_KEY = re.compile(r"[sr]k_(test|live)_[!-~]+")


class Command(BaseCommand):
    help = (
        "Run a stand-in for Stripe on this machine, until interrupted: products, prices, customers, subscriptions, "
        "features, active entitlements, events and signed webhooks. Nothing leaves the machine, and nothing is kept. "
        'A seed file looks like {"features": [{"lookup_key": "sso"}], "products": [{"name": "Pro", "features": '
        '["sso"], "prices": [{"unit_amount": 2000, "currency": "usd", "interval": "month"}]}], "customers": '
        '[{"email": "ada@example.com", "subscribe_to": "Pro"}]}.'
    )
    # It has to start before the site it serves is configured.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", default=12111, help="0 takes a free one (default: %(default)s)")
        parser.add_argument("--webhook-url", help="deliver every event there; this machine only")
        parser.add_argument("--webhook-secret", default="whsec_simulator", help="default: %(default)s")
        parser.add_argument("--api-key", default=f"sk_test_{NO_SECRET}", help="default: %(default)s")
        parser.add_argument("--seed-file", help="JSON, see above: what is there at the start, without webhooks")

    def handle(self, *args: Any, **options: Any) -> None:
        port = _checked_port(options["port"])
        if not re.fullmatch(r"\S+", options["webhook_secret"]):
            raise CommandError("--webhook-secret must be one word, and not empty: anyone could sign with that.")
        if not _API_KEY.fullmatch(options["api_key"]):
            raise CommandError(
                "--api-key must be one word that starts with sk_test_, rk_test_, sk_live_ or rk_live_: "
                "the app refuses any other."
            )
        simulator = StripeSimulator(
            api_key=options["api_key"],
            webhook_secret=options["webhook_secret"],
            livemode=options["api_key"].startswith(("sk_live_", "rk_live_")),
            port=port,
        )
        simulator.on_delivery(self._log)
        self._seed(simulator, options["seed_file"])
        self._add_endpoint(simulator, options["webhook_url"])
        self._start(simulator, port)
        try:
            self._announce(simulator, options["webhook_url"])
            _sleep_until_interrupted()
        finally:
            simulator.stop()
        self.stdout.write("Stopped.")

    def _seed(self, simulator: StripeSimulator, path: str | None) -> None:
        if path is None:
            return
        if not path:
            raise CommandError("--seed-file must name a file.")
        try:
            fill(simulator, json.loads(Path(path).read_text()))
        except OSError as error:
            raise CommandError(f"Cannot read the seed file {path}: {error.strerror}.") from error
        except (ValueError, ApiError) as error:  # no text, no JSON, no seed; or refused by the simulated Stripe
            raise CommandError(f"Cannot seed from {path}: {str(error).rstrip('.')}.") from error

    def _add_endpoint(self, simulator: StripeSimulator, url: str | None) -> None:
        if url is None:
            return
        try:
            simulator.add_webhook_endpoint(url)
        except ApiError as error:
            raise CommandError(f"--webhook-url: {error}.") from error

    def _start(self, simulator: StripeSimulator, port: int) -> None:
        try:
            simulator.start()
        except OSError as error:
            raise CommandError(
                f"Cannot listen on port {port}: {error.strerror}. Choose another with --port."
            ) from error

    def _announce(self, simulator: StripeSimulator, webhook_url: str | None) -> None:
        self.stdout.write(f"StripeSimulator listens on {simulator.url}. Settings:\n\n")
        self.stdout.write(f'ENTITLEMENTS_STRIPE_API_BASE = "{simulator.url}"')
        self.stdout.write(f'ENTITLEMENTS_STRIPE_API_KEY = "{simulator.api_key}"')
        self.stdout.write(f'ENTITLEMENTS_WEBHOOK_SECRETS = ["{simulator.webhook_secret}"]\n\n')
        self.stdout.write("Your own stripe-python reaches it with\n\n")
        self.stdout.write(
            f'stripe.StripeClient("{simulator.api_key}", base_addresses={{"api": "{simulator.url}"}})\n\n'
        )
        if webhook_url is None:
            example = "--webhook-url http://127.0.0.1:8000/stripe/webhook/"
            self.stdout.write(f"No webhooks are sent. Add {example} to send them.")
        else:
            self.stdout.write(f"Every event is sent to {webhook_url}")
        self.stdout.write("It forgets everything when it stops.")
        self.stdout.write("Stop with Ctrl-C.")
        self.stdout.flush()

    def _log(self, record: DeliveryRecord) -> None:
        self.stdout.write(str(record))
        self.stdout.flush()


def _checked_port(given: str | int) -> int:
    text = str(given)
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise CommandError(f"--port must be a number from 0 to 65535, not {text!r}.")
    return int(text)


def _sleep_until_interrupted() -> None:
    """SIGTERM counts as Ctrl-C; a shell's background job starts with Ctrl-C ignored, so both are set."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
