import json
import signal
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from entitlements_app.testing.simulator.deliveries import DeliveryRecord
from entitlements_app.testing.simulator.errors import ApiError
from entitlements_app.testing.simulator.seed import SeedError, fill
from entitlements_app.testing.simulator.stripe_simulator import StripeSimulator


class Command(BaseCommand):
    help = "Run a stand-in for Stripe on this machine, until interrupted. Nothing leaves the machine."
    # It has to start before the site it serves is configured.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=12111, help="0 takes a free one (default: %(default)s)")
        parser.add_argument("--webhook-url", help="deliver every event there; this machine only")
        parser.add_argument("--webhook-secret", default="whsec_simulator", help="default: %(default)s")
        parser.add_argument("--api-key", default="sk_test_simulator", help="default: %(default)s")
        parser.add_argument("--seed-file", type=Path, help="JSON: what is there at the start, without webhooks")

    def handle(self, *args: Any, **options: Any) -> None:
        simulator = StripeSimulator(
            api_key=options["api_key"],
            webhook_secret=options["webhook_secret"],
            livemode=options["api_key"].startswith(("sk_live_", "rk_live_")),
            port=options["port"],
        )
        simulator.on_delivery(self._log)
        self._seed(simulator, options["seed_file"])
        self._add_endpoint(simulator, options["webhook_url"])
        self._start(simulator, options["port"])
        try:
            self._announce(simulator)
            _sleep_until_interrupted()
        finally:
            simulator.stop()
        self.stdout.write("Stopped.")

    def _seed(self, simulator: StripeSimulator, path: Path | None) -> None:
        if path is None:
            return
        try:
            fill(simulator, json.loads(path.read_text()))
        except (OSError, SeedError, ApiError, json.JSONDecodeError) as error:
            raise CommandError(f"Cannot seed from {path}: {error}") from error

    def _add_endpoint(self, simulator: StripeSimulator, url: str | None) -> None:
        if url is None:
            return
        try:
            simulator.add_webhook_endpoint(url)
        except ApiError as error:
            raise CommandError(str(error)) from error

    def _start(self, simulator: StripeSimulator, port: int) -> None:
        try:
            simulator.start()
        except (OSError, OverflowError) as error:
            raise CommandError(f"Cannot listen on port {port}: {error}. Choose another with --port.") from error

    def _announce(self, simulator: StripeSimulator) -> None:
        self.stdout.write(f"StripeSimulator listens on {simulator.url}. Settings:\n\n")
        self.stdout.write(f'ENTITLEMENTS_STRIPE_API_BASE = "{simulator.url}"')
        self.stdout.write(f'ENTITLEMENTS_STRIPE_API_KEY = "{simulator.api_key}"')
        self.stdout.write(f'ENTITLEMENTS_WEBHOOK_SECRETS = ["{simulator.webhook_secret}"]\n\n')
        self.stdout.write("Stop with Ctrl-C.")
        self.stdout.flush()

    def _log(self, record: DeliveryRecord) -> None:
        self.stdout.write(str(record))
        self.stdout.flush()


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
