import re
from typing import Any

from . import errors, paging
from .account import API_VERSION, Account, Call, Json

SUMMARY_UPDATED = "entitlements.active_entitlement_summary.updated"
KEPT_SECONDS = 30 * 24 * 60 * 60
MOST_TYPES = 20


def record(
    account: Account, event_type: str, subject: Json, *, previous: Json | None = None, call: Call | None = None
) -> Json:
    """Keep the event and hand it to whoever delivers it. Without a call Stripe itself caused it."""
    data: dict[str, Any] = {"object": subject}
    if previous is not None:
        data["previous_attributes"] = previous
    event: Json = {
        "id": account.identifiers.long("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": _created(account, event_type),
        "data": data,
        "livemode": account.livemode,
        "pending_webhooks": 0,
        "request": {
            "id": call.request_id if call else None,
            "idempotency_key": call.idempotency_key if call else None,
        },
        "type": event_type,
    }
    account.events[event["id"]] = event
    account.recorded_at[event["id"]] = account.clock.now()
    if account.on_event is not None:
        account.on_event(event)
    return event


def _created(account: Account, event_type: str) -> int:
    faults = account.distortions
    now = account.clock.seconds
    if event_type != SUMMARY_UPDATED:
        return now
    if faults.shift_left:
        faults.shift_left -= 1
        return now + faults.shift
    if faults.same_second_left == 0:
        return now
    created = faults.same_second = now if faults.same_second is None else faults.same_second
    faults.same_second_left -= 1
    if faults.same_second_left == 0:
        faults.same_second = None
    return created


def type_matches(event_type: str, pattern: str) -> bool:
    """`*` stands for any text, as in `customer.subscription.*`."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), event_type) is not None


def list_events(account: Account, call: Call) -> Json:
    params = call.params
    patterns = _wanted_types(params)
    oldest = account.clock.seconds - KEPT_SECONDS

    def keep(event: Json) -> bool:
        return (
            (not patterns or any(type_matches(event["type"], pattern) for pattern in patterns))
            and paging.created_matches(event, params.get("created"))
            and params.get("delivery_success") in (None, event["pending_webhooks"] == 0)
        )

    newest = account.clock.now() - account.distortions.events_lag
    rows = [
        event
        for name, event in account.events.items()
        if event["created"] >= oldest and account.recorded_at[name] <= newest
    ]
    return paging.page(rows, params, url="/v1/events", kind="event", keep=keep)


def _wanted_types(params: Json) -> list[str]:
    if "type" in params and "types" in params:
        raise errors.parameter_invalid("You may only specify one of these parameters: type, types.", "type")
    types: list[str] = params.get("types", [])
    if len(types) > MOST_TYPES:
        raise errors.parameter_invalid(f"You can list at most {MOST_TYPES} types.", "types")
    return [params["type"]] if "type" in params else types


def retrieve_event(account: Account, call: Call) -> Json:
    event = account.find(account.events, "event", call.ids[0])
    if event["created"] < account.clock.seconds - KEPT_SECONDS:
        raise errors.resource_missing("event", call.ids[0], param="id", status=404)
    return event
