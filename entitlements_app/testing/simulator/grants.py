"""Who is entitled to what: computed from subscriptions, told by summary events.

A subscription grants the features its products had when its items were last set. Attaching or detaching a
feature later changes nothing for it until `snapshot_features` is called again, as at Stripe.
"""

import copy
from collections.abc import Collection

from . import errors, events, paging
from .account import Account, Call, Json

URL = "/v1/entitlements/active_entitlements"
GRANTING = frozenset({"trialing", "active", "past_due", "paused"})


def snapshot_features(account: Account, subscription: Json) -> None:
    """Fix what this subscription grants from now on: the features its products have at this moment."""
    products = [item["price"]["product"] for item in subscription["items"]["data"]]
    attached = [feature for product in products for feature in account.product_features.get(product, {}).values()]
    account.subscription_features[subscription["id"]] = list(dict.fromkeys(attached))


def recompute(account: Account, customer: str, *, reissued: Collection[str] = ()) -> None:
    """Make the customer's active entitlements follow from its subscriptions; tell it if that changed them.

    `reissued` are features whose entitlement gets a new id even if it stays: Stripe does that when a
    subscription changes its plan.
    """
    held = account.entitlements.get(customer, {})
    kept = {feature: entitlement for feature, entitlement in held.items() if feature not in reissued}
    wanted = {feature: kept.get(feature) or _entitlement(account, feature) for feature in _granted(account, customer)}
    if wanted == held:
        return
    account.entitlements[customer] = wanted
    _record_summary(account, customer, before=list(held.values())[::-1])


def _granted(account: Account, customer: str) -> list[str]:
    granting = [row["id"] for row in account.subscriptions.values() if _grants_to(row, customer)]
    return list(dict.fromkeys(feature for row in granting for feature in account.subscription_features[row]))


def features_of_others(account: Account, subscription: Json) -> set[str]:
    """Features that the customer's other subscriptions grant as well."""
    return {
        feature
        for name, other in account.subscriptions.items()
        if name != subscription["id"] and _grants_to(other, subscription["customer"])
        for feature in account.subscription_features[name]
    }


def _grants_to(subscription: Json, customer: str) -> bool:
    return subscription["customer"] == customer and subscription["status"] in GRANTING


def _entitlement(account: Account, feature: str) -> Json:
    return {
        "id": account.identifiers.active_entitlement(),
        "object": "entitlements.active_entitlement",
        "feature": feature,
        "livemode": account.livemode,
        "lookup_key": account.features[feature]["lookup_key"],
    }


def _record_summary(account: Account, customer: str, *, before: list[Json]) -> None:
    """The inline list is cut, newest first; `previous_attributes` carries the old list in full."""
    now = list(account.entitlements[customer].values())[::-1]
    limit = account.switches.inline_limit
    summary = {
        "object": "entitlements.active_entitlement_summary",
        "customer": customer,
        "entitlements": {
            "object": "list",
            "data": now[:limit],
            "has_more": len(now) > limit,
            "url": f"/v1/customer/{customer}/entitlements",
        },
        "livemode": account.livemode,
    }
    previous = {"entitlements": {"data": before}}
    events.record(account, events.SUMMARY_UPDATED, copy.deepcopy(summary), previous=copy.deepcopy(previous))


def list_active_entitlements(account: Account, call: Call) -> Json:
    customer = call.params["customer"]
    _check_customer(account, customer)
    rows = account.entitlements.get(customer, {}).values()
    return paging.page(rows, call.params, url=URL, kind="active_entitlement")


def _check_customer(account: Account, customer: str) -> None:
    row = account.customers.get(customer)
    switches = account.switches
    if row is None and switches.missing_customer != "empty":
        status = int(switches.missing_customer)
        raise errors.resource_missing("customer", customer, param="customer", status=status)
    if row is not None and row.get("deleted") and switches.deleted_customer == "error":
        raise errors.resource_missing("customer", customer, param="customer")


def retrieve_active_entitlement(account: Account, call: Call) -> Json:
    for held in account.entitlements.values():
        for entitlement in held.values():
            if entitlement["id"] == call.ids[0]:
                return entitlement
    raise errors.resource_missing("active_entitlement", call.ids[0], param="id", status=404)
