"""Which keys the site's Python code asks for, where they stand in it or are constants."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .findings import (
    API_PERMISSION,
    DECIDES,
    DECORATOR,
    OF_REQUEST,
    ON_CLASS,
    PERMISSION,
    PERMISSION_PREFIX,
    PUBLIC,
    Asked,
    Found,
    Place,
    Undecided,
    Unread,
)
from .module_names import Names, Scope, Unresolved, arguments, bindings
from .site_files import content_of, python_files

_Function = ast.FunctionDef | ast.AsyncFunctionDef

# Functions of this app: how their gate is called, and which of their arguments are keys.
_FUNCTIONS = {
    "entitlements_app.access.has_entitlement": ("has_entitlement", slice(1, None)),
    "entitlements_app.access.ahas_entitlement": ("ahas_entitlement", slice(1, None)),
    "entitlements_app.access.wait_for_entitlement": ("wait_for_entitlement", slice(1, None)),
    "entitlements_app.access.subscribers_with": ("subscribers_with", slice(0, 1)),
    "entitlements_app.decorators.entitlement_required": (DECORATOR, slice(None)),
    "entitlements_app.contrib.rest_framework.HasEntitlement.of": (API_PERMISSION, slice(None)),
    "entitlements_app.templatetags.entitlements.entitled_to": ("entitled_to", slice(1, None)),
    "entitlements_app.jinja.entitled_to": ("entitled_to", slice(1, None)),
    "entitlements_app.models.Customer.objects.entitled_to": ("entitled_to", slice(0, 1)),
}
_READERS = {
    "entitlements_app.access.get_entitlements": "get_entitlements",
    "entitlements_app.access.aget_entitlements": "aget_entitlements",
    "entitlements_app.request_entitlements.get_request_entitlements": OF_REQUEST,
    "entitlements_app.request_entitlements.aget_request_entitlements": OF_REQUEST,
}
_PERMISSION_METHODS = ("has_perm", "ahas_perm", "has_perms", "ahas_perms")


def read_python_code() -> Found:
    """What the site's own files ask for. One that is no Python is told of, and left out."""
    found = Found()
    for path in python_files():
        if content := content_of(path, found):
            _read_file(path, content, found)
    return found


def _read_file(path: Path, content: bytes, found: Found) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # about texts of the site, which are not the question
            tree = ast.parse(content)
        _Reader(path, tree, found).visit(tree)
    except (SyntaxError, ValueError, RecursionError) as error:
        found.unread.add(Unread(str(path), getattr(error, "lineno", None) or 0, str(getattr(error, "msg", error))))


class _Reader(ast.NodeVisitor):
    """Goes through one file, and knows the scopes and the definition that it is in."""

    def __init__(self, path: Path, tree: ast.Module, found: Found) -> None:
        self._file, self._found = str(path), found
        self._names = Names(path, tree)
        self._in_class = False
        self._lines = (0, 0)  # of the outermost definition

    # --- what is found

    def _ask(self, node: ast.expr | ast.FunctionDef, gate: str, keys: Iterable[ast.expr], *, prefix: str = "") -> None:
        """With a prefix, texts without it are of no interest, and neither is what cannot be told."""
        for key in keys:
            place = Place(self._file, key.lineno if prefix else node.lineno, gate)
            try:
                texts = self._names.texts(key)
            except Unresolved:
                if not prefix or _begins_with(key, prefix):
                    self._found.undecided.add(Undecided(place, self._lines))
            else:
                found = [text.removeprefix(prefix) for text in texts if text.startswith(prefix)]
                self._found.asked.update(Asked(text, place) for text in found if text)

    # --- definitions

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        with self._definition(node):
            for part in (*node.decorator_list, *node.bases, *node.keywords):
                self.visit(part)
            with self._scope(bindings(node.body), is_class=True):
                for statement in node.body:
                    self._read_attribute(statement)
                    self.visit(statement)

    def _read_attribute(self, node: ast.stmt) -> None:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._read_declared(name, value)
            case ast.FunctionDef(name="get_entitlement_required"):
                with self._scope(arguments(node) | bindings(node.body)):
                    self._read_decision(node)

    def _read_declared(self, name: str, value: ast.expr) -> None:
        if name == "entitlement_required" and not (isinstance(value, ast.Constant) and value.value is None):
            self._ask(value, ON_CLASS, [value])
        elif name == "permission_required":
            self._ask(value, PERMISSION, [value], prefix=PERMISSION_PREFIX)

    def _read_decision(self, node: ast.FunctionDef) -> None:
        """The keys that a method can return are known if they stand there."""
        returned = [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value]
        inherited = ("super()", "self.entitlement_required", "None")
        self._ask(node, DECIDES, [value for value in returned if not ast.unparse(value).startswith(inherited)])

    def visit_FunctionDef(self, node: _Function) -> None:
        with self._definition(node):
            for decorator in node.decorator_list:
                self.visit(decorator)
            self.visit(node.args)
            with self._scope(arguments(node) | bindings(node.body)):
                for statement in node.body:
                    self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  (as `ast.NodeVisitor` calls it)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        with self._scope(arguments(node)):
            self.visit(node.body)

    @contextmanager
    def _definition(self, node: ast.ClassDef | _Function) -> Iterator[None]:
        outer = self._lines
        if outer == (0, 0):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            self._lines = (first, node.end_lineno or first)
        yield
        self._lines = outer

    @contextmanager
    def _scope(self, scope: Scope, *, is_class: bool = False) -> Iterator[None]:
        outer, in_class = self._names.scopes, self._in_class
        # What a class binds is not seen from the functions and classes in it.
        self._names.scopes, self._in_class = [*(outer[:-1] if in_class else outer), scope], is_class
        yield
        self._names.scopes, self._in_class = outer, in_class

    # --- questions

    def visit_Call(self, node: ast.Call) -> None:
        self._read_call(node)
        self.generic_visit(node)

    def _read_call(self, node: ast.Call) -> None:
        target = self._names.target(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if target in _FUNCTIONS:
            gate, which = _FUNCTIONS[target]
            self._ask(node, gate, [*node.args[which], *_keywords(node, "key")])
        elif _is_named(node.func, "getattr") and len(node.args) > 1:
            if gate := self._entitlements(node.args[0]):
                self._ask(node, gate, [node.args[1]])
        elif isinstance(node.func, ast.Attribute) and method in ("has_all", "has_any", "metadata"):
            if gate := self._entitlements(node.func.value):
                self._ask(node, gate, [*node.args, *_keywords(node, "key")])
        elif method in _PERMISSION_METHODS or target.endswith(".permission_required"):
            self._ask(node, PERMISSION, [*node.args[:1], *_keywords(node, "perm")], prefix=PERMISSION_PREFIX)
        elif method == "entitled_to":  # of any queryset; other things may have a method of that name
            self._found.asked.update(
                Asked(key.value, Place(self._file, node.lineno, "entitled_to"))
                for key in node.args
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )
        elif method == "as_view":
            for keyword in node.keywords:
                self._read_declared(keyword.arg or "", keyword.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr not in PUBLIC and not node.attr.startswith("_") and (gate := self._entitlements(node.value)):
            self._found.asked.add(Asked(node.attr, Place(self._file, node.lineno, gate)))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if gate := self._entitlements(node.value):
            self._ask(node, gate, [node.slice])
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if isinstance(operator, ast.In | ast.NotIn) and (gate := self._entitlements(right)):
                self._ask(node, gate, [left])
        self.generic_visit(node)

    def _entitlements(self, node: ast.expr) -> str:
        """How the gate is called, if an expression is an `Entitlements`; else `""`."""
        match node:
            case ast.Await(value=value) | ast.NamedExpr(value=value) if not isinstance(value, ast.Name):
                return self._entitlements(value)
            case ast.Attribute(value=value, attr="entitlements") if self._is_request(value):
                return OF_REQUEST
            case ast.Call(func=ast.Attribute(attr="aentitlements")):
                return OF_REQUEST
            case ast.Call(func=function):
                return _READERS.get(self._names.target(function), "")
            case ast.Name(id=name):
                bound = self._names.bound_to(name)
                if isinstance(bound, ast.arg):
                    return "entitlements" if _annotation(bound).endswith("Entitlements") else ""
                calls = isinstance(bound, ast.Await | ast.Attribute | ast.Call | ast.NamedExpr)
                return self._entitlements(bound) if calls and isinstance(bound, ast.expr) else ""
        return ""

    def _is_request(self, node: ast.expr) -> bool:
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name.lower().endswith("request") or name == "req":
            return True
        bound = self._names.bound_to(name) if isinstance(node, ast.Name) else None
        return isinstance(bound, ast.arg) and _annotation(bound).endswith("Request")


def _is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _annotation(argument: ast.arg) -> str:
    return ast.unparse(argument.annotation).strip("'\"") if argument.annotation else ""


def _keywords(node: ast.Call, name: str) -> list[ast.expr]:
    return [keyword.value for keyword in node.keywords if keyword.arg == name]


def _begins_with(node: ast.expr, prefix: str) -> bool:
    """Whether a text that is put together begins so: `f"entitlements.{key}"`."""
    match node:
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            return text.startswith(prefix)
        case ast.BinOp(left=ast.Constant(value=str(text))):
            return text.startswith(prefix)
    return False
