from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .simulator.stripe_simulator import StripeSimulator


@pytest.fixture
def stripe_simulator() -> Iterator[StripeSimulator]:
    """A running simulator with nothing in it, stopped after the test."""
    # Every pytest run in the environment loads this plugin: it costs nothing unless the fixture is used.
    from .simulator.stripe_simulator import StripeSimulator

    with StripeSimulator() as simulator:
        yield simulator
