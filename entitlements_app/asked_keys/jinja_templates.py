"""Which keys a Jinja template asks for, by Jinja's own parser. Needs the extra `jinja`."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from .findings import OF_REQUEST, PERMISSION_PREFIX, PUBLIC, Asked, Found, Place, Undecided, Unread

_FUNCTIONS = ("has_entitlement", "ahas_entitlement")
_READERS = ("get_entitlements", "aget_entitlements")
_PERMISSION_METHODS = ("has_perm", "has_perms")
_RUN = (nodes.Filter, nodes.Test, nodes.Mul, nodes.Pow)  # the last two may take all memory


def read_jinja_template(file: str, source: str, environment: Environment) -> Found:
    """What one template asks for. One that the site's environment cannot parse is told of."""
    try:
        return _Reader(file, environment.parse(source)).read()
    except TemplateSyntaxError as error:
        return Found(unread={Unread(file, error.lineno, str(error.message))})
    except RecursionError as error:
        return Found(unread={Unread(file, 0, str(error))})


class _Reader:
    """Goes through the nodes of one template, and knows the other names that `set` and `with` give."""

    def __init__(self, file: str, tree: nodes.Template) -> None:
        self._file, self._tree = file, tree
        self._found = Found()
        self._aliases = {
            target.name
            for target, value in _assignments(tree)
            if isinstance(target, nodes.Name) and self._is_entitlements(value, aliases=set())
        }

    def read(self) -> Found:
        for node in self._tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Compare, nodes.Call)):
            self._read(node)
        for node in self._tree.find_all((nodes.Filter, nodes.Test)):
            if node.name == "entitled_to":
                self._ask(node, "entitled_to", [*node.args[:1], *(pair.value for pair in node.kwargs)])
        return self._found

    def _read(self, node: nodes.Node) -> None:
        match node:
            case nodes.Getattr(node=of, attr=key) if self._is_entitlements(of):
                if key not in PUBLIC:
                    self._ask(node, OF_REQUEST, [nodes.Const(key)])
            case nodes.Getattr(node=nodes.Getattr(node=nodes.Name(name="perms"), attr="entitlements"), attr=key):
                self._ask(node, "perms.entitlements", [nodes.Const(key)])
            case nodes.Getitem(node=of, arg=key) if self._is_entitlements(of):
                self._ask(node, OF_REQUEST, [key])
            case nodes.Compare():
                self._read_comparison(node)
            case nodes.Call():
                self._read_call(node)

    def _read_comparison(self, node: nodes.Compare) -> None:
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        for left, operand in zip(operands, node.ops, strict=False):
            if operand.op in ("in", "notin") and self._is_entitlements(operand.expr):
                self._ask(node, f"in {OF_REQUEST}", [left])
            elif operand.op in ("in", "notin") and _is_named(operand.expr, "perms"):
                self._ask(node, "in perms", [left], prefix=PERMISSION_PREFIX)

    def _read_call(self, node: nodes.Call) -> None:
        match node.node:
            case nodes.ExtensionAttribute(name="_is_entitled"):  # the block, as our extension parses it
                keys = node.args[1]
                self._ask(node, "{% entitled %}", keys.items if isinstance(keys, nodes.Tuple) else [keys])
            case nodes.Getattr(node=of, attr="has_all" | "has_any" | "metadata") if self._is_entitlements(of):
                self._ask(node, OF_REQUEST, node.args)
            case nodes.Getattr(attr=method) if method in _PERMISSION_METHODS:
                self._ask(node, method, node.args[:1], prefix=PERMISSION_PREFIX)
            case nodes.Name(name=function) if function in _FUNCTIONS:
                self._ask(node, function, node.args[1:])

    def _ask(self, node: nodes.Node, gate: str, keys: list[nodes.Expr], *, prefix: str = "") -> None:
        """With a prefix, texts without it are of no interest, and neither is what is no constant."""
        place = Place(self._file, node.lineno, gate)
        for key in keys:
            constant = _constant(key)
            texts = constant if isinstance(constant, tuple | list) else [constant]
            if all(isinstance(text, str) for text in texts):
                found = [text.removeprefix(prefix) for text in texts if text.startswith(prefix)]
                self._found.asked.update(Asked(text, place) for text in found if text)
            elif not prefix:
                self._found.undecided.add(Undecided(place))

    def _is_entitlements(self, node: nodes.Node, aliases: set[str] | None = None) -> bool:
        match node:
            case nodes.Getattr(node=nodes.Name(name="request"), attr="entitlements"):
                return True
            case nodes.Getattr(node=nodes.Getattr(attr="request"), attr="entitlements"):
                return True
            case nodes.Call(node=nodes.Name(name=function)):
                return function in _READERS
            case nodes.Name(name=name):
                return name in (self._aliases if aliases is None else aliases)
        return False


def _assignments(tree: nodes.Template) -> list[tuple[nodes.Node, nodes.Node]]:
    pairs: list[tuple[nodes.Node, nodes.Node]] = [(node.target, node.node) for node in tree.find_all(nodes.Assign)]
    for block in tree.find_all(nodes.With):
        pairs += zip(block.targets, block.values, strict=False)
    return pairs


def _constant(node: nodes.Expr) -> Any:
    """What an expression always is; `None` if it depends. Jinja would run filters of the site to find out."""
    if isinstance(node, _RUN) or any(node.find_all(_RUN)):
        return None
    try:
        return node.as_const()
    except nodes.Impossible:
        return None


def _is_named(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name
