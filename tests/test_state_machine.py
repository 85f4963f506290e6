"""Anything in any order: plans change, events come late, twice, swapped, cut or never, links move, Stripe fails, staff
grant and deny, processes die.

What is promised at every step, and in the end, stands in `tests/machine/promises.py`; on what conditions, too.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.at_stripe import AtStripe
from tests.machine.on_the_site import OnTheSite
from tests.machine.on_the_way import OnTheWay
from tests.machine.promises import Promises

pytestmark = pytest.mark.django_db(transaction=True)

SOAK = os.environ.get("TEST_EXAMPLES")


class Site(AtStripe, OnTheWay, OnTheSite, Promises):
    """Stripe, the wire, the site, and what is promised of them."""


def test_whatever_happens_what_is_promised_holds() -> None:
    run_state_machine_as_test(
        Site,
        settings=settings(
            max_examples=int(SOAK or 8),
            stateful_step_count=50,
            # The same cases each time; a soak looks for new ones.
            derandomize=SOAK is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
