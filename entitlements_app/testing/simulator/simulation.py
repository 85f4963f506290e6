from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from . import api, billing, forms, timeline, webhooks
from .account import Account, Json
from .clock import Clock
from .conveniences import Conveniences, Ref, id_of
from .deliveries import Deliveries, DeliveryRecord
from .fault_switches import FaultSwitches
from .faults import RequestFaults, WebhookFaults
from .gateway import RequestLog, RequestRecord
from .identifiers import Identifiers
from .keys import Keys
from .switch_board import SwitchBoard

if TYPE_CHECKING:
    from django.http import HttpResponseBase
    from django.test import Client

# Of the shape that dj-stripe demands of a key.
NO_SECRET = "simulatorWithoutAnySecret"


@dataclass(frozen=True)
class SignedDelivery:
    """An event as it would be posted, for a test client without a server."""

    body: bytes
    headers: dict[str, str]


class Simulation(Conveniences, FaultSwitches, SwitchBoard):
    """All that the simulator knows and does, apart from its own HTTP server."""

    def __init__(
        self,
        *,
        api_key: str | None,
        webhook_secret: str,
        livemode: bool,
        retry_delays: Sequence[float],
        seed: int | None,
    ) -> None:
        mode, other_mode = ("live", "test") if livemode else ("test", "live")
        self.api_key = api_key or f"sk_{mode}_{NO_SECRET}"
        if self.api_key.startswith((f"sk_{other_mode}_", f"rk_{other_mode}_")):
            raise ValueError(f"a {other_mode} key cannot see the {mode} mode that is simulated")
        self.webhook_secret = webhook_secret
        self.livemode = livemode
        self.clock = Clock()
        self._account = Account(self.clock, Identifiers(livemode=livemode, seed=seed), livemode)
        self.account_id = self._account.id
        self._keys = Keys(self.api_key, self.account_id)
        self._webhook_faults = WebhookFaults()
        self._request_faults = RequestFaults()
        self._request_log = RequestLog()
        self._deliveries = Deliveries(self._account, self._webhook_faults, retry_delays)
        self._account.on_event = self._deliveries.send
        self._handed_over: set[str] = set()

    def call(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Json:
        """An API call without HTTP: no faults, no key, no entry in `requests`. Raises ApiError."""
        request_id = self._account.identifiers.request()
        return api.perform(self._account, method, path, forms.flatten(params or {}), request_id=request_id)

    @property
    def requests(self) -> list[RequestRecord]:
        """The API calls that came over HTTP, in order; control calls are not among them."""
        return self._request_log.records()

    def clear_requests(self) -> None:
        self._request_log.clear()

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

    def deliver(self, client: Client, path: str | None = None, *, secret: str | None = None) -> list[HttpResponseBase]:
        """Post every event that it has not posted before to the app's webhook, in order, through Django's test client.

        Another endpoint is named by its path, and its secret if that is not `webhook_secret`.

        Needs neither server nor endpoint; no webhook fault applies and nothing is logged. Assert on the answers: a
        refused event is not posted again.
        """
        from django.urls import reverse  # here, so that the simulator works without Django

        path = reverse("entitlements:webhook") if path is None else path
        with self._account.lock:
            waiting = [name for name in self._account.events if name not in self._handed_over]
        responses: list[HttpResponseBase] = []
        for event_id in waiting:
            delivery = self.signed_delivery(event_id, secret=secret)
            kind = delivery.headers["Content-Type"]
            responses.append(client.post(path, delivery.body, content_type=kind, headers=delivery.headers))
            self._handed_over.add(event_id)
        return responses

    def advance(self, seconds: float | timedelta) -> None:
        """Move the clock on, and let happen what is due on the way, each at its own second, with its events.

        Trials and periods end, subscriptions are cancelled as asked, charges fail. `clock.advance` moves only the hand.
        """
        timeline.advance(self._account, seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)

    def add_restricted_key(self, key: str, *permissions: str) -> None:
        """Let this key in for no more than these, such as `entitlement_read`; write includes read."""
        self._keys.restricted[key] = frozenset(permissions)

    def exists_in_other_mode(self, name: str) -> None:
        """Let a call about this id, if it is missing here, say that the other mode has it."""
        with self._account.lock:
            self._account.of_other_mode.add(name)

    def all_events(self) -> list[Json]:
        """Every event that there ever was, oldest first, also those that the Events API does not show (yet)."""
        with self._account.lock:
            return [dict(event) for event in self._account.events.values()]

    def held_since(self, customer: Ref) -> list[tuple[float, frozenset[str]]]:
        """What a customer has held, as lookup keys, and since when; oldest first, without any lag."""
        with self._account.lock:
            states = self._account.history.get(id_of(customer), [])
            return [(at, frozenset(row["lookup_key"] for row in rows)) for at, rows in states]

    def resend(self, event_id: Ref) -> Json:
        """Deliver the event once more to every endpoint that listens to it now; returns the event."""
        with self._account.lock:
            event = self._account.find(self._account.events, "event", id_of(event_id))
            self._deliveries.send(event)
            return dict(event)

    def renew(self, subscription: Ref) -> Json:
        """What a new billing period does: features attached or detached since count from now on."""
        with self._account.lock:
            row = self._account.find(self._account.subscriptions, "subscription", id_of(subscription))
            billing.renew(self._account, row)
            return dict(row)

    def set_status(self, subscription: Ref, status: str) -> Json:
        """Put a subscription into a status that no simulated call leads to, such as past_due or unpaid."""
        with self._account.lock:
            row = self._account.find(self._account.subscriptions, "subscription", id_of(subscription))
            billing.set_status(self._account, row, status)
            return dict(row)
