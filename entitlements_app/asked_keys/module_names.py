"""What names stand for in a Python file, as far as that can be told without running it.

A constant of the file itself is read from its text, one that is imported from the loaded module that has it. Nothing is
imported for it, and no code of the site is run: attributes are looked up statically.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from enum import Enum, EnumType
from pathlib import Path
from types import FunctionType, ModuleType
from typing import cast

from django.conf import settings

from .site_files import module_of

# What a name is bound to: an expression, an argument, a class, or what cannot be told.
Bound = ast.expr | ast.arg | ast.ClassDef | None
Scope = dict[str, Bound]


class Unresolved(Exception):
    """Only the running code knows."""


class Names:
    """The names of one file. `scopes` are those that stand around the place that is looked at, the file's own first."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._package = _package_of(path)
        self._module = _loaded_from(path)
        self._imported: dict[str, str] = {}
        self._followed: list[ast.expr] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._imported.update(self._names_in(node))
        self.scopes: list[Scope] = [bindings(tree.body)]

    def _names_in(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
            return
        base = node.module or ""
        if node.level:
            package = self._package.split(".")
            base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            yield alias.asname or alias.name, f"{base}.{alias.name}"

    def bound_to(self, name: str) -> Bound:
        """What the innermost scope that has the name binds it to."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def target(self, node: ast.expr) -> str:
        """The dotted name of what an expression calls, `""` if that is unknown.

        Something of this app that the site's own module hands on has this app's name.
        """
        dotted = self._dotted(node)
        if dotted and not dotted.startswith("entitlements_app."):
            loaded = _look_up(dotted)
            if _is_a(loaded, FunctionType, type):
                handed_on = cast(FunctionType, loaded)
                if handed_on.__module__.startswith("entitlements_app."):
                    return f"{handed_on.__module__}.{handed_on.__qualname__}"
        return dotted

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Attribute):
            base = self._dotted(node.value)
            return base and f"{base}.{node.attr}"
        if isinstance(node, ast.Name) and not any(node.id in scope for scope in self.scopes[1:]):
            if node.id in self._imported:
                return self._imported[node.id]
            return f"{self._module.__name__}.{node.id}" if self._module else ""
        return ""

    def texts(self, node: ast.expr) -> list[str]:
        """The texts that an expression can be, or that a tuple of it holds. Raises `Unresolved`."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return [text for part in parts for text in self.texts(part)]
            case ast.Starred(value=inner) | ast.NamedExpr(value=inner):
                return self.texts(inner)
            case ast.IfExp(body=first, orelse=second) | ast.BoolOp(values=[first, second]):
                return [*self.texts(first), *self.texts(second)]
            case ast.JoinedStr(values=parts):
                return self._joined(parts)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._joined([left, right])
            case ast.Name() | ast.Attribute():
                return self._of_name(node)
        raise Unresolved

    def _joined(self, parts: list[ast.expr]) -> list[str]:
        whole = ""
        for part in parts:
            plain = isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
            (text,) = _one(self.texts(part.value if isinstance(part, ast.FormattedValue) and plain else part))
            whole += text
        return [whole]

    def _of_name(self, node: ast.Name | ast.Attribute) -> list[str]:
        try:
            return self._as_written(node)
        except Unresolved:
            loaded = _look_up(self._dotted(node))
        return _as_texts(loaded)

    def _as_written(self, node: ast.Name | ast.Attribute) -> list[str]:
        if isinstance(node, ast.Attribute) and node.attr == "value":  # of a member of an `Enum`
            return self.texts(node.value)
        bound = self.bound_to(node.id) if isinstance(node, ast.Name) else self._class_attribute(node)
        if not isinstance(bound, ast.expr) or bound in self._followed:
            raise Unresolved
        self._followed.append(bound)  # what is bound to itself leads nowhere
        try:
            return self.texts(bound)
        finally:
            self._followed.pop()

    def _class_attribute(self, node: ast.Attribute) -> Bound:
        of = self.bound_to(node.value.id) if isinstance(node.value, ast.Name) else None
        if not isinstance(of, ast.ClassDef):
            return None
        bound = bindings(of.body).get(node.attr)
        is_choices = any(ast.unparse(base).endswith("Choices") for base in of.bases)
        return bound.elts[0] if is_choices and isinstance(bound, ast.Tuple) and bound.elts else bound


def bindings(body: list[ast.stmt]) -> Scope:
    """The names that statements bind, without what functions and classes among them bind inside."""
    scope: Scope = {}

    def bind(name: str, to: Bound) -> None:
        scope[name] = None if name in scope else to  # bound twice: who knows which

    def look(node: ast.AST) -> None:
        match node:
            case ast.ClassDef(name=name):
                return bind(name, node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                return bind(name, None)
            case ast.Lambda() | ast.Import() | ast.ImportFrom():
                return None
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                bind(name, value)
                return look(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                bind(name, value)
                return look(value) if value else None
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                bind(name, value)
                return look(value)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                return bind(name, None)
        for child in ast.iter_child_nodes(node):
            look(child)
        return None

    for statement in body:
        look(statement)
    return scope


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Scope:
    every = node.args
    named = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
    return {argument.arg: argument for argument in named if argument}


def _package_of(path: Path) -> str:
    module = module_of(path)
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def _loaded_from(path: Path) -> ModuleType | None:
    module = sys.modules.get(module_of(path))
    file = getattr(module, "__file__", None)
    return module if file is not None and Path(file).resolve() == path else None


def _look_up(dotted: str) -> object:
    """The object of that name in a loaded module, found without running code; `None` if there is none."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        thing: object = sys.modules.get(".".join(parts[:end]))
        if thing is not None:
            for name in parts[end:]:
                thing = _attribute(thing, name)
            return thing
    return None


def _attribute(thing: object, name: str) -> object:
    if thing is settings:
        return getattr(settings, name, None)
    if _is_a(thing, EnumType):
        return cast(EnumType, thing).__members__.get(name)
    if _is_a(thing, Enum) and name == "value":
        return cast(Enum, thing)._value_
    found = inspect.getattr_static(thing, name, None)
    return cast("staticmethod[..., object]", found).__func__ if _is_a(found, staticmethod) else found


def _is_a(thing: object, *kinds: type) -> bool:
    """As `isinstance`, which asks the object for its class: a lazy one would be made for it."""
    return issubclass(type(thing), kinds)


def _as_texts(value: object) -> list[str]:
    values = cast(Iterable[object], value) if _is_a(value, tuple, list, set, frozenset) else (value,)
    texts = [str.__str__(text) for text in values if _is_a(text, str)]  # plain, of a member of an `Enum`
    if not texts or len(texts) != len([*values]):
        raise Unresolved
    return texts


def _one(texts: list[str]) -> list[str]:
    if len(texts) != 1:
        raise Unresolved
    return texts
