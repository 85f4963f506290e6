"""Stripe's test cards. Money is always there, unless the card that would pay is one of those that fail."""

from . import errors, paging
from .account import Account, Call, Json

CHARGES_FAIL = "pm_card_chargeCustomerFail"
DECLINED = "pm_card_chargeDeclined"


def attach_payment_method(account: Account, call: Call) -> Json:
    """`pm_card_visa` and the like become a card of this customer's. A declined one is a 402."""
    token = call.ids[0]
    customer = account.find(account.customers, "customer", call.params["customer"], param="customer", status=400)
    if token == DECLINED:
        raise errors.card_declined()
    if not token.startswith("pm_card_"):
        raise errors.resource_missing("PaymentMethod", token, param="payment_method", status=404)
    card: Json = {
        "id": account.identifiers.long("pm"),
        "object": "payment_method",
        "card": {"brand": token.removeprefix("pm_card_"), "last4": "4242"},
        "created": account.clock.seconds,
        "customer": customer["id"],
        "livemode": account.livemode,
        "metadata": {},
        "type": "card",
    }
    account.payment_methods[card["id"]] = card
    if token == CHARGES_FAIL:
        account.failing_cards.add(card["id"])
    return card


def list_payment_methods(account: Account, call: Call) -> Json:
    params = call.params

    def keep(card: Json) -> bool:
        return all(params.get(name, card[name]) == card[name] for name in ("customer", "type"))

    rows = account.payment_methods.values()
    return paging.page(rows, params, url="/v1/payment_methods", kind="PaymentMethod", keep=keep)


def retrieve_payment_method(account: Account, call: Call) -> Json:
    return account.find(account.payment_methods, "PaymentMethod", call.ids[0], param="payment_method")


def check(account: Account, customer: str, name: str, *, param: str) -> str:
    """The id, if it is a card of that customer's. Raises the 400 of Stripe otherwise."""
    card = account.find(account.payment_methods, "PaymentMethod", name, param=param, status=400)
    if card["customer"] != customer:
        raise errors.parameter_invalid("The payment method belongs to another customer.", param)
    return name


def is_on_file(account: Account, subscription: Json) -> bool:
    return _card(account, subscription) is not None


def charge_fails(account: Account, subscription: Json) -> bool:
    return _card(account, subscription) in account.failing_cards


def _card(account: Account, subscription: Json) -> str | None:
    customer = account.customers[subscription["customer"]]
    if customer.get("deleted"):
        return None
    card: str | None = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    return card
