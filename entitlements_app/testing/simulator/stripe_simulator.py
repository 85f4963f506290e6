import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from . import control, webhooks
from .gateway import Gateway
from .server import Server
from .simulation import Simulation


class StripeSimulator(Simulation):
    """The part of Stripe that entitlements need, on this machine only.

    Use it as a context manager, or call `start` and `stop`. Without `start` everything works but HTTP: calls
    by method, `deliver`, `signed_delivery`, the clock. State outlives `stop`; webhooks not yet delivered do not.
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
        super().__init__(
            api_key=api_key, webhook_secret=webhook_secret, livemode=livemode, retry_delays=retry_delays, seed=seed
        )
        self._address = (host, port)
        self._gateway = Gateway(
            self._account,
            self._request_faults,
            self._request_log,
            keys=self._keys,
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
