"""The errors that callers of this app may want to catch."""

from django.core.exceptions import PermissionDenied


class EntitlementsError(Exception):
    """Base of the errors below."""


class AlreadyLinked(EntitlementsError):
    """The Stripe customer belongs to another subscriber. Pass `move=True` to `link` to take it over."""


class CustomerDeleted(EntitlementsError):
    """The customer was deleted in Stripe, which is final. Link the customer that replaced it."""


class StripeUnavailable(EntitlementsError):
    """Stripe did not give a usable answer, or the call budget is used up. Nothing was changed; try again later.

    `status` is the HTTP status of the answer, `None` when there was none. `idempotency_key` is set where a change of
    the catalogue may have happened or not: pass it with the next try, and it happens once.
    """

    def __init__(self, message: str, *, status: int | None = None, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.idempotency_key = idempotency_key


class StripeRefused(EntitlementsError):
    """Stripe answered, or its rules say, that this will not work as asked, and will not until something is changed.

    `param` is Stripe's name of the parameter that is wrong, empty if it is not about one.
    """

    def __init__(self, message: str, *, param: str = "") -> None:
        super().__init__(message)
        self.param = param


class UnknownFeature(EntitlementsError):
    """A gate asked for a lookup key that no known feature has, with `ENTITLEMENTS_UNKNOWN_FEATURE = "raise"`.

    Correct the key. A feature that is new in Stripe is known when the catalogue has been read: once a day, or now, by
    `entitlements_sync --catalog`. This is no `KeyError`: Django's templates would swallow one.
    """


class EntitlementMissing(EntitlementsError, PermissionDenied):
    """A signed-in visitor lacks what a gate asks for: 403, as Django does it.

    `missing` holds the lookup keys: all that lack, or where one of several would do, each of those. Django hands the
    exception to the site's `handler403`.
    """

    def __init__(self, message: str, *, missing: tuple[str, ...]) -> None:
        super().__init__(message)
        self.missing = missing
