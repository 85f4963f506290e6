"""Who pays: the model, and the key of an instance."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model

from . import conf


def get_subscriber_model() -> type[Model]:
    """The model that pays; behind a proxy, the one that has the table."""
    model = apps.get_model(conf.subscriber_model())
    return model._meta.concrete_model or model


def subscriber_key(subscriber: object) -> Any:
    """The primary key of a subscriber; `None` for nobody: `None`, an anonymous user, an unsaved instance.

    Raises `TypeError` for anything else, so that a user is never looked up as the organisation of the same number.
    """
    if subscriber is None or isinstance(subscriber, AnonymousUser):
        return None
    model = get_subscriber_model()
    if not isinstance(subscriber, model):
        raise TypeError(
            f"Expected an instance of {model._meta.label} (ENTITLEMENTS_SUBSCRIBER_MODEL), "
            f"got {type(subscriber).__name__}. If users are not your subscribers, "
            "set ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST."
        )
    # Not `pk`: a model that inherits from the subscriber's may count for itself.
    return None if subscriber._state.adding else getattr(subscriber, model._meta.pk.attname)
