"""Who pays at dj-stripe, and whether that is who pays here."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from djstripe.models import Customer

from entitlements_app.subscribers import get_subscriber_model, is_subscriber_model, subscriber_key


def get_their_model() -> type[Model] | None:
    """The model of dj-stripe's subscribers; `None` if it is not installed, as Django tells."""
    model: type[Model] | str = Customer._meta.get_field("subscriber").related_model
    return model if isinstance(model, type) else None


def is_same_model() -> bool:
    """Whether who pays at dj-stripe is who pays here."""
    model = get_their_model()
    return model is not None and is_subscriber_model(model)


def models_differ() -> str:
    """What to do if not."""
    model = get_their_model()
    return (
        f"dj-stripe's subscribers are of {model and model._meta.label} (DJSTRIPE_SUBSCRIBER_MODEL), those "
        f"here of {get_subscriber_model()._meta.label} (ENTITLEMENTS_SUBSCRIBER_MODEL). Its customers are linked only "
        "where both are the same."
    )


def key_path() -> str:
    """How dj-stripe's customers lead to the primary key by which a subscriber is known here."""
    return f"subscriber__{get_subscriber_model()._meta.pk.name}"


def key_of(row: Any) -> Any:
    """The primary key, as ours has it, of the subscriber that a customer of dj-stripe's has now."""
    if row.subscriber_id is None:
        return None
    model = get_their_model()
    if model is not None and model._meta.concrete_model is get_subscriber_model():
        return get_subscriber_model()._meta.pk.to_python(row.subscriber_id)
    return subscriber_key(row.subscriber)  # of a model that inherits from it, and may count for itself
