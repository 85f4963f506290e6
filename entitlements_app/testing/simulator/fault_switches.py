from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from .account import INLINE_LIMIT, Account, DeletedCustomer, MissingCustomer
from .deliveries import Deliveries
from .faults import Hold, RequestFaults, WebhookFaults


class FaultSwitches:
    """Everything that can be made to go wrong, and the two questions about Stripe nobody could answer.

    Paths may hold `*` and None means every path; event types may hold `*` as well. Setting a fault again
    replaces what was left of it, except `fail_requests`, which queues up.
    """

    _account: Account
    _deliveries: Deliveries
    _request_faults: RequestFaults
    _webhook_faults: WebhookFaults

    def drop_webhooks(self, times: int = 1, *, type: str = "*") -> None:  # noqa: A002 Stripe's name
        """The next deliveries are lost for good: not sent, not tried again, only noted in the log."""
        with self._account.lock:
            self._webhook_faults.drop_left, self._webhook_faults.drop_type = times, type

    @property
    def webhooks_to_drop(self) -> int:
        """How many deliveries `drop_webhooks` has still to lose."""
        with self._account.lock:
            return self._webhook_faults.drop_left

    def double_webhooks(self, times: int = 1, *, type: str = "*") -> None:  # noqa: A002 Stripe's name
        """Each of the next deliveries is sent twice."""
        with self._account.lock:
            self._webhook_faults.double_left, self._webhook_faults.double_type = times, type

    def reorder_webhooks(self, times: int = 2, *, type: str = "*") -> None:  # noqa: A002 Stripe's name
        """The next deliveries are held until that many are there, then sent in reverse."""
        with self._account.lock:
            self._webhook_faults.reorder_left, self._webhook_faults.reorder_type = times, type

    def same_second(self, times: int = 2) -> None:
        """The next summary events all get the `created` of the first of them."""
        with self._account.lock:
            switches = self._account.switches
            switches.same_second_left, switches.same_second = times, None

    def cut_at(self, limit: int = INLINE_LIMIT) -> None:
        """Summary events carry at most this many active entitlements inline."""
        with self._account.lock:
            self._account.switches.inline_limit = limit

    def fail_requests(self, status: int = 429, times: int = 1, path: str | None = None) -> None:
        """The next calls get this error and change nothing. Raises ValueError for a status without one."""
        self._request_faults.fail(status=status, times=times, path=path)

    def drop_connections(self, times: int = 1) -> None:
        """The next calls change nothing and get no answer; the connection is closed."""
        self._request_faults.drop(times)

    def slow(self, seconds: float, path: str | None = None) -> None:
        """Calls wait this long before they are answered, until it is set to 0."""
        self._request_faults.slow(seconds, path)

    def no_date(self, on: bool = True) -> None:
        """Answers lack the Date header."""
        self._request_faults.no_date = on

    @contextmanager
    def hold(self, method: str, path: str, *, times: int = 1) -> Iterator[Hold]:
        """Hold back the answers to the next such calls: computed when they came, sent after `release`.

        Later calls pass. Leaving the block releases what is held.
        """
        hold = Hold(method, path, times)
        self._request_faults.add_hold(hold)
        try:
            yield hold
        finally:
            self._request_faults.remove_hold(hold)

    def clear_faults(self) -> None:
        """No fault is left; webhooks held for reordering are sent."""
        with self._account.lock:
            self._webhook_faults.drop_left = self._webhook_faults.double_left = 0
            self._deliveries.release_held()
        self.same_second(0)
        self.cut_at()
        self._request_faults.clear()

    @property
    def missing_customer(self) -> MissingCustomer:
        """How the active entitlements of an unknown customer are answered: "400", "404" or "empty"."""
        return self._account.switches.missing_customer

    @missing_customer.setter
    def missing_customer(self, answer: MissingCustomer) -> None:
        if answer not in get_args(MissingCustomer):
            raise ValueError(f"missing_customer is one of {get_args(MissingCustomer)}, not {answer!r}")
        self._account.switches.missing_customer = answer

    @property
    def deleted_customer(self) -> DeletedCustomer:
        """How the active entitlements of a deleted customer are answered: "empty" or "error"."""
        return self._account.switches.deleted_customer

    @deleted_customer.setter
    def deleted_customer(self, answer: DeletedCustomer) -> None:
        if answer not in get_args(DeletedCustomer):
            raise ValueError(f"deleted_customer is one of {get_args(DeletedCustomer)}, not {answer!r}")
        self._account.switches.deleted_customer = answer
