"""What a gate asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from .access import Entitlements
from .lookup_keys import check_keys

_KEPT: Final = "entitlement_requirements"  # what wraps a gate, as `functools.wraps` does, has it as well


class MalformedRequirement(ImproperlyConfigured, TypeError):
    """A view declares something that is not a lookup key or a tuple of them."""


@dataclass(frozen=True)
class Requirement:
    """All of these lookup keys, or with `any` one of them.

    Raises `TypeError` for no keys, for what is not a key, and for an `any` that is not `True` or `False`.
    """

    keys: tuple[str, ...]
    any: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", check_keys(self.keys))
        if not isinstance(self.any, bool):
            raise TypeError(f"any is True or False, not {self.any!r}. Lookup keys stand side by side, before it.")

    def missing_from(self, entitlements: Entitlements) -> tuple[str, ...]:
        """The keys that lack, of which with `any` one would do. Empty: the requirement is met."""
        missing = tuple(key for key in self.keys if not entitlements[key])
        return () if self.any and len(missing) < len(self.keys) else missing


def declared(view: object, required: object, *, any: bool = False) -> Requirement:  # noqa: A002
    """The requirement of a class that declares `entitlement_required`: a lookup key or a tuple of them.

    Raises `ImproperlyConfigured` where nothing is declared, so that forgetting it opens no door, and its subclass
    `MalformedRequirement`, also a `TypeError`, for what is no key.
    """
    name = type(view).__name__
    if required is None:
        raise ImproperlyConfigured(
            f"{name} is gated and does not say on what. Set entitlement_required to a lookup key, or a tuple of "
            'them: entitlement_required = "premium_support". For a function view: HasEntitlement.of("premium_support").'
        )
    keys = (required,) if isinstance(required, str) else required
    if not isinstance(keys, tuple):
        raise MalformedRequirement(
            f"{name}: what is required (entitlement_required) must be a lookup key or a tuple of them, "
            f"not a {type(keys).__name__}."
        )
    try:
        return Requirement(keys, any)
    except TypeError as error:
        raise MalformedRequirement(f"{name}: what is required (entitlement_required): {error}") from error


def keep(gate: object, requirement: Requirement) -> None:
    """Leave on a gated view, or on a permission class, what it asks for, beside what it is gated by already."""
    setattr(gate, _KEPT, (requirement, *kept_by(gate)))


def kept_by(gate: object) -> tuple[Requirement, ...]:
    """All that was kept on it; nothing for what is no gate."""
    kept: tuple[Requirement, ...] = getattr(gate, _KEPT, ())
    return kept
