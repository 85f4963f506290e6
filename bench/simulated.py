"""A simulated Stripe in a process of its own, so that what it costs is not counted."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from entitlements_app.testing import StripeSimulator
from entitlements_app.testing.simulator.server import HttpAnswer, HttpRequest, Server

API_KEY: Final = "sk_test_" + "0" * 24
KEYS: Final = [f"feature_{number:02}" for number in range(20)]
HELD: Final = 5  # keys of each customer


@dataclass(frozen=True)
class Simulated:
    url: str
    djstripe_url: str
    features: dict[str, str]  # ids by lookup key
    customers: list[str]  # each holds the first HELD keys


@contextmanager
def stripe(customers: int) -> Iterator[Simulated]:
    """Listens for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, customers), daemon=True)
    process.start()
    theirs.close()  # so that the end of a process that failed is noticed
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


def _serve(pipe: Connection, customers: int) -> None:
    with StripeSimulator(api_key=API_KEY) as simulator:
        features = [simulator.create_feature(key) for key in KEYS]
        price = simulator.create_price(simulator.create_product("Pro", features=features[:HELD]))
        made = [simulator.create_customer(email=f"{number}@example.com") for number in range(customers)]
        for customer in made:
            simulator.subscribe(customer, price)
        for_djstripe = _customers_expanded(simulator)
        for_djstripe.start()
        url = f"http://{for_djstripe.server_name}:{for_djstripe.server_port}"
        ids = {key: feature["id"] for key, feature in zip(KEYS, features, strict=True)}
        pipe.send(Simulated(simulator.url, url, ids, [customer["id"] for customer in made]))
        pipe.recv()
        for_djstripe.stop()


def _customers_expanded(simulator: StripeSimulator) -> Server:
    """dj-stripe retrieves a customer with its cards and with its account's name, of which the simulator has neither."""

    def respond(request: HttpRequest) -> HttpAnswer:
        customer = simulator.call("GET", request.path)
        sources = {"object": "list", "data": [], "has_more": False, "url": f"{request.path}/sources"}
        body = json.dumps(customer | {"sources": sources}).encode()
        return HttpAnswer(200, {"Content-Type": "application/json"}, body)

    return Server("127.0.0.1", 0, respond)
