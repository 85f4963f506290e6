"""What happens to a subscription in time: trials and periods end, charges fail, access stops."""

from __future__ import annotations

import copy
from collections.abc import Callable

from . import events, grants, payment_methods
from .account import Account, Call, Json, changed

# Months and years of fixed length: nothing here renews by the calendar.
INTERVAL_SECONDS = {"day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
ENDED = frozenset({"canceled", "incomplete_expired"})
RUNNING = frozenset({"active", "past_due", "unpaid"})
INCOMPLETE_SECONDS = 23 * 3600
WARNING_SECONDS = 3 * 86_400

Happening = Callable[[Account, Json], None]


def length(price: Json) -> int:
    """Seconds of a period."""
    return INTERVAL_SECONDS[price["recurring"]["interval"]] * int(price["recurring"]["interval_count"])


def period(price: Json, start: int) -> Json:
    """The item's fields for a period that begins at that second."""
    return {"current_period_start": start, "current_period_end": start + length(price)}


def period_end(subscription: Json) -> int:
    return min(int(item["current_period_end"]) for item in subscription["items"]["data"])


def tell(account: Account, subscription: Json, changes: Json, call: Call | None = None, *, also: str = "") -> None:
    """Write the changes, and tell of them as Stripe would; `also` is a second event, as `paused`."""
    if subscription["cancel_at_period_end"]:
        changes = changes | {"cancel_at": period_end(subscription | changes)}
    previous = changed(subscription, changes)
    if not previous:
        return
    if also:
        events.record(account, f"customer.subscription.{also}", copy.deepcopy(subscription), call=call)
    events.record(account, "customer.subscription.updated", copy.deepcopy(subscription), previous=previous, call=call)


def charge(account: Account, subscription: Json, changes: Json, call: Call | None = None) -> None:
    """Begin what has to be paid: active if the charge succeeds, else past due."""
    status = "past_due" if payment_methods.charge_fails(account, subscription) else "active"
    if subscription["status"] == "unpaid":  # nothing is charged any more
        status = "unpaid"
    tell(account, subscription, changes | {"status": status}, call)


def next_moment(subscription: Json, now: int) -> tuple[int, Happening] | None:
    """When something happens to this subscription by itself next, and what."""
    status = subscription["status"]
    moments: list[tuple[int, Happening]] = []
    if status in ENDED:
        return None
    if status == "incomplete":
        return subscription["created"] + INCOMPLETE_SECONDS, _expire
    if subscription["cancel_at"] is not None:
        moments.append((subscription["cancel_at"], _cancel_as_asked))
    if status == "trialing":
        warning = subscription["trial_end"] - WARNING_SECONDS
        if warning > now:
            moments.append((warning, _warn_of_trial_end))
        moments.append((subscription["trial_end"], end_trial))
    elif status in RUNNING:
        moments.append((period_end(subscription), roll_period))
    paused = subscription["pause_collection"]
    if paused and paused["resumes_at"]:
        moments.append((paused["resumes_at"], _collect_again))
    return min(moments, key=lambda moment: moment[0], default=None)


def end_trial(account: Account, subscription: Json, call: Call | None = None) -> None:
    """Without a card the subscription does what `trial_settings` says; otherwise its first period begins."""
    behaviour = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    changes: Json = {"trial_end": account.clock.seconds} if call else {}
    if behaviour != "create_invoice" and not payment_methods.is_on_file(account, subscription):
        if behaviour == "cancel":
            subscription.update(changes)
            end(account, subscription, call)
        else:
            tell(account, subscription, changes | {"status": "paused"}, call, also="paused")
            grants.recompute(account, subscription["customer"])
        return
    charge(account, subscription, changes | {"items": _items_from(subscription, account.clock.seconds)}, call)
    renew(account, subscription)


def roll_period(account: Account, subscription: Json) -> None:
    """A new billing period: what its products have now is what it grants from here on."""
    charge(account, subscription, {"items": _items_from(subscription, period_end(subscription))})
    renew(account, subscription)


def renew(account: Account, subscription: Json) -> None:
    """Features attached or detached since the last period count from now on."""
    if account.switches.renewal_follows_catalogue:
        grants.snapshot_features(account, subscription)
    grants.recompute(account, subscription["customer"])


def resume(account: Account, subscription: Json, call: Call) -> None:
    items = _items_from(subscription, account.clock.seconds)
    tell(account, subscription, {"status": "active", "items": items}, call, also="resumed")
    renew(account, subscription)


def end(account: Account, subscription: Json, call: Call | None = None) -> None:
    """Cancel at once: the event, then what the customer loses by it."""
    now = account.clock.seconds
    subscription.update({"status": "canceled", "canceled_at": subscription["canceled_at"] or now, "ended_at": now})
    events.record(account, "customer.subscription.deleted", copy.deepcopy(subscription), call=call)
    grants.recompute(account, subscription["customer"])


def set_status(account: Account, subscription: Json, status: str) -> None:
    """Put a subscription into a status that no simulated call leads to, and tell it as Stripe would."""
    tell(account, subscription, {"status": status})
    grants.recompute(account, subscription["customer"])


def _items_from(subscription: Json, start: int) -> Json:
    items: Json = copy.deepcopy(subscription["items"])
    for item in items["data"]:
        item.update(period(item["price"], start))
    return items


def _expire(account: Account, subscription: Json) -> None:
    tell(account, subscription, {"status": "incomplete_expired", "ended_at": account.clock.seconds})


def _cancel_as_asked(account: Account, subscription: Json) -> None:
    end(account, subscription)


def _warn_of_trial_end(account: Account, subscription: Json) -> None:
    events.record(account, "customer.subscription.trial_will_end", copy.deepcopy(subscription))


def _collect_again(account: Account, subscription: Json) -> None:
    tell(account, subscription, {"pause_collection": None})
    grants.recompute(account, subscription["customer"])
