"""Who pays: the model, an instance's key, and the subscriber of a request."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model

from . import conf


def subscriber_model() -> type[Model]:
    return apps.get_model(conf.subscriber_model())


def subscriber_key(subscriber: object) -> Any:
    """The primary key of a subscriber; `None` for nobody: `None`, an anonymous user, an unsaved instance.

    Raises `TypeError` for anything else, so that a user is never looked up as the organisation of the same number.
    """
    if subscriber is None or isinstance(subscriber, AnonymousUser):
        return None
    model = subscriber_model()
    if not isinstance(subscriber, model):
        raise TypeError(
            f"Expected an instance of {model._meta.label} (ENTITLEMENTS_SUBSCRIBER_MODEL), "
            f"got {type(subscriber).__name__}. If users are not your subscribers, "
            "set ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST."
        )
    return subscriber.pk
