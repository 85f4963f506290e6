"""Who pays: the model, and the key of an instance."""

from __future__ import annotations

from functools import lru_cache
from types import NoneType
from typing import Any

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db.models import Field, ForeignKey, Model

from . import conf


def get_subscriber_model() -> type[Model]:
    """The model that pays; behind a proxy, the one that has the table.

    Raises `ImproperlyConfigured` if it is not installed.
    """
    return _concrete_model(conf.subscriber_model())


@lru_cache(maxsize=4)
def _concrete_model(label: str) -> type[Model]:
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise ImproperlyConfigured(f"{_setting()} names no installed model: {error}") from error
    return model._meta.concrete_model or model


def _setting() -> str:
    """The name of the setting that says which model pays."""
    return conf.read("ENTITLEMENTS_SUBSCRIBER_MODEL").name


def get_key_field() -> Field[Any, Any]:
    """The primary key of the model that pays, or of the model it inherits from: the field that holds a value."""
    field: Field[Any, Any] = get_subscriber_model()._meta.pk
    while isinstance(field, ForeignKey):
        field = field.target_field
    return field


def read_key(text: str) -> Any:
    """The primary key that a person has typed; `None` if it cannot be one."""
    field = get_key_field()
    try:
        key = field.to_python(text)
        field.run_validators(key)  # a number may be larger than any of its column
    except ValidationError:
        return None
    return key


def is_subscriber(candidate: object) -> bool:
    """Whether this is an instance of the model that pays."""
    return isinstance(candidate, get_subscriber_model())


def is_subscriber_model(model: type[Model]) -> bool:
    """Whether instances of this model pay: of the model itself, of a proxy, of one that inherits from it."""
    return issubclass(model, get_subscriber_model())


def is_nobody(subscriber: object) -> bool:
    """Whether this stands for no subscriber at all, as an unsaved one does not. Also behind a lazy object."""
    return isinstance(subscriber, NoneType | AnonymousUser)


def subscriber_key(subscriber: object) -> Any:
    """The primary key of a subscriber; `None` for nobody: `None`, an anonymous user, an unsaved instance.

    Raises `TypeError` for anything else, so that a user is never looked up as the organisation of the same number.
    """
    if is_nobody(subscriber):
        return None
    model = _concrete_model(conf.of_gates().subscriber_model)
    if not isinstance(subscriber, model):
        unsaid = isinstance(subscriber, AbstractBaseUser) and conf.subscriber_from_request() is None
        remedy = " If users are not your subscribers, set ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST." if unsaid else ""
        raise TypeError(
            f"Expected an instance of {model._meta.label} ({_setting()}), got {type(subscriber).__name__}.{remedy}"
        )
    if subscriber._state.adding:
        return None
    # Not `pk`: a model that inherits from the subscriber's may count for itself. And as its column gives it back: an
    # instance that was made with a UUID written as a text keeps the text.
    return model._meta.pk.to_python(getattr(subscriber, model._meta.pk.attname))
