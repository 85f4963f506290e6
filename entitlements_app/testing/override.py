"""`override_entitlements`: what subscribers are entitled to, for the length of a test."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.db.models import Model
from django.test.utils import TestContextDecorator

from entitlements_app import forced_answers, known_features
from entitlements_app.forced_answers import Forced
from entitlements_app.lookup_keys import check_key
from entitlements_app.subscribers import is_nobody, subscriber_key

_C = TypeVar("_C", bound=type)

# Attributes that are set on what users wrote.
_ON_CLASS = "_entitlements_overrides"
_ON_CASE = "_entitlements_are_overridden"
_ON_FUNCTION = "_entitlements_undecorated"


class override_entitlements(TestContextDecorator):  # noqa: N801  (a sibling of Django's `override_settings`)
    """Every gate finds that the subscriber is entitled to exactly these lookup keys, and without keys to nothing.

    A context manager, and a decorator of functions, sync and async, and of test classes, those of `unittest` and those
    of pytest. Without a `subscriber` it counts for each one: anonymous visitors, inactive users and whoever else is no
    subscriber still hold nothing. Of several at a time the innermost that is about a subscriber counts. It counts in
    the whole process, in the threads of a live server too. The keys count as known, and nothing needs a database: the
    subscriber may be an unsaved instance. Queries the other way round, as `subscribers_with`, know nothing of it.

    Raises `TypeError` for what is no key, and for a subscriber that is no instance of the subscriber's model.
    """

    def __init__(self, *keys: str, subscriber: Model | None = None) -> None:
        super().__init__()
        self._keys = frozenset(map(check_key, keys))
        self._subscriber = subscriber
        self._in_force: list[Forced] = []
        if subscriber is not None and is_nobody(subscriber):
            raise TypeError("An anonymous user holds nothing, in tests as elsewhere.")
        subscriber_key(subscriber)

    def enable(self) -> None:
        # Asked now: a subscriber may have been saved since.
        forced = Forced(self._keys, self._subscriber, subscriber_key(self._subscriber))
        self._in_force.append(forced)
        forced_answers.push(forced)
        known_features.forget()  # what an earlier test's catalogue was like

    def disable(self) -> None:
        forced_answers.remove(self._in_force.pop())

    def decorate_callable(self, func: Any) -> Any:
        """Raises `TypeError` for a generator: its body runs when the call is long over."""
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func.__name__} is a generator: write `with override_entitlements(…): yield` inside it.")
        return super().decorate_callable(func)

    def decorate_class(self, cls: _C) -> _C:
        """Cover each test of a class: for `unittest` from before its `setUp`, for pytest each method `test…`.

        What stands on a derived class counts before what stands on its bases. Raises `TypeError` for a class without
        tests.
        """
        setattr(cls, _ON_CLASS, (self, *cls.__dict__.get(_ON_CLASS, ())))
        if issubclass(cls, unittest.TestCase):
            cls.setUp = _enabling(cls.setUp)  # type: ignore[assignment]
        else:
            _decorate_tests(cls)
        return cls


def _of_class(cls: type) -> list[override_entitlements]:
    """What decorates a class and its bases, outermost first."""
    return [override for each in reversed(cls.__mro__) for override in each.__dict__.get(_ON_CLASS, ())]


def _enabling(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(original)
    def set_up(case: unittest.TestCase) -> None:
        if not case.__dict__.get(_ON_CASE):  # else by the `setUp` of a derived class, which calls its base's
            setattr(case, _ON_CASE, True)
            case.addCleanup(delattr, case, _ON_CASE)
            for override in _of_class(type(case)):
                override.enable()
                case.addCleanup(override.disable)
        original(case)

    return set_up


def _decorate_tests(cls: type) -> None:
    names = [name for name in dir(cls) if name.startswith("test") and callable(getattr(cls, name))]
    if not names:
        raise TypeError(f"{cls.__name__} has no method test…, so override_entitlements would do nothing there.")
    for name in names:
        found = inspect.getattr_static(cls, name)
        if isinstance(found, staticmethod | classmethod):
            setattr(cls, name, type(found)(_decorated(found.__func__, cls)))
        else:
            setattr(cls, name, _decorated(found, cls))


def _decorated(test: Callable[..., Any], cls: type) -> Callable[..., Any]:
    original = getattr(test, _ON_FUNCTION, test)  # an inherited one is decorated for its own class
    decorated = original
    for override in reversed(_of_class(cls)):
        decorated = override.decorate_callable(decorated)
    setattr(decorated, _ON_FUNCTION, original)
    return decorated
