"""API keys: the secret one that may do all, and restricted ones."""

from dataclasses import dataclass, field

from . import errors

_SUBJECTS = {
    "account": "accounts_kyc_basic",
    "accounts": "accounts_kyc_basic",
    "entitlements": "entitlement",
    "products": "product",
    "prices": "plan",
    "customers": "customer",
    "customer": "entitlement",
    "payment_methods": "payment_method",
    "subscriptions": "subscription",
    "subscription_items": "subscription",
    "events": "event",
    "webhook_endpoints": "webhook",
}


@dataclass
class Keys:
    """`restricted` maps a key to its permissions, such as `entitlement_read`; write includes read."""

    secret: str
    account: str
    restricted: dict[str, frozenset[str]] = field(default_factory=dict)

    def check(self, key: str, account: str | None, method: str, path: str) -> None:
        """Raises ApiError: 401 for a key that is none, 403 for what it may not do."""
        if key != self.secret and key not in self.restricted:
            raise errors.invalid_key(key)
        if account is not None and account != self.account:
            raise errors.no_access_to_account(key, account)
        if key != self.secret:
            self._check_permission(key, method, path)

    def _check_permission(self, key: str, method: str, path: str) -> None:
        subject = _SUBJECTS.get([*path.split("/"), "", "", ""][2])
        if subject is None:  # no such URL, which is told next
            return
        read, write = f"{subject}_read", f"{subject}_write"
        needed = read if method == "GET" else write
        if not self.restricted[key] & {needed, write}:
            raise errors.permission_denied(key, self.account, needed)
