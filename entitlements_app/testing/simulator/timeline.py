"""Move the clock, and let happen on the way what was due, each at its own second."""

from . import billing
from .account import Account, Json

MOST_STEPS = 100_000


def advance(account: Account, seconds: float) -> None:
    """Afterwards the clock shows that much later, and nothing that was due by then is left undone.

    Raises ValueError for a way back: Stripe's clock has none. `clock.advance` only moves the hand.
    """
    if seconds < 0:
        raise ValueError("Time cannot be advanced by less than nothing.")
    with account.lock:
        target = account.clock.now() + seconds
        for _ in range(MOST_STEPS):
            due = _next(account, target)
            if due is None:
                break
            moment, subscription, happen = due
            if moment > account.clock.now():
                account.clock.set(moment)
            happen(account, subscription)
        else:
            raise RuntimeError(f"more than {MOST_STEPS} things would happen on the way; advance in smaller steps")
        account.clock.set(max(target, account.clock.now()))


def _next(account: Account, target: float) -> tuple[int, Json, billing.Happening] | None:
    now = account.clock.seconds
    found = None
    for subscription in account.subscriptions.values():
        moment = billing.next_moment(subscription, now)
        if moment is not None and moment[0] <= target and (found is None or moment[0] < found[0]):
            found = (moment[0], subscription, moment[1])
    return found
