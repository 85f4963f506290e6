"""What can be made to go wrong, for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .account import INLINE_LIMIT, Account
from .deliveries import Deliveries
from .faults import Hold, LostAnswer, RequestFaults, WebhookFaults


class FaultSwitches:
    """Everything that can be made to go wrong.

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
            faults = self._account.distortions
            faults.same_second_left, faults.same_second = times, None

    def shift_created(self, seconds: int, times: int = 1) -> None:
        """The next summary events get a `created` that much later, or earlier if it is negative.

        Out of order, a simulated future or past, as of a test clock. The signature's time stays true.
        """
        with self._account.lock:
            faults = self._account.distortions
            faults.shift, faults.shift_left = seconds, times

    def cut_at(self, limit: int = INLINE_LIMIT) -> None:
        """Summary events carry at most this many active entitlements inline."""
        with self._account.lock:
            self._account.distortions.inline_limit = limit

    def fail_requests(
        self,
        status: int = 429,
        times: int = 1,
        path: str | None = None,
        *,
        method: str | None = None,
        reason: str | None = None,
        should_retry: bool | None = None,
    ) -> None:
        """The next calls, or those of a method, get this error and change nothing.

        `reason` is that of a 429, `lock_timeout` among them; `should_retry` adds the header Stripe-Should-Retry. Raises
        ValueError for a status without an error.
        """
        self._request_faults.fail(
            status=status, times=times, path=path, method=method, reason=reason, should_retry=should_retry
        )

    def lag_lists(self, seconds: float) -> None:
        """Lists of active entitlements show how it was that long ago, until it is set to 0."""
        with self._account.lock:
            self._account.distortions.list_lag = seconds

    def lag_events(self, seconds: float) -> None:
        """The Events API does not have the events of the last so many seconds, until it is set to 0."""
        with self._account.lock:
            self._account.distortions.events_lag = seconds

    def between_pages(self, change: Callable[[], object]) -> None:
        """Do this once, right after a page that is not the last one.

        Of active entitlements, features, products or subscriptions.
        """
        with self._account.lock:
            self._account.distortions.between_pages.append(change)

    def hold_webhooks(self, on: bool = True) -> None:
        """Deliveries are held, in order, until this is set to False."""
        with self._account.lock:
            self._webhook_faults.holds = on
            if not on:
                self._deliveries.release_held(reverse=False)

    def drop_connections(self, times: int = 1) -> None:
        """The next calls change nothing and get no answer; the connection is closed."""
        self._request_faults.drop(times)

    def lose_answers(self, times: int = 1, path: str | None = None, *, status: int | None = None) -> None:
        """The next changes (POST, DELETE) are done, and nobody is told: the connection is closed.

        With a `status`, such as 500, that is the answer, which an idempotency key keeps. Raises ValueError for a status
        without an error.
        """
        self._request_faults.lose(LostAnswer(times, path or "*", status))

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
            self._account.distortions.between_pages.clear()
            if self._webhook_faults.holds:
                self.hold_webhooks(False)
            self._deliveries.release_held()
        self.same_second(0)
        self.shift_created(0, 0)
        self.cut_at()
        self.lag_lists(0)
        self.lag_events(0)
        self._request_faults.clear()
