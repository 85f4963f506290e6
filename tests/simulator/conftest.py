from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe as sdk

from entitlements_app.testing import StripeSimulator
from tests.simulator.tools import Receiver


@pytest.fixture
def simulator() -> Iterator[StripeSimulator]:
    with StripeSimulator(retry_delays=(0.05, 0.1), seed=7) as simulator:
        yield simulator


@pytest.fixture
def client(simulator: StripeSimulator) -> sdk.StripeClient:
    return sdk.StripeClient(simulator.api_key, base_addresses={"api": simulator.url})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()
