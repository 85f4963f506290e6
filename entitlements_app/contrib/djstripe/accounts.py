"""Which Stripe account is the site's own: dj-stripe keeps rows of several, and this app's key is of one."""

from __future__ import annotations

from typing import Any

from djstripe.models import Account, APIKey
from djstripe.settings import djstripe_settings

from entitlements_app import conf


def own_account() -> str | None:
    """The id of the account whose API key this app uses, as dj-stripe knows it; `None` if it does not."""
    keys = [conf.stripe_api_key(), djstripe_settings.get_default_api_key(conf.livemode())]
    rows = APIKey.objects.filter(secret__in=[key for key in keys if key]).exclude(djstripe_owner_account=None)
    owners = dict(rows.values_list("secret", "djstripe_owner_account__id"))
    return next((owners[key] for key in keys if key in owners), None)


def owner_of(row: Any) -> str | None:
    """The id of the account that dj-stripe knows a row of its own to be of; `None` if it does not know.

    On sites since before dj-stripe 2.4 foreign keys hold its own numbers: DJSTRIPE_FOREIGN_KEY_TO_FIELD.
    """
    owner: str | None = row.djstripe_owner_account_id
    is_id = row._meta.get_field("djstripe_owner_account").target_field is Account._meta.get_field("id")
    if owner is not None and not is_id:
        owner = row.djstripe_owner_account.id
    return owner


def is_own_account(account: str | None) -> bool:
    """Whether it is the own one. None at all is, and any if nobody knows which is the own."""
    return account is None or own_account() in (None, account)


def is_own(row: Any) -> bool:
    """Whether a row of dj-stripe's is of the own account."""
    return is_own_account(owner_of(row))
