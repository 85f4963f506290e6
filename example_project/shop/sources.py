"""The source of what runs here, read from where it stands, so that what a page shows is what it does."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from django.template.loader import get_template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from example_project.settings import BASE_DIR

# The names of the groups are classes in the stylesheet.
WORDS = "and|async|await|class|def|else|for|from|if|import|in|lambda|None|not|or|return|True|False"
IN_PYTHON = re.compile(rf'(?P<string>""".*?"""|"[^"\n]*")|(?P<comment>#[^\n]*)|(?P<word>@[\w.]+|\b(?:{WORDS})\b)', re.S)
IN_A_TEMPLATE = re.compile(r"(?P<word>\{%.*?%\})|(?P<string>\{\{.*?\}\})", re.S)


@dataclass(frozen=True)
class Source:
    file: str
    code: str

    @property
    def highlighted(self) -> SafeString:
        parts, end = [], 0
        for token in (IN_PYTHON if self.file.endswith(".py") else IN_A_TEMPLATE).finditer(self.code):
            parts += [("rest", self.code[end : token.start()]), (token.lastgroup, token[0])]
            end = token.end()
        return format_html_join("", '<span class="{}">{}</span>', [*parts, ("rest", self.code[end:])])


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
