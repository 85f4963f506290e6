import heapq
import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from . import webhooks
from .account import Account, Json
from .faults import Delivery, WebhookFaults

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
KEPT_OF_ANSWER = 500


@dataclass(frozen=True)
class DeliveryRecord:
    """How one attempt ended. Any 2xx is success; without an answer `status` is None and `error` says why."""

    event_id: str
    type: str
    url: str
    attempt: int
    status: int | None
    error: str
    body: str
    at: float

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def __str__(self) -> str:
        return f"{self.type} {self.event_id} -> {self.url} attempt {self.attempt}: {self.status or self.error}"


@dataclass(frozen=True)
class _Parcel:
    url: str
    body: bytes
    headers: dict[str, str]


class Deliveries:
    """Sends events to endpoints: first attempts in order per endpoint, retries when they are due.

    An endpoint has a thread only while something is open for it. All state is guarded by the account's lock,
    which is never held while anything is sent.
    """

    def __init__(self, account: Account, faults: WebhookFaults, retry_delays: Sequence[float]) -> None:
        self._account = account
        self._faults = faults
        self._retry_delays = tuple(retry_delays)
        self._changed = threading.Condition(account.lock)
        self._queues: dict[str, list[tuple[float, int, Delivery]]] = {}
        self._queued = 0
        self._in_flight: dict[str, Delivery] = {}
        self._workers: dict[str, threading.Thread] = {}
        self._connections: set[http.client.HTTPConnection] = set()
        self._running = False
        self.log: list[DeliveryRecord] = []
        self.listener: Callable[[DeliveryRecord], None] | None = None

    def start(self) -> None:
        with self._changed:
            self._running = True
            for endpoint in [name for name, queue in self._queues.items() if queue]:
                self._start_worker(endpoint)

    def stop(self) -> None:
        """What is open is forgotten; an answer still awaited is cut off."""
        with self._changed:
            self._running = False
            self._queues.clear()
            self._faults.held.clear()
            self._changed.notify_all()
            for connection in self._connections:
                _cut(connection)
            workers = list(self._workers.values())
        for worker in workers:
            worker.join(TIMEOUT)

    def send(self, event: Json) -> None:
        """Queue the event for every endpoint that listens to it, as far as the faults let it through."""
        with self._changed:
            endpoints = [
                name
                for name, endpoint in self._account.webhook_endpoints.items()
                if webhooks.listens_to(endpoint, event["type"])
            ]
            event["pending_webhooks"] = len(endpoints)
            for endpoint in endpoints:
                delivery = Delivery(event["id"], event["type"], endpoint)
                if self._faults.drops(delivery):
                    self._note(delivery, error="dropped by a fault")
                else:
                    self._queue(self._faults.passed_on(delivery))

    def release_held(self, *, reverse: bool = True) -> None:
        with self._changed:
            self._queue(self._faults.release(reverse=reverse))

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while still_open := self._open():
                if (left := deadline - time.monotonic()) <= 0:
                    names = ", ".join(f"{d.type} {d.event} (attempt {d.attempt})" for d in still_open)
                    raise TimeoutError(f"deliveries still open after {timeout} s: {names}")
                self._changed.wait(left)

    def _open(self) -> list[Delivery]:
        queued = [delivery for queue in self._queues.values() for _, _, delivery in sorted(queue)]
        return [*self._in_flight.values(), *queued, *self._faults.held]

    def _queue(self, deliveries: Sequence[Delivery], *, delay: float = 0.0) -> None:
        for delivery in deliveries:
            self._queued += 1
            item = (time.monotonic() + delay, self._queued, delivery)
            heapq.heappush(self._queues.setdefault(delivery.endpoint, []), item)
            self._start_worker(delivery.endpoint)
        self._changed.notify_all()

    def _start_worker(self, endpoint: str) -> None:
        if self._running and endpoint not in self._workers:
            worker = threading.Thread(
                target=self._work, args=(endpoint,), name="stripe-simulator-webhooks", daemon=True
            )
            self._workers[endpoint] = worker
            worker.start()

    def _work(self, endpoint: str) -> None:
        while (taken := self._take(endpoint)) is not None:
            delivery, parcel = taken
            self._settle(delivery, *self._post(parcel))

    def _take(self, endpoint: str) -> tuple[Delivery, _Parcel] | None:
        """The next delivery that is due, or None when nothing is left and this thread is to end."""
        with self._changed:
            while queue := self._queues.get(endpoint):
                if (left := queue[0][0] - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                delivery = heapq.heappop(queue)[2]
                if (parcel := self._pack(delivery)) is not None:
                    self._in_flight[endpoint] = delivery
                    return delivery, parcel
            del self._workers[endpoint]
            self._changed.notify_all()
            return None

    def _pack(self, delivery: Delivery) -> _Parcel | None:
        """None for an endpoint deleted or disabled meanwhile: Stripe gives up on it as well."""
        endpoint = self._account.webhook_endpoints.get(delivery.endpoint)
        if endpoint is None or endpoint["status"] != "enabled":
            return None
        body = webhooks.render_body(self._account.events[delivery.event])
        secret = self._account.endpoint_secrets[delivery.endpoint]
        headers = webhooks.delivery_headers(body, secret=secret, t=self._account.clock.seconds)
        return _Parcel(endpoint["url"], body, headers)

    def _post(self, parcel: _Parcel) -> tuple[int | None, str, str]:
        """Status, error and the first part of the answer; a redirect is an answer like any other."""
        parts = urlsplit(parcel.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            connection.connect()
            self._watch(connection)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, parcel.body, parcel.headers)
            response = connection.getresponse()
            start = response.read(4 * KEPT_OF_ANSWER).decode(errors="replace")
            return response.status, "", start[:KEPT_OF_ANSWER]
        except (OSError, ValueError, http.client.HTTPException) as error:
            return None, f"{type(error).__name__}: {error}", ""
        finally:
            with self._changed:
                self._connections.discard(connection)
            connection.close()

    def _watch(self, connection: http.client.HTTPConnection) -> None:
        """Let `stop` cut this connection, or cut it here if `stop` came first."""
        with self._changed:
            self._connections.add(connection)
            if not self._running:
                _cut(connection)

    def _settle(self, delivery: Delivery, status: int | None, error: str, body: str) -> None:
        with self._changed:
            del self._in_flight[delivery.endpoint]
            if not self._running:
                return
            record = self._note(delivery, status=status, error=error, body=body)
            event = self._account.events[delivery.event]
            if record.succeeded:
                event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
            elif delivery.attempt <= len(self._retry_delays):
                retry = replace(delivery, attempt=delivery.attempt + 1)
                self._queue([retry], delay=self._retry_delays[delivery.attempt - 1])
            self._changed.notify_all()

    def _note(
        self, delivery: Delivery, *, status: int | None = None, error: str = "", body: str = ""
    ) -> DeliveryRecord:
        endpoint = self._account.webhook_endpoints.get(delivery.endpoint, {})
        record = DeliveryRecord(
            event_id=delivery.event,
            type=delivery.type,
            url=endpoint.get("url", ""),
            attempt=delivery.attempt,
            status=status,
            error=error,
            body=body,
            at=self._account.clock.now(),
        )
        self.log.append(record)
        logger.info("%s", record)
        if self.listener is not None:
            self.listener(record)
        return record


def _cut(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            logger.debug("the connection was gone already")
