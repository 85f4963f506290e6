"""Who is entitled to what: computed from subscriptions, told by summary events.

A subscription grants the features its products had when its items were last set. Attaching or detaching a
feature later changes nothing for it until `snapshot_features` is called again, as at Stripe.
"""

import copy
from collections.abc import Collection

from . import errors, events, paging
from .account import Account, Call, Granted, Json

URL = "/v1/entitlements/active_entitlements"


def snapshot_features(account: Account, subscription: Json) -> None:
    """Fix what this subscription grants from now on: the features its products have at this moment."""
    products = [item["price"]["product"] for item in subscription["items"]["data"]]
    attached = account.product_features
    granted = [(feature, product) for product in products for feature in attached.get(product, {}).values()]
    account.subscription_features[subscription["id"]] = list(dict.fromkeys(granted))


def recompute(account: Account, customer: str, *, reissued: Collection[str] = ()) -> None:
    """Make the customer's active entitlements follow from its subscriptions; tell it if that changed them.

    `reissued` are features whose entitlement gets a new id even if it stays: Stripe does that when a
    subscription changes its plan.
    """
    held = account.entitlements.get(customer, {})
    kept = {granted: entitlement for granted, entitlement in held.items() if granted[0] not in reissued}
    wanted = {
        granted: kept.get(granted) or _entitlement(account, granted[0]) for granted in _granted(account, customer)
    }
    if wanted == held:
        return
    account.entitlements[customer] = wanted
    account.history.setdefault(customer, []).append((account.clock.now(), list(wanted.values())))
    _record_summary(account, customer, before=list(held.values())[::-1])


def _granted(account: Account, customer: str) -> list[Granted]:
    """Once for each feature, or for each product that has it; then no product is named."""
    granting = [row["id"] for row in account.subscriptions.values() if _grants_to(account, row, customer)]
    granted = [pair for row in granting for pair in account.subscription_features[row]]
    if not account.switches.entitlement_per_product:
        granted = [(feature, "") for feature, _ in granted]
    return list(dict.fromkeys(granted))


def features_of_others(account: Account, subscription: Json) -> set[str]:
    """Features that the customer's other subscriptions grant as well."""
    return {
        feature
        for name, other in account.subscriptions.items()
        if name != subscription["id"] and _grants_to(account, other, subscription["customer"])
        for feature, _ in account.subscription_features[name]
    }


def _grants_to(account: Account, subscription: Json, customer: str) -> bool:
    switches = account.switches
    return (
        subscription["customer"] == customer
        and subscription["status"] in switches.granting
        and (switches.pause_collection_grants or subscription["pause_collection"] is None)
    )


def _entitlement(account: Account, feature: str) -> Json:
    return {
        "id": account.identifiers.active_entitlement(),
        "object": "entitlements.active_entitlement",
        "feature": feature,
        "livemode": account.livemode,
        "lookup_key": account.features[feature]["lookup_key"],
    }


def _record_summary(account: Account, customer: str, *, before: list[Json]) -> None:
    """The inline list is cut, newest first; `previous_attributes` has the old list, in full unless it is cut too."""
    if customer == account.silent_about:
        return
    now = list(account.entitlements[customer].values())[::-1]
    limit = account.distortions.inline_limit
    before = before[:limit] if account.switches.previous_is_cut else before
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
    return _page(account, customer, call, URL)


def list_by_nested_url(account: Account, call: Call) -> Json:
    """The URL that summaries name. Whether it answers nobody knows."""
    path = f"/v1/customer/{call.ids[0]}/entitlements"
    if not account.switches.nested_url_answers:
        raise errors.unrecognized_url("GET", path)
    _check_customer(account, call.ids[0])
    return _page(account, call.ids[0], call, path)


def _page(account: Account, customer: str, call: Call, url: str) -> Json:
    rows = _as_listed(account, customer)
    if account.switches.list_order == "oldest":
        rows.reverse()
    return account.show(paging.page(rows, call.params, url=url, kind="active_entitlement"))


def _as_listed(account: Account, customer: str) -> list[Json]:
    """What the list shows, which may lag behind."""
    seen_at = account.clock.now() - account.distortions.list_lag
    for at, rows in reversed(account.history.get(customer, [])):
        if at <= seen_at:
            return list(rows)
    return []


def _check_customer(account: Account, customer: str) -> None:
    row = account.customers.get(customer)
    switches = account.switches
    if row is None and switches.missing_customer != "empty":
        status = int(switches.missing_customer)
        raise account.missing("customer", customer, param="customer", status=status)
    if row is not None and row.get("deleted") and switches.deleted_customer == "error":
        raise errors.resource_missing("customer", customer, param="customer")


def retrieve_active_entitlement(account: Account, call: Call) -> Json:
    for held in account.entitlements.values():
        for entitlement in held.values():
            if entitlement["id"] == call.ids[0]:
                return entitlement
    raise errors.resource_missing("active_entitlement", call.ids[0], param="id", status=404)
