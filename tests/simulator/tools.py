"""What the tests of the simulator share."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stripe

PAYLOADS = Path(__file__).parent.parent / "payloads"
SUMMARY = "entitlements.active_entitlement_summary.updated"
ENTITLEMENTS = "/v1/entitlements/active_entitlements"
SETTINGS = (
    "ENTITLEMENTS_STRIPE_API_KEY",
    "ENTITLEMENTS_STRIPE_API_BASE",
    "ENTITLEMENTS_WEBHOOK_SECRETS",
    "ENTITLEMENTS_LIVEMODE",
)


def payload(name):
    return json.loads((PAYLOADS / name).read_text())


def same_shape(mine, captured, where="$"):
    """The same keys and types on every level; null fits anything, the first rows of lists are compared."""
    if mine is None or captured is None:
        return
    mine = dict(mine) if isinstance(mine, dict) else mine
    assert type(mine) is type(captured), where
    if isinstance(mine, dict) and not where.endswith("metadata"):
        assert set(mine) == set(captured), where
        for key in mine:
            same_shape(mine[key], captured[key], f"{where}.{key}")
    if isinstance(mine, list) and mine and captured:
        same_shape(mine[0], captured[0], f"{where}[0]")


def client_for(simulator, key=None):
    return stripe.StripeClient(key or simulator.api_key, base_addresses={"api": simulator.url})


class Receiver:
    """A webhook endpoint: keeps what it got, answers the statuses it was given, then 200."""

    def __init__(self):
        self.received = []
        self.answers = []
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((body, self.headers["Stripe-Signature"], self.path))
                receiver.gate.wait(10)
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere/")
                self.end_headers()
                self.wfile.write(b"seen")

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args):
                """The simulator may be stopped before it reads the answer."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/stripe/webhook/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def events(self):
        return [json.loads(body) for body, _, _ in self.received]

    @property
    def lookup_keys(self):
        return [
            [grant["lookup_key"] for grant in event["data"]["object"]["entitlements"]["data"]] for event in self.events
        ]


def plan(simulator, *keys):
    """A price of a new product with these features, made if need be."""
    held = {f["lookup_key"]: f for f in simulator.call("GET", "/v1/entitlements/features", {"limit": 100})["data"]}
    features = [held.get(key) or simulator.create_feature(key) for key in keys]
    return simulator.create_price(simulator.create_product("+".join(keys)[:80] or "empty", features=features))


def keys_of(simulator, customer):
    return sorted(row["lookup_key"] for row in simulator.active_entitlements(customer))


def post_json(simulator, path, content, method="POST", headers=None):
    host = simulator.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, path, None if content is None else json.dumps(content), headers or {})
    answer = connection.getresponse()
    result = answer.status, json.loads(answer.read())
    connection.close()
    return result


def wait_until(condition, timeout=60.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def error_body(call):
    with pytest.raises(stripe.StripeError) as refused:
        call()
    return refused.value.http_status, refused.value.json_body, refused.value.headers


def ask_in_vain(client):
    with contextlib.suppress(stripe.APIConnectionError):
        client.v1.products.list()
