"""The demo with two weeks behind it: its people live day by day, by a clock that is set back and catches up.

`python -m example_project.browser.fortnight`. Stripe, simulated, lives by the same clock: nothing is made up.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import django
import time_machine

DAYS, A_STEP = 14, timedelta(days=1, hours=23)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    django.setup()
    # Only now are there apps, and models to import.
    from entitlements_app.testing import StripeSimulator
    from example_project.shop.management.commands import demo

    travel = time_machine.travel(datetime.now(UTC) - timedelta(days=DAYS), tick=True)
    clock = travel.start()

    class Command(demo.Command):
        def _end_day(self, simulator: StripeSimulator) -> None:
            super()._end_day(simulator)
            self._run_pending()
            clock.shift(A_STEP)

        def _announce(self, simulator: StripeSimulator | None) -> None:
            travel.stop()
            self._run_pending()
            super()._announce(simulator)

    Command().handle()


if __name__ == "__main__":
    main()
