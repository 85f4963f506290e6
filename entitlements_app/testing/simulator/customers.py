from . import billing, events, paging, payment_methods
from .account import Account, Call, Json, changed, merged_metadata


def create_customer(account: Account, call: Call) -> Json:
    params = call.params
    customer: Json = {
        "id": account.identifiers.short("cus"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": account.clock.seconds,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": params.get("description") or None,
        "discount": None,
        "email": params.get("email") or None,
        "invoice_prefix": account.identifiers.short("inv")[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": account.livemode,
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "name": params.get("name") or None,
        "next_invoice_sequence": 1,
        "phone": params.get("phone") or None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    account.customers[customer["id"]] = customer
    events.record(account, "customer.created", dict(customer), call=call)
    return customer


def list_customers(account: Account, call: Call) -> Json:
    params = call.params

    def keep(customer: Json) -> bool:
        return (
            not customer.get("deleted")
            and params.get("email", customer["email"]) == customer["email"]
            and paging.created_matches(customer, params.get("created"))
        )

    rows = account.customers.values()
    return paging.page(rows, params, url="/v1/customers", kind="customer", keep=keep)


def list_sources(account: Account, call: Call) -> Json:
    """None: cards are payment methods here."""
    customer = account.find(account.customers, "customer", call.ids[0], param="customer")
    return paging.page([], call.params, url=f"/v1/customers/{customer['id']}/sources", kind="source")


def retrieve_customer(account: Account, call: Call) -> Json:
    """A deleted customer is still found: `{id, object, deleted}` with status 200."""
    held = account.customers.get(call.ids[0], {})
    return held if held.get("deleted") else account.find(account.customers, "customer", call.ids[0], param="customer")


def update_customer(account: Account, call: Call) -> Json:
    customer = account.find(account.customers, "customer", call.ids[0], param="customer")
    changes = {key: None if value == "" else value for key, value in call.params.items()}
    if "invoice_settings" in changes:
        changes["invoice_settings"] = customer["invoice_settings"] | _invoice_settings(account, customer, call.params)
    if "metadata" in changes:
        changes["metadata"] = merged_metadata(customer["metadata"], call.params["metadata"])
    previous = changed(customer, changes)
    if previous:
        events.record(account, "customer.updated", dict(customer), previous=previous, call=call)
    return customer


def _invoice_settings(account: Account, customer: Json, params: Json) -> Json:
    given: Json = params["invoice_settings"]
    if name := given.get("default_payment_method"):
        param = "invoice_settings[default_payment_method]"
        payment_methods.check(account, customer["id"], name, param=param)
    return given


def delete_customer(account: Account, call: Call) -> Json:
    """Subscriptions end with their customer; `customer.deleted` shows the customer as it was."""
    customer = account.find(account.customers, "customer", call.ids[0], param="customer")
    account.silent_about = None if account.switches.deletion_sends_summary else customer["id"]
    for subscription in list(account.subscriptions.values()):
        if subscription["customer"] == customer["id"] and subscription["status"] not in billing.ENDED:
            billing.end(account, subscription)
    account.silent_about = None
    gone: Json = {"id": customer["id"], "object": "customer", "deleted": True}
    account.customers[customer["id"]] = gone
    events.record(account, "customer.deleted", customer, call=call)
    return gone
