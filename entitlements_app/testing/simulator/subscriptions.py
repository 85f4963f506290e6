"""The calls about subscriptions. What happens to one by itself is in `billing`."""

import copy

from . import billing, errors, events, grants, paging, terms
from .account import INLINE_LIMIT, Account, Call, Json, merged_metadata
from .billing import ENDED


def create_subscription(account: Account, call: Call) -> Json:
    params = call.params
    customer = account.find(account.customers, "customer", params["customer"], param="customer", status=400)
    subscription = _new_subscription(account, customer["id"], params)
    items = [_new_item(account, subscription, item, index) for index, item in enumerate(params["items"])]
    _set_items(subscription, items)
    subscription["currency"] = items[0]["price"]["currency"]
    customer["currency"] = subscription["currency"]
    terms.begin(account, subscription, params)
    account.subscriptions[subscription["id"]] = subscription
    grants.snapshot_features(account, subscription)
    events.record(account, "customer.subscription.created", copy.deepcopy(subscription), call=call)
    grants.recompute(account, customer["id"])
    return _shown(subscription)


def _shown(subscription: Json) -> Json:
    """As an answer has it: of the items only the first ones, the rest at `/v1/subscription_items`."""
    items = subscription["items"]
    is_cut = len(items["data"]) > INLINE_LIMIT
    return subscription | {"items": items | {"data": items["data"][:INLINE_LIMIT], "has_more": is_cut}}


def _new_subscription(account: Account, customer: str, params: Json) -> Json:
    now = account.clock.seconds
    name = account.identifiers.long("sub")
    return {
        "id": name,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_mode": {"type": "classic"},
        "billing_schedules": [],
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": "usd",
        "customer": customer,
        "days_until_due": None,
        "default_payment_method": None,
        "description": params.get("description"),
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": [],
            "has_more": False,
            "total_count": 0,
            "url": f"/v1/subscription_items?subscription={name}",
        },
        "latest_invoice": None,
        "livemode": account.livemode,
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "pause_collection": None,
        "schedule": None,
        "start_date": now,
        "status": "active",
        "test_clock": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }


def _new_item(account: Account, subscription: Json, given: Json, index: int) -> Json:
    if "price" not in given:
        raise errors.parameter_missing(f"items[{index}][price]")
    price = _recurring_price(account, given["price"], index)
    now = account.clock.seconds
    return {
        "id": account.identifiers.short("si"),
        "object": "subscription_item",
        "created": now,
        **billing.period(price, now),
        "discounts": [],
        "metadata": merged_metadata({}, given.get("metadata", {})),
        "price": copy.deepcopy(price),
        "quantity": given.get("quantity", 1),
        "subscription": subscription["id"],
        "tax_rates": [],
    }


def _recurring_price(account: Account, name: str, index: int) -> Json:
    param = f"items[{index}][price]"
    price = account.find(account.prices, "price", name, param=param, status=400)
    if price["type"] != "recurring":
        raise errors.parameter_invalid("A subscription takes only prices with type=recurring.", param)
    if not price["active"]:
        raise errors.parameter_invalid("The price specified is inactive.", param)
    return price


def _set_items(subscription: Json, items: list[Json]) -> None:
    prices = [item["price"]["id"] for item in items]
    if not prices:
        raise errors.parameter_invalid("A subscription must have at least one item.", "items")
    if len(prices) != len(set(prices)):
        raise errors.parameter_invalid("Cannot add several items with the same price.", "items")
    if len({billing.length(item["price"]) for item in items}) > 1:
        raise errors.parameter_invalid("All prices of a subscription must have the same interval.", "items")
    subscription["items"] |= {"data": items, "total_count": len(items)}


def list_subscriptions(account: Account, call: Call) -> Json:
    params = call.params

    def keep(subscription: Json) -> bool:
        prices = {item["price"]["id"] for item in subscription["items"]["data"]}
        return (
            params.get("customer", subscription["customer"]) == subscription["customer"]
            and ("price" not in params or params["price"] in prices)
            and _status_matches(subscription["status"], params.get("status"))
            and paging.created_matches(subscription, params.get("created"))
        )

    rows = account.subscriptions.values()
    page = account.show(paging.page(rows, params, url="/v1/subscriptions", kind="subscription", keep=keep))
    return page | {"data": [_shown(row) for row in page["data"]]}


def _status_matches(status: str, wanted: str | None) -> bool:
    if wanted is None:
        return status != "canceled"
    if wanted == "ended":
        return status in ENDED
    return wanted in ("all", status)


def retrieve_subscription(account: Account, call: Call) -> Json:
    return _shown(account.find(account.subscriptions, "subscription", call.ids[0], param="id"))


def list_subscription_items(account: Account, call: Call) -> Json:
    name = call.params["subscription"]
    subscription = account.find(account.subscriptions, "subscription", name, param="subscription")
    rows = subscription["items"]["data"]
    return paging.page(rows, call.params, url="/v1/subscription_items", kind="subscription_item")


def update_subscription(account: Account, call: Call) -> Json:
    """New items take effect at once: features are looked up anew and kept ones get new entitlement ids."""
    subscription = account.find(account.subscriptions, "subscription", call.ids[0], param="id")
    if subscription["status"] in ENDED:
        raise errors.ApiError(400, "A canceled subscription can only update its cancellation_details.")
    before = copy.deepcopy(subscription)
    if "items" in call.params:
        _change_items(account, subscription, call.params["items"])
    subscription.update(terms.changes(account, subscription, call.params))
    subscription.update(terms.cancellation(account, subscription, call.params))
    _announce_update(account, subscription, before, call)
    if "items" in call.params:
        _apply_items(account, subscription, before)
    if "trial_end" in call.params:
        terms.move_trial_end(account, subscription, call)
    grants.recompute(account, subscription["customer"])
    return _shown(subscription)


def resume_subscription(account: Account, call: Call) -> Json:
    """A paused one goes on, with a new period. Raises 400 for any other."""
    subscription = account.find(account.subscriptions, "subscription", call.ids[0], param="id")
    if subscription["status"] != "paused":
        raise errors.ApiError(400, "Only a paused subscription can be resumed.")
    billing.resume(account, subscription, call)
    return _shown(subscription)


def _change_items(account: Account, subscription: Json, given: list[Json]) -> None:
    items = {item["id"]: copy.deepcopy(item) for item in subscription["items"]["data"]}
    for index, change in enumerate(given):
        if "id" not in change:
            item = _new_item(account, subscription, change, index)
            items[item["id"]] = item
            continue
        if change["id"] not in items:
            raise errors.resource_missing("subscription_item", change["id"], param=f"items[{index}][id]")
        if change.get("deleted"):
            del items[change["id"]]
        else:
            _change_item(account, items[change["id"]], change, index)
    _set_items(subscription, list(items.values()))


def _change_item(account: Account, item: Json, change: Json, index: int) -> None:
    if "price" in change:
        before, item["price"] = item["price"], copy.deepcopy(_recurring_price(account, change["price"], index))
        in_trial = account.subscriptions[item["subscription"]]["status"] == "trialing"
        if billing.length(before) != billing.length(item["price"]) and not in_trial:
            item.update(billing.period(item["price"], account.clock.seconds))
    item["quantity"] = change.get("quantity", item["quantity"])
    if "metadata" in change:
        item["metadata"] = merged_metadata(item["metadata"], change["metadata"])


def _announce_update(account: Account, subscription: Json, before: Json, call: Call | None) -> None:
    previous = {key: value for key, value in before.items() if value != subscription[key]}
    if previous:
        current = copy.deepcopy(subscription)
        events.record(account, "customer.subscription.updated", current, previous=previous, call=call)


def _apply_items(account: Account, subscription: Json, before: Json) -> None:
    grants.snapshot_features(account, subscription)
    reissued: set[str] = set()
    if _prices(before) != _prices(subscription):
        own = {feature for feature, _ in account.subscription_features[subscription["id"]]}
        reissued = own - grants.features_of_others(account, subscription)
    grants.recompute(account, subscription["customer"], reissued=reissued)


def _prices(subscription: Json) -> set[str]:
    return {item["price"]["id"] for item in subscription["items"]["data"]}


def cancel_subscription(account: Account, call: Call) -> Json:
    subscription = account.find(account.subscriptions, "subscription", call.ids[0], param="id")
    if subscription["status"] in ENDED:
        raise errors.resource_missing("subscription", call.ids[0], param="id", status=404)
    subscription["cancellation_details"] |= {"reason": "cancellation_requested"}
    subscription["cancellation_details"] |= call.params.get("cancellation_details", {})
    billing.end(account, subscription, call)
    return _shown(subscription)
