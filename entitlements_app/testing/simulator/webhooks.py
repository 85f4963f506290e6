"""Webhook endpoints, and what is sent to them: the body, its signature, its headers."""

import hashlib
import hmac
import ipaddress
import json
import re
from urllib.parse import urlsplit

from . import errors, paging
from .account import API_VERSION, Account, Call, Json, merged_metadata

MOST_ENDPOINTS = 16
_BAD_PORT = "its port is no number from 1 to 65535"
_EVENT_TYPE = re.compile(r"\*|[a-z0-9_]+(\.[a-z0-9_]+)+")


def is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def create_endpoint(account: Account, call: Call) -> Json:
    if call.params.get("connect"):  # for the events of other accounts, and there are none
        raise errors.not_simulated("connect")
    return add_endpoint(account, call.params, secret=account.identifiers.secret())


def add_endpoint(account: Account, params: Json, *, secret: str) -> Json:
    """The answer carries the secret; no later one does."""
    _check_endpoint(params)
    if len(account.webhook_endpoints) >= MOST_ENDPOINTS:
        raise errors.ApiError(400, f"You have reached the maximum of {MOST_ENDPOINTS} webhook endpoints.")
    endpoint = {
        "id": account.identifiers.long("we"),
        "object": "webhook_endpoint",
        "api_version": params.get("api_version", API_VERSION),
        "application": None,
        "created": account.clock.seconds,
        "description": params.get("description") or None,
        "enabled_events": list(params["enabled_events"]),
        "livemode": account.livemode,
        "metadata": merged_metadata({}, params.get("metadata", {})),
        "status": "enabled",
        "url": params["url"],
    }
    account.webhook_endpoints[endpoint["id"]] = endpoint
    account.endpoint_secrets[endpoint["id"]] = secret
    return endpoint | {"secret": secret}


def _check_endpoint(params: Json) -> None:
    """Nothing is ever sent to another machine, whoever asks for it."""
    if "url" in params and (obstacle := _obstacle(params["url"])):
        message = f"StripeSimulator delivers only to http URLs on this machine, not to {params['url']!r}: {obstacle}"
        raise errors.parameter_invalid(message, "url", code="url_invalid")
    for index, event_type in enumerate(params.get("enabled_events", ())):
        if not _EVENT_TYPE.fullmatch(event_type):
            raise errors.parameter_invalid(f"Invalid event type: {event_type}", f"enabled_events[{index}]")


def _obstacle(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "it is no URL"
    if parts.scheme != "http" or not parts.netloc:
        return "it does not start with http:// and a host"
    if not is_loopback(parts.hostname):
        return f"{parts.hostname} is not this machine"
    try:
        return _BAD_PORT if parts.port == 0 else None
    except ValueError:
        return _BAD_PORT


def list_endpoints(account: Account, call: Call) -> Json:
    rows = account.webhook_endpoints.values()
    return paging.page(rows, call.params, url="/v1/webhook_endpoints", kind="webhook endpoint")


def retrieve_endpoint(account: Account, call: Call) -> Json:
    return _find_endpoint(account, call)


def update_endpoint(account: Account, call: Call) -> Json:
    endpoint = _find_endpoint(account, call)
    _check_endpoint(call.params)
    changes = dict(call.params)
    if "disabled" in changes:
        endpoint["status"] = "disabled" if changes.pop("disabled") else "enabled"
    if "metadata" in changes:
        changes["metadata"] = merged_metadata(endpoint["metadata"], changes["metadata"])
    endpoint.update(changes)
    return endpoint


def delete_endpoint(account: Account, call: Call) -> Json:
    endpoint = _find_endpoint(account, call)
    del account.webhook_endpoints[endpoint["id"]]
    del account.endpoint_secrets[endpoint["id"]]
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def _find_endpoint(account: Account, call: Call) -> Json:
    return account.find(account.webhook_endpoints, "webhook endpoint", call.ids[0], param="webhook_endpoint")


def listens_to(endpoint: Json, event_type: str) -> bool:
    return endpoint["status"] == "enabled" and not {"*", event_type}.isdisjoint(endpoint["enabled_events"])


def render_body(event: Json) -> bytes:
    return json.dumps(event, indent=2, ensure_ascii=False).encode()


def signature(body: bytes, *, secret: str, t: int) -> str:
    digest = hmac.new(secret.encode(), b"%d." % t + body, hashlib.sha256).hexdigest()
    return f"t={t},v1={digest}"


def delivery_headers(body: bytes, *, secret: str, t: int) -> dict[str, str]:
    return {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature(body, secret=secret, t=t),
        "User-Agent": "Stripe/1.0 (StripeSimulator)",
    }
