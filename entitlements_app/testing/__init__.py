"""For the tests of projects that use this app. Names are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .factories import (
        ActiveEntitlementFactory,
        CustomerFactory,
        EntitlementOverrideFactory,
        FeatureFactory,
        WebhookEventFactory,
    )
    from .override import override_entitlements
    from .simulator.errors import ApiError
    from .simulator.simulation import SignedDelivery
    from .simulator.stripe_simulator import StripeSimulator
    from .webhook_client import WebhookClient

__all__ = [
    "ActiveEntitlementFactory",
    "ApiError",
    "CustomerFactory",
    "EntitlementOverrideFactory",
    "FeatureFactory",
    "SignedDelivery",
    "StripeSimulator",
    "WebhookClient",
    "WebhookEventFactory",
    "override_entitlements",
]

_MODULES = {
    "ActiveEntitlementFactory": "factories",
    "ApiError": "simulator.errors",
    "CustomerFactory": "factories",
    "EntitlementOverrideFactory": "factories",
    "FeatureFactory": "factories",
    "SignedDelivery": "simulator.simulation",
    "StripeSimulator": "simulator.stripe_simulator",
    "WebhookClient": "webhook_client",
    "WebhookEventFactory": "factories",
    "override_entitlements": "override",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
