"""Form encoding as Stripe's API takes it: `created[gte]=1`, `expand[]=a` or `expand[0]=a`, true, false."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import errors

Pairs = list[tuple[str, str]]

_PART = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"[^\[\]]+(\[[^\[\]]*\])*")


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Nested dicts of strings; an array is still a dict from "0", "1", … until its schema says it is one."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise errors.parameter_unknown(name)
        head, *parts = name.split("[", 1)[0], *_PART.findall(name)
        _put(root, [head, *parts], value, name)
    return root


def _put(root: dict[str, Any], keys: list[str], value: str, name: str) -> None:
    node = root
    for key in keys[:-1]:
        node = node.setdefault(key or str(len(node)), {})
        if not isinstance(node, dict):
            raise errors.parameter_invalid(f"Invalid object: {name}", keys[0])
    last = keys[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise errors.parameter_invalid(f"Invalid object: {name}", keys[0])
    node[last] = value


def flatten(params: Mapping[str, Any], prefix: str = "") -> Pairs:
    """The pairs a client would send for these parameters; None is not sent."""
    pairs: Pairs = []
    for key, value in params.items():
        pairs += _flatten_value(f"{prefix}[{key}]" if prefix else str(key), value)
    return pairs


def _flatten_value(name: str, value: object) -> Pairs:
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    if isinstance(value, Mapping):
        return flatten(value, name)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return flatten({str(index): item for index, item in enumerate(value)}, name)
    return [(name, str(value))]
