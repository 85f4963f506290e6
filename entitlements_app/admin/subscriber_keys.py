"""Primary keys of subscribers, as staff types them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import CharField, Field, ForeignKey

from entitlements_app.subscribers import get_subscriber_model


def as_key(text: str) -> Any:
    """The primary key that this text says; `None` if it says none."""
    field = _field()
    try:
        key = field.to_python(text)
        field.run_validators(key)  # a number may be larger than any of its column
    except ValidationError:
        return None
    return key


def is_key(text: str) -> bool:
    """Whether this text looks like a primary key, and not like anything else: where these are texts, none does."""
    return bool(text) and not isinstance(_field(), CharField) and as_key(text) is not None


def _field() -> Field[Any, Any]:
    field: Field[Any, Any] = get_subscriber_model()._meta.pk
    while isinstance(field, ForeignKey):  # of a model that inherits from another
        field = field.target_field
    return field
