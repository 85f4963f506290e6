import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from . import api, control, forms, subscriptions, webhooks
from .account import Account, Json
from .clock import Clock
from .conveniences import Conveniences, Ref, id_of
from .deliveries import Deliveries, DeliveryRecord
from .fault_switches import FaultSwitches
from .faults import RequestFaults, WebhookFaults
from .gateway import Gateway, RequestRecord
from .identifiers import Identifiers
from .server import Server


@dataclass(frozen=True)
class SignedDelivery:
    """An event as it would be posted, for a test client without a server."""

    body: bytes
    headers: dict[str, str]


class StripeSimulator(Conveniences, FaultSwitches):
    """The part of Stripe that entitlements need, on this machine only.

    Use it as a context manager, or call `start` and `stop`. Without `start` everything works but HTTP: calls
    by method, `signed_delivery`, the clock. State outlives `stop`; webhooks not yet delivered do not.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        webhook_secret: str = "whsec_simulator",
        livemode: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        retry_delays: Sequence[float] = (0.5, 2.0, 5.0),
        seed: int | None = None,
    ) -> None:
        if not webhooks.is_loopback(host):
            raise ValueError(f"StripeSimulator listens on this machine only, not on {host}")
        mode, other_mode = ("live", "test") if livemode else ("test", "live")
        self.api_key = api_key or f"sk_{mode}_simulator"
        if self.api_key.startswith((f"sk_{other_mode}_", f"rk_{other_mode}_")):
            raise ValueError(f"a {other_mode} key cannot see the {mode} mode that is simulated")
        self.webhook_secret = webhook_secret
        self.livemode = livemode
        self.clock = Clock()
        self._address = (host, port)
        self._account = Account(self.clock, Identifiers(livemode=livemode, seed=seed), livemode)
        self._webhook_faults = WebhookFaults()
        self._request_faults = RequestFaults()
        self._deliveries = Deliveries(self._account, self._webhook_faults, retry_delays)
        self._account.on_event = self._deliveries.send
        self._gateway = Gateway(
            self._account,
            self._request_faults,
            api_key=self.api_key,
            control=functools.partial(control.respond, self),
        )
        self._server: Server | None = None

    def start(self) -> Self:
        """Listen and deliver. Raises OSError if the port is taken."""
        if self._server is None:
            self._server = Server(*self._address, self._gateway.respond)
            self._request_faults.start()
            self._server.start()
            self._deliveries.start()
        return self

    def stop(self) -> None:
        """Afterwards no thread and no socket of the simulator is left."""
        if self._server is not None:
            self._request_faults.stop()
            self._deliveries.stop()
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What ENTITLEMENTS_STRIPE_API_BASE or `base_addresses={"api": …}` is set to."""
        if self._server is None:
            raise RuntimeError("StripeSimulator has no URL before start()")
        return f"http://{self._server.server_name}:{self._server.server_port}"

    def call(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Json:
        """An API call without HTTP: no faults, no key, no entry in `requests`. Raises ApiError."""
        request_id = self._account.identifiers.request()
        return api.perform(self._account, method, path, forms.flatten(params or {}), request_id=request_id)

    @property
    def requests(self) -> list[RequestRecord]:
        """The API calls that came over HTTP, in order; control calls are not among them."""
        return list(self._gateway.requests)

    def clear_requests(self) -> None:
        self._gateway.clear_requests()

    def add_webhook_endpoint(
        self, url: str, *, enabled_events: Sequence[str] = ("*",), secret: str | None = None
    ) -> Json:
        """As the API's call, but with a chosen secret: `webhook_secret` unless another is given."""
        params = {"url": url, "enabled_events": list(enabled_events)}
        with self._account.lock:
            return webhooks.add_endpoint(self._account, params, secret=secret or self.webhook_secret)

    @property
    def deliveries(self) -> list[DeliveryRecord]:
        """Every attempt to deliver that ended, in order, and every delivery that a fault dropped."""
        with self._account.lock:
            return list(self._deliveries.log)

    def on_delivery(self, listener: Callable[[DeliveryRecord], None]) -> None:
        """Call the listener with each record as it is logged; it must be quick and must not raise."""
        self._deliveries.listener = listener

    def wait_for_deliveries(self, timeout: float = 10.0) -> None:
        """Return when nothing is queued, in flight, waiting for a retry or held for reordering.

        Raises TimeoutError that names what is still open.
        """
        self._deliveries.wait(timeout)

    def sign(self, body: bytes, *, secret: str | None = None, t: int | None = None) -> str:
        """The `Stripe-Signature` header for any body."""
        t = self.clock.seconds if t is None else t
        return webhooks.signature(body, secret=self.webhook_secret if secret is None else secret, t=t)

    def signed_delivery(self, event_id: Ref, *, secret: str | None = None, t: int | None = None) -> SignedDelivery:
        """The event as an endpoint would get it now; nothing is sent or logged."""
        with self._account.lock:
            event = self._account.find(self._account.events, "event", id_of(event_id))
            body = webhooks.render_body(event | {"pending_webhooks": max(1, event["pending_webhooks"])})
        t = self.clock.seconds if t is None else t
        secret = self.webhook_secret if secret is None else secret
        return SignedDelivery(body, webhooks.delivery_headers(body, secret=secret, t=t))

    def resend(self, event_id: Ref) -> Json:
        """Deliver the event once more to every endpoint that listens to it now; returns the event."""
        with self._account.lock:
            event = self._account.find(self._account.events, "event", id_of(event_id))
            self._deliveries.send(event)
            return dict(event)

    def renew(self, subscription: Ref) -> Json:
        """What a new billing period does: features attached or detached since count from now on."""
        with self._account.lock:
            return dict(subscriptions.renew(self._account, id_of(subscription)))

    def set_status(self, subscription: Ref, status: str) -> Json:
        """Put a subscription into a status that no simulated call leads to, such as past_due or unpaid."""
        with self._account.lock:
            return dict(subscriptions.set_status(self._account, id_of(subscription), status))
