"""The terms of a subscription: its trial, its card, when it is to end."""

import copy

from . import billing, errors, payment_methods
from .account import Account, Call, Json, merged_metadata


def begin(account: Account, subscription: Json, params: Json) -> None:
    """A trial, or the first charge. Raises the 402 that `error_if_incomplete` asks for."""
    now = account.clock.seconds
    if "default_payment_method" in params:
        subscription["default_payment_method"] = _card(account, subscription, params)
    trial_end = _trial_end(account, params)
    if trial_end is not None:
        subscription |= {"status": "trialing", "trial_start": now, "trial_end": trial_end}
        for item in subscription["items"]["data"]:
            item["current_period_end"] = trial_end
    elif params.get("payment_behavior") == "default_incomplete":
        subscription["status"] = "incomplete"
    elif payment_methods.charge_fails(account, subscription):
        if params.get("payment_behavior") == "error_if_incomplete":
            raise errors.card_declined()
        subscription["status"] = "incomplete"
    subscription["trial_settings"] = params.get("trial_settings", subscription["trial_settings"])
    subscription.update(cancellation(account, subscription, params))


def move_trial_end(account: Account, subscription: Json, call: Call) -> None:
    if call.params["trial_end"] == "now":
        if subscription["status"] == "trialing":
            billing.end_trial(account, subscription, call)
        return
    trial_end = _trial_end(account, call.params)
    items = copy.deepcopy(subscription["items"])
    for item in items["data"]:
        item["current_period_end"] = trial_end
    billing.tell(account, subscription, {"status": "trialing", "trial_end": trial_end, "items": items}, call)


def changes(account: Account, subscription: Json, params: Json) -> Json:
    """What a call changes of them, apart from items, cancellation and the trial's end."""
    changed = {key: value or None for key, value in params.items() if key == "description"}
    if "metadata" in params:
        changed["metadata"] = merged_metadata(subscription["metadata"], params["metadata"])
    if "default_payment_method" in params:
        changed["default_payment_method"] = _card(account, subscription, params)
    if "trial_settings" in params:
        changed["trial_settings"] = params["trial_settings"]
    if "pause_collection" in params:
        given = params["pause_collection"]
        changed["pause_collection"] = {"resumes_at": None, **given} if given else None
    return changed


def cancellation(account: Account, subscription: Json, params: Json) -> Json:
    """What `cancel_at_period_end` or `cancel_at` change. Access stays until that second."""
    if "cancel_at_period_end" not in params and "cancel_at" not in params:
        return {"cancel_at": billing.period_end(subscription)} if subscription["cancel_at_period_end"] else {}
    if params.get("cancel_at_period_end") and params.get("cancel_at"):
        raise errors.parameter_invalid("You may only set one of cancel_at_period_end and cancel_at.", "cancel_at")
    at_period_end = params.get("cancel_at_period_end", False)
    at = billing.period_end(subscription) if at_period_end else params.get("cancel_at") or None
    if at is not None and at <= account.clock.seconds:
        raise errors.parameter_invalid("cancel_at must be in the future.", "cancel_at")
    reason = None if at is None else "cancellation_requested"
    return {
        "cancel_at": at,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if at is None else account.clock.seconds,
        "cancellation_details": subscription["cancellation_details"] | {"reason": reason},
    }


def _trial_end(account: Account, params: Json) -> int | None:
    now = account.clock.seconds
    given = params.get("trial_end")
    if given not in (None, "now"):
        if given <= now:
            raise errors.parameter_invalid("trial_end must be in the future.", "trial_end")
        return int(given)
    days: int = params.get("trial_period_days", 0)
    return now + days * 86_400 if days and given is None else None


def _card(account: Account, subscription: Json, params: Json) -> str:
    name = params["default_payment_method"]
    return payment_methods.check(account, subscription["customer"], name, param="default_payment_method")
