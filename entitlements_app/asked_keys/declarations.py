"""What the gates of the loaded site declare: each view of the URLconf is asked what stands before it."""

from __future__ import annotations

import ast
import inspect
import os
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver

from entitlements_app.requirements import Requirement, kept_by

from .findings import (
    API_PERMISSION,
    DECIDES,
    DECORATOR,
    ON_CLASS,
    PERMISSION,
    PERMISSION_PREFIX,
    Asked,
    Found,
    Place,
    Undecided,
)


def read_declarations() -> Found:
    """What all views of `ROOT_URLCONF` declare. Raises `ImproperlyConfigured` if it cannot be imported."""
    reader = _Reader()
    for view in _views():
        reader.read(view)
    return reader.found


def _views() -> list[Any]:
    try:
        return list(_views_of(get_resolver().url_patterns, set()))
    except Exception as error:  # whatever the site's modules raise when they are imported
        raise ImproperlyConfigured(
            f"The URLconf {settings.ROOT_URLCONF} could not be read, so nothing was compared. "
            f"{type(error).__name__}: {error}"
        ) from error


def _views_of(patterns: Iterable[URLPattern | URLResolver], seen: set[int]) -> Iterator[Any]:
    for pattern in patterns:
        if id(pattern) in seen:  # a URLconf may include itself
            continue
        seen.add(id(pattern))
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            yield from _views_of(pattern.url_patterns, seen)


class _Reader:
    """Goes through the views, and remembers what it told of: one requirement stands before all views of an include."""

    def __init__(self) -> None:
        self.found = Found()
        self._told: set[int] = set()  # ids of requirements, which the loaded site keeps alive
        self._classes: dict[str, dict[str, int]] = {}  # by file and name, where each begins

    def read(self, view: Any) -> None:
        cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
        if not isinstance(cls, type):
            self.found.looked_through.add(_name_of(view))
            self._add(DECORATOR, kept_by(view), inspect.unwrap(view))
            return
        self.found.looked_through.add(_name_of(cls))
        self._add(DECORATOR, kept_by(view), cls)
        options = {**getattr(view, "view_initkwargs", {}), **getattr(view, "initkwargs", {})}
        methods = ["dispatch", *getattr(cls, "http_method_names", ()), *_actions(view)]
        for method in methods:
            self._add(DECORATOR, kept_by(getattr(cls, method, None)), cls)
        for permission in _operands(options.get("permission_classes", getattr(cls, "permission_classes", ()))):
            self._add(API_PERMISSION, kept_by(permission), cls)
        self._read_attributes(cls, options)

    def _read_attributes(self, cls: type, options: Mapping[str, Any]) -> None:
        for permission in _texts(getattr(cls, "permission_required", None)):
            if permission.startswith(PERMISSION_PREFIX):
                self._ask(permission.removeprefix(PERMISSION_PREFIX), self._place_of(cls, PERMISSION))
        decide = getattr(cls, "get_entitlement_required", None)
        if decide is not None and not str(decide.__module__).startswith("entitlements_app."):
            self.found.undecided.add(Undecided(self._place_of(inspect.unwrap(decide), DECIDES)))
        required = options.get("entitlement_required", getattr(cls, "entitlement_required", None))
        for key in _texts(required):
            self._ask(key, self._place_of(cls, ON_CLASS))
        if required and not _texts(required):  # a property, perhaps
            self.found.undecided.add(Undecided(self._place_of(cls, ON_CLASS)))

    def _add(self, gate: str, requirements: Iterable[Requirement], subject: Any) -> None:
        for requirement in requirements:
            if id(requirement) not in self._told:
                self._told.add(id(requirement))
                for key in requirement.keys:
                    self._ask(key, self._place_of(subject, gate))

    def _ask(self, key: str, place: Place) -> None:
        self.found.asked.add(Asked(key, place))

    def _place_of(self, subject: Any, gate: str) -> Place:
        """Where a function or a class begins, its decorators included; of what has no source, its name."""
        try:
            file = os.path.realpath(inspect.getfile(subject))
            if not isinstance(subject, type):
                return Place(file, subject.__code__.co_firstlineno, gate)
            if file not in self._classes:
                self._classes[file] = _lines_of_classes(file)
            return Place(file, self._classes[file].get(subject.__qualname__, 0), gate)
        except (AttributeError, OSError, SyntaxError, TypeError, ValueError):
            return Place(_name_of(subject), 0, gate)


def _actions(view: Any) -> Iterable[str]:
    """Methods of a `ViewSet` of REST framework that a URL leads to."""
    actions = getattr(view, "actions", None)
    return actions.values() if isinstance(actions, dict) else ()


def _operands(permissions: Any) -> Iterator[Any]:
    """Permission classes as they were listed, and those that `&`, `|` and `~` of REST framework hold."""
    for permission in permissions if isinstance(permissions, list | tuple) else (permissions,):
        held = [getattr(permission, name) for name in ("op1_class", "op2_class") if hasattr(permission, name)]
        if held:
            yield from _operands(held)
        else:
            yield permission


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return [str.__str__(text) for text in values if isinstance(text, str)]  # plain, of a member of an `Enum`


def _name_of(subject: Any) -> str:
    named = subject if hasattr(subject, "__qualname__") else type(subject)
    return f"{named.__module__}.{named.__qualname__}"


def _lines_of_classes(file: str) -> dict[str, int]:
    """`inspect` would parse the file again for each class."""
    lines: dict[str, int] = {}

    def look(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                lines[inside + child.name] = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                look(child, f"{inside}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                look(child, f"{inside}{child.name}.<locals>.")
            elif isinstance(child, ast.stmt):
                look(child, inside)

    with tokenize.open(file) as source:
        look(ast.parse(source.read()), "")
    return lines
