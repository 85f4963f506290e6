"""For the tests of projects that use this app. Names are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulator.errors import ApiError
    from .simulator.simulation import SignedDelivery
    from .simulator.stripe_simulator import StripeSimulator

__all__ = ["ApiError", "SignedDelivery", "StripeSimulator"]

_MODULES = {
    "ApiError": "simulator.errors",
    "SignedDelivery": "simulator.simulation",
    "StripeSimulator": "simulator.stripe_simulator",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
