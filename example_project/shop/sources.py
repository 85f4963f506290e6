"""The source of what runs here, read from where it stands, so that what a page shows is what it does."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from django.template.loader import get_template

from example_project.settings import BASE_DIR


@dataclass(frozen=True)
class Source:
    file: str
    code: str


def of(thing: Any) -> Source:
    """Of a function, class or module."""
    lines = inspect.getsource(inspect.unwrap(thing))
    return Source(_shown(inspect.getsourcefile(inspect.unwrap(thing)) or ""), lines.strip())


def of_template(name: str, *, using: str = "django") -> Source:
    template: Any = get_template(name, using=using)
    path = template.template.filename if using == "jinja2" else template.origin.name
    return Source(_shown(path), Path(path).read_text().strip())


def of_setting(module: ModuleType, name: str, item: int | None = None) -> Source:
    """Of what a module assigns to a name, or of one item of that list."""
    path = inspect.getsourcefile(module) or ""
    text = Path(path).read_text()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return Source(_shown(path), _segment(text, node if item is None else _item(node.value, item)))
    raise LookupError(f"{path} assigns nothing to {name}")


def of_line(module: ModuleType, part: str) -> Source:
    """Of the one line of a module that has this part."""
    path = inspect.getsourcefile(module) or ""
    (line,) = (line.strip() for line in Path(path).read_text().splitlines() if part in line)
    return Source(_shown(path), line)


def _item(value: ast.expr, item: int) -> ast.expr:
    if not isinstance(value, ast.List):
        raise LookupError("only a list has items")
    return value.elts[item]


def _segment(text: str, node: ast.AST) -> str:
    return inspect.cleandoc(" " * getattr(node, "col_offset", 0) + (ast.get_source_segment(text, node) or ""))


def _shown(path: str) -> str:
    return Path(path).resolve().relative_to(BASE_DIR).as_posix()
