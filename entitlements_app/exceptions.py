"""The errors that callers of this app may want to catch."""


class EntitlementsError(Exception):
    """Base of the errors below."""


class AlreadyLinked(EntitlementsError):
    """The Stripe customer belongs to another subscriber. Pass `move=True` to `link` to take it over."""


class CustomerDeleted(EntitlementsError):
    """The customer was deleted in Stripe, which is final. Link the customer that replaced it."""


class StripeUnavailable(EntitlementsError):
    """Stripe did not give a usable answer, or the call budget is used up. Nothing was changed; try again later.

    `status` is the HTTP status of the answer, `None` when there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class StripeRefused(EntitlementsError):
    """Stripe answered that this will not work as asked. The same call will fail again until something is changed."""
