"""One call of the API: find its route, check its parameters, answer, expand."""

import copy
import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from . import (
    customers,
    errors,
    events,
    expansion,
    features,
    forms,
    grants,
    own_account,
    parameters,
    payment_methods,
    products,
    subscriptions,
    webhooks,
)
from .account import Account, Call, Json

PAGING = frozenset({"limit", "starting_after", "ending_before"})


@dataclass(frozen=True)
class Route:
    """`returns` is the type answered, `takes` the parameters obeyed beside paging and `expand`."""

    call: str
    answer: Callable[[Account, Call], Json]
    returns: str
    takes: str = ""

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{\w+\}", "([^/]+)", self.call))


_ENTITLEMENT, _FEATURE, _ATTACHED = (
    "entitlements.active_entitlement",
    "entitlements.feature",
    "product_feature",
)
_CUSTOMER, _SUBSCRIPTION, _ENDPOINT = "customer", "subscription", "webhook_endpoint"
_CUSTOMER_FIELDS = "description email invoice_settings metadata name phone"
_SUBSCRIPTION_FIELDS = (
    "cancel_at cancel_at_period_end default_payment_method description items metadata trial_end trial_settings"
)

ROUTES = (
    Route(
        "GET /v1/entitlements/active_entitlements",
        grants.list_active_entitlements,
        f"list:{_ENTITLEMENT}",
        "customer",
    ),
    Route("GET /v1/entitlements/active_entitlements/{id}", grants.retrieve_active_entitlement, _ENTITLEMENT),
    Route("GET /v1/customer/{customer}/entitlements", grants.list_by_nested_url, f"list:{_ENTITLEMENT}"),
    Route("GET /v1/entitlements/features", features.list_features, f"list:{_FEATURE}", "archived lookup_key"),
    Route("POST /v1/entitlements/features", features.create_feature, _FEATURE, "lookup_key name metadata"),
    Route("GET /v1/entitlements/features/{id}", features.retrieve_feature, _FEATURE),
    Route("POST /v1/entitlements/features/{id}", features.update_feature, _FEATURE, "active name metadata"),
    Route("GET /v1/products/{product}/features", features.list_product_features, f"list:{_ATTACHED}"),
    Route("POST /v1/products/{product}/features", features.attach_feature, _ATTACHED, "entitlement_feature"),
    Route("GET /v1/products/{product}/features/{id}", features.retrieve_product_feature, _ATTACHED),
    Route("DELETE /v1/products/{product}/features/{id}", features.detach_feature, _ATTACHED),
    Route("GET /v1/products", products.list_products, "list:product", "active ids created"),
    Route(
        "POST /v1/products",
        products.create_product,
        "product",
        "name active description marketing_features metadata",
    ),
    Route("GET /v1/products/{id}", products.retrieve_product, "product"),
    Route(
        "POST /v1/products/{id}",
        products.update_product,
        "product",
        "name active default_price description marketing_features metadata",
    ),
    Route("DELETE /v1/products/{id}", products.delete_product, "product"),
    Route("GET /v1/prices", products.list_prices, "list:price", "active created currency product type"),
    Route(
        "POST /v1/prices",
        products.create_price,
        "price",
        "active currency lookup_key metadata nickname product recurring unit_amount",
    ),
    Route("GET /v1/prices/{price}", products.retrieve_price, "price"),
    Route("GET /v1/customers", customers.list_customers, f"list:{_CUSTOMER}", "created email"),
    Route("POST /v1/customers", customers.create_customer, _CUSTOMER, _CUSTOMER_FIELDS),
    Route("GET /v1/customers/{customer}", customers.retrieve_customer, _CUSTOMER),
    Route(
        "POST /v1/customers/{customer}",
        customers.update_customer,
        _CUSTOMER,
        _CUSTOMER_FIELDS,
    ),
    Route("DELETE /v1/customers/{customer}", customers.delete_customer, _CUSTOMER),
    Route("GET /v1/customers/{customer}/sources", customers.list_sources, "list:source", "object"),
    Route(
        "GET /v1/subscriptions",
        subscriptions.list_subscriptions,
        f"list:{_SUBSCRIPTION}",
        "created customer price status",
    ),
    Route(
        "POST /v1/subscriptions",
        subscriptions.create_subscription,
        _SUBSCRIPTION,
        f"{_SUBSCRIPTION_FIELDS} customer payment_behavior trial_period_days",
    ),
    Route("GET /v1/subscriptions/{subscription_exposed_id}", subscriptions.retrieve_subscription, _SUBSCRIPTION),
    Route(
        "POST /v1/subscriptions/{subscription_exposed_id}",
        subscriptions.update_subscription,
        _SUBSCRIPTION,
        f"{_SUBSCRIPTION_FIELDS} pause_collection",
    ),
    Route(
        "GET /v1/subscription_items",
        subscriptions.list_subscription_items,
        "list:subscription_item",
        "subscription",
    ),
    Route(
        "POST /v1/subscriptions/{subscription}/resume",
        subscriptions.resume_subscription,
        _SUBSCRIPTION,
        "billing_cycle_anchor",
    ),
    Route(
        "POST /v1/payment_methods/{payment_method}/attach",
        payment_methods.attach_payment_method,
        "payment_method",
        "customer",
    ),
    Route(
        "GET /v1/payment_methods",
        payment_methods.list_payment_methods,
        "list:payment_method",
        "customer type",
    ),
    Route("GET /v1/payment_methods/{payment_method}", payment_methods.retrieve_payment_method, "payment_method"),
    Route("GET /v1/account", own_account.retrieve_own_account, "account"),
    Route("GET /v1/accounts", own_account.list_connected_accounts, "list:account"),
    Route("GET /v1/accounts/{account}", own_account.retrieve_account, "account"),
    Route(
        "DELETE /v1/subscriptions/{subscription_exposed_id}",
        subscriptions.cancel_subscription,
        _SUBSCRIPTION,
        "cancellation_details",
    ),
    Route("GET /v1/events", events.list_events, "list:event", "created delivery_success type types"),
    Route("GET /v1/events/{id}", events.retrieve_event, "event"),
    Route("GET /v1/webhook_endpoints", webhooks.list_endpoints, f"list:{_ENDPOINT}"),
    Route(
        "POST /v1/webhook_endpoints",
        webhooks.create_endpoint,
        _ENDPOINT,
        "api_version connect description enabled_events metadata url",
    ),
    Route("GET /v1/webhook_endpoints/{webhook_endpoint}", webhooks.retrieve_endpoint, _ENDPOINT),
    Route(
        "POST /v1/webhook_endpoints/{webhook_endpoint}",
        webhooks.update_endpoint,
        _ENDPOINT,
        "description disabled enabled_events metadata url",
    ),
    Route("DELETE /v1/webhook_endpoints/{webhook_endpoint}", webhooks.delete_endpoint, _ENDPOINT),
)


def perform(
    account: Account,
    method: str,
    path: str,
    pairs: Iterable[tuple[str, str]],
    *,
    request_id: str,
    idempotency_key: str | None = None,
) -> Json:
    """The answer to the call, a copy that shares nothing with the state. Raises ApiError."""
    route, ids = _find_route(method, path)
    params = parameters.check(parameters.load_calls()[route.call], forms.nest(pairs))
    paths = params.pop("expand", [])
    _refuse_ignored(route, params)
    with account.lock:
        call = Call(ids, params, request_id, idempotency_key)
        try:
            answer = copy.deepcopy(route.answer(account, call))
        except errors.ApiError as error:
            error.began = True
            raise
        expansion.expand(account, answer, paths, route.returns)
        return answer


def _find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    for route in ROUTES:
        if found := route.pattern.fullmatch(f"{method} {path}"):
            return route, tuple(unquote(part) for part in found.groups())
    raise errors.unrecognized_url(method, path)


def _refuse_ignored(route: Route, params: Json) -> None:
    obeyed = PAGING.union(route.takes.split())
    for name in params:
        if name not in obeyed:
            raise errors.not_simulated(name)
