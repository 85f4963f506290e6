"""The Stripe account that the API key is of. There are no others: none is connected to it.

Written from Stripe's public documentation and not compared with an answer of Stripe: a platform's own account, with the
fields that do not depend on its business.
"""

from . import errors, paging
from .account import Account, Call, Json

NAME = "Simulated Stripe"


def retrieve_own_account(account: Account, _: Call) -> Json:
    return {
        "id": account.id,
        "object": "account",
        "business_profile": {
            "mcc": None,
            "name": NAME,
            "product_description": None,
            "support_address": None,
            "support_email": None,
            "support_phone": None,
            "support_url": None,
            "url": None,
        },
        "business_type": None,
        "capabilities": {},
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "settings": {
            "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
            "dashboard": {"display_name": NAME, "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        "type": "standard",
    }


def retrieve_account(account: Account, call: Call) -> Json:
    """Only the own one. Raises the 403 that Stripe answers for an account that is not connected."""
    if call.ids[0] != account.id:
        raise errors.no_access_to_account("", call.ids[0])
    return retrieve_own_account(account, call)


def list_connected_accounts(_: Account, call: Call) -> Json:
    return paging.page([], call.params, url="/v1/accounts", kind="account")
