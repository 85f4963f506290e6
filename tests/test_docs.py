"""The documentation says what the code does."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest
from django.dispatch import Signal
from django.template import engines
from django.urls import reverse

import entitlements_app
from entitlements_app import conf, exceptions
from tests.documents import PAGES, ROOT, anchors, blocks, links, prose

PACKAGE = Path(entitlements_app.__file__).parent
DOCS = ROOT / "docs"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def source() -> str:
    files = [file for file in PACKAGE.rglob("*.py") if "testing" not in file.parts]
    return "\n".join(file.read_text() for file in files)


def modules() -> list[ModuleType]:
    found = []
    for info in pkgutil.walk_packages([str(PACKAGE)], "entitlements_app."):
        try:
            found.append(importlib.import_module(info.name))
        except ImportError:  # of an extra that this environment does not have
            assert "contrib" in info.name or "jinja" in info.name, info.name
    return found


def test_each_setting_has_its_section() -> None:
    headings = set(re.findall(r"^### `(\w+)`$", (DOCS / "settings.md").read_text(), flags=re.M))
    assert headings == set(conf.NAMES)
    read = set(re.findall(r'(?:settings, |read\(|_seconds\()"(ENTITLEMENTS_\w+)"', source()))
    assert read == set(conf.NAMES), "each is read, and no other"


def test_each_check_id_is_documented_and_used_once() -> None:
    used = [id_ for file in PACKAGE.rglob("*checks.py") for id_ in _ids(file.read_text())]
    documented = re.findall(r"^\| `entitlements_app\.([EW]\d{3})`", (DOCS / "errors.md").read_text(), flags=re.M)
    assert sorted(documented) == sorted(set(used)) == sorted(used)


def _ids(text: str) -> list[str]:
    """An id stands in a check as its whole self, or as a number of the table of settings."""
    return re.findall(r'id="entitlements_app\.([EW]\d{3})"', text) + re.findall(
        r'^    \("([EW]\d{3})", ', text, flags=re.M
    )


def test_each_signal_and_each_error_is_documented() -> None:
    names = {name for module in modules() for name, value in vars(module).items() if isinstance(value, Signal)}
    ours = {name for name in names if name.startswith("entitlement")}
    everything = "\n".join(page.read_text() for page in PAGES)
    assert not [name for name in ours if f"`{name}`" not in everything]
    errors = [
        name for name, value in vars(exceptions).items() if getattr(value, "__module__", "") == exceptions.__name__
    ]
    assert not [name for name in errors if f"`{name}`" not in (DOCS / "errors.md").read_text()]


def test_each_logger_that_warns_is_documented() -> None:
    page = (DOCS / "errors.md").read_text()
    for module in modules():
        if "testing" not in module.__name__ and hasattr(module, "logger"):
            assert f"`{module.__name__}`" in page, module.__name__


def test_each_module_has_its_place_in_the_architecture() -> None:
    page = (DOCS / "architecture.md").read_text()
    names = {info.name for folder in (PACKAGE, PACKAGE / "admin") for info in pkgutil.iter_modules([str(folder)])}
    assert not [name for name in names - {"migrations", "apps", "urls", "event_loop"} if f"`{name}" not in page]


@every_page
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


@every_page
def test_each_import_in_the_docs_works(page: Path) -> None:
    for block in blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("entitlements_app"):
                try:
                    module = importlib.import_module(node.module or "")
                except ImportError:
                    assert "contrib" in (node.module or "")
                    continue
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@every_page
def test_each_template_in_the_docs_compiles(page: Path) -> None:
    has_jinja = "jinja2" in [engine.name for engine in engines.all()]
    for block in blocks(page):
        if block.language == "html" and "Jinja" not in block.heading:
            engines["django"].from_string(block.text)
        elif block.language == "html" and has_jinja:
            engines["jinja2"].from_string(block.text)


@every_page
def test_dotted_paths_in_the_docs_exist(page: Path) -> None:
    for path in re.findall(r"`(entitlements_app(?:\.\w+)+)`", prose(page)):
        if re.search(r"\.[EW]\d{3}$", path):
            continue
        try:
            importlib.import_module(path)
        except ImportError:
            module, _, name = path.rpartition(".")
            if module.startswith("entitlements_app.contrib") or module == "entitlements_app.jinja":
                continue
            assert hasattr(importlib.import_module(module), name), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_webhook_s_address_is_the_one_in_the_docs() -> None:
    assert reverse("entitlements:webhook") == "/stripe/webhook/"
    assert "/stripe/webhook/" in (DOCS / "quick-start.md").read_text()
