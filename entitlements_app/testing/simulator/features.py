"""Features, and their attachment to products."""

from . import errors, events, paging
from .account import Account, Call, Json, merged_metadata

FEATURES_URL = "/v1/entitlements/features"


def create_feature(account: Account, call: Call) -> Json:
    params = call.params
    if any(row["active"] and row["lookup_key"] == params["lookup_key"] for row in account.features.values()):
        raise errors.parameter_invalid("A feature with this lookup_key already exists.", "lookup_key")
    feature = {
        "id": account.identifiers.feature(),
        "object": "entitlements.feature",
        "active": True,
        "livemode": account.livemode,
        "lookup_key": params["lookup_key"],
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "name": params["name"],
    }
    account.features[feature["id"]] = feature
    return feature


def list_features(account: Account, call: Call) -> Json:
    """Without `archived` the active ones, or as `archived_in_list` says."""
    params = call.params
    both = "archived" not in params and account.switches.archived_in_list

    def keep(feature: Json) -> bool:
        if params.get("lookup_key", feature["lookup_key"]) != feature["lookup_key"]:
            return False
        return both or bool(feature["active"]) is not params.get("archived", False)

    return account.show(paging.page(account.features.values(), params, url=FEATURES_URL, kind="feature", keep=keep))


def retrieve_feature(account: Account, call: Call) -> Json:
    return account.find(account.features, "feature", call.ids[0])


def update_feature(account: Account, call: Call) -> Json:
    """Archiving is `active=false`, and it is final: no update is taken after it."""
    feature = account.find(account.features, "feature", call.ids[0])
    if not feature["active"]:
        raise errors.ApiError(400, "This feature is archived and cannot be updated.")
    changes = dict(call.params)
    if "metadata" in changes:
        changes["metadata"] = merged_metadata(feature["metadata"], changes["metadata"])
    feature.update(changes)
    return feature


def attach_feature(account: Account, call: Call) -> Json:
    product = account.find(account.products, "product", call.ids[0], param="product")
    wanted = call.params["entitlement_feature"]
    feature = account.find(account.features, "feature", wanted, param="entitlement_feature", status=400)
    if not feature["active"]:
        message = "This feature is archived and cannot be attached to a product."
        raise errors.parameter_invalid(message, "entitlement_feature")
    attached = account.product_features.setdefault(product["id"], {})
    if feature["id"] in attached.values():
        message = "This feature is already attached to this product."
        raise errors.parameter_invalid(message, "entitlement_feature")
    attachment = account.identifiers.long("prodft")
    attached[attachment] = feature["id"]
    if account.switches.product_updated_on_attach:
        events.record(account, "product.updated", dict(product), previous={}, call=call)
    return _product_feature(account, attachment, feature["id"])


def list_product_features(account: Account, call: Call) -> Json:
    product = account.find(account.products, "product", call.ids[0], param="product")
    attached = account.product_features.get(product["id"], {})
    rows = [_product_feature(account, *pair) for pair in attached.items()]
    url = f"/v1/products/{product['id']}/features"
    return account.show(paging.page(rows, call.params, url=url, kind="product feature"))


def retrieve_product_feature(account: Account, call: Call) -> Json:
    return _product_feature(account, call.ids[1], _attached_feature(account, call))


def detach_feature(account: Account, call: Call) -> Json:
    _attached_feature(account, call)
    del account.product_features[call.ids[0]][call.ids[1]]
    return {"id": call.ids[1], "object": "product_feature", "deleted": True}


def _attached_feature(account: Account, call: Call) -> str:
    product, attachment = call.ids
    account.find(account.products, "product", product, param="product")
    feature = account.product_features.get(product, {}).get(attachment)
    if feature is None:
        raise errors.resource_missing("product feature", attachment, param="id", status=404)
    return feature


def _product_feature(account: Account, attachment: str, feature: str) -> Json:
    return {
        "id": attachment,
        "object": "product_feature",
        "entitlement_feature": account.features[feature],
        "livemode": account.livemode,
    }
