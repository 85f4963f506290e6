"""Products and prices."""

from . import errors, events, paging
from .account import Account, Call, Json, changed, merged_metadata


def create_product(account: Account, call: Call) -> Json:
    now = account.clock.seconds
    params = call.params
    product = {
        "id": account.identifiers.short("prod"),
        "object": "product",
        "active": params.get("active", True),
        "created": now,
        "default_price": None,
        "description": params.get("description"),
        "images": [],
        "livemode": account.livemode,
        "marketing_features": params.get("marketing_features", []),
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "name": params["name"],
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": now,
        "url": None,
    }
    account.products[product["id"]] = product
    events.record(account, "product.created", dict(product), call=call)
    return product


def list_products(account: Account, call: Call) -> Json:
    params = call.params

    def keep(product: Json) -> bool:
        return (
            product["active"] is params.get("active", product["active"])
            and product["id"] in params.get("ids", [product["id"]])
            and paging.created_matches(product, params.get("created"))
        )

    rows = account.products.values()
    return account.show(paging.page(rows, params, url="/v1/products", kind="product", keep=keep))


def retrieve_product(account: Account, call: Call) -> Json:
    return account.find(account.products, "product", call.ids[0])


def update_product(account: Account, call: Call) -> Json:
    product = account.find(account.products, "product", call.ids[0])
    changes: Json = {key: None if value == "" else value for key, value in call.params.items()}
    if "metadata" in changes:
        changes["metadata"] = merged_metadata(product["metadata"], changes["metadata"] or "")
    if changes.get("marketing_features", []) is None:
        changes["marketing_features"] = []
    if "default_price" in changes:
        account.find(account.prices, "price", changes["default_price"], param="default_price", status=400)
    previous = changed(product, changes | {"updated": account.clock.seconds})
    events.record(account, "product.updated", dict(product), previous=previous, call=call)
    return product


def delete_product(account: Account, call: Call) -> Json:
    product = account.find(account.products, "product", call.ids[0])
    if any(price["product"] == product["id"] for price in account.prices.values()):
        raise errors.ApiError(400, "This product cannot be deleted because it has prices.")
    del account.products[product["id"]]
    account.product_features.pop(product["id"], None)
    events.record(account, "product.deleted", product, call=call)
    return {"id": product["id"], "object": "product", "deleted": True}


def create_price(account: Account, call: Call) -> Json:
    params = call.params
    product = account.find(account.products, "product", params["product"], param="product", status=400)
    amount = params.get("unit_amount")
    price = {
        "id": account.identifiers.long("price"),
        "object": "price",
        "active": params.get("active", True),
        "billing_scheme": "per_unit",
        "created": account.clock.seconds,
        "currency": params["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": account.livemode,
        "lookup_key": params.get("lookup_key"),
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "nickname": params.get("nickname"),
        "product": product["id"],
        "recurring": _recurring(params.get("recurring")),
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if "recurring" in params else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": None if amount is None else str(amount),
    }
    account.prices[price["id"]] = price
    events.record(account, "price.created", dict(price), call=call)
    return price


def _recurring(given: Json | None) -> Json | None:
    if given is None:
        return None
    return {
        "interval": given["interval"],
        "interval_count": given.get("interval_count", 1),
        "meter": None,
        "trial_period_days": None,
        "usage_type": "licensed",
    }


def list_prices(account: Account, call: Call) -> Json:
    params = call.params
    fields = [name for name in ("active", "currency", "product", "type") if name in params]

    def keep(price: Json) -> bool:
        return all(price[name] == params[name] for name in fields) and paging.created_matches(
            price, params.get("created")
        )

    return paging.page(account.prices.values(), params, url="/v1/prices", kind="price", keep=keep)


def retrieve_price(account: Account, call: Call) -> Json:
    return account.find(account.prices, "price", call.ids[0], param="price")
