"""Which files are the site's own: not those of installed packages, and not this app's."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import django
from django.apps import apps
from django.conf import settings

from .findings import Found, Unread

_APP = Path(__file__).resolve().parents[1]
_INSTALLED_IN = ("site-packages", "dist-packages")
_NO_CODE = ("migrations", "node_modules", "test", "tests")


def is_installed(path: Path) -> bool:
    """Whether this belongs to Python, to Django, to an installed package or to this app. Takes a real path."""
    inside = path.parents
    return any(part in _INSTALLED_IN for part in path.parts) or any(folder in inside for folder in _of_others())


@cache
def _of_others() -> tuple[Path, ...]:
    return (_APP, Path(django.__file__).resolve().parent, Path(sysconfig.get_path("stdlib")).resolve())


def site_roots() -> list[Path]:
    """The packages that the URLconf, the settings and the site's own apps are in: folders, or single files.

    A site that is itself installed as a package is known by its URLconf and settings.
    """
    named = [settings.ROOT_URLCONF, getattr(settings, "SETTINGS_MODULE", None)]
    its_own = {name.partition(".")[0] for name in named if isinstance(name, str)}
    names = [name for name in named if isinstance(name, str)]
    for app in apps.get_app_configs():
        if app.name.partition(".")[0] in its_own or not is_installed(Path(app.path).resolve() / "apps.py"):
            names.append(app.name)
    return sorted({root for name in names for root in _root_of(name)})


def _root_of(name: str) -> Iterator[Path]:
    """The outermost package with an `__init__.py` that a module is in; for a module in none, its file."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        file = getattr(sys.modules.get(".".join(parts[:end])), "__file__", None)
        if file is None:  # a namespace, which may be shared with others, or not imported
            continue
        path = Path(file).resolve()
        root = path.parent if path.name == "__init__.py" else path
        if root != _APP:
            yield root
        return


def python_files() -> list[Path]:
    """The site's Python files, without tests and migrations."""
    files: set[Path] = set()
    for root in site_roots():
        files.update(_under(root) if root.is_dir() else [root])
    return sorted(files)


def _under(root: Path) -> Iterator[Path]:
    for file in files_under(root, leave_out=_NO_CODE):
        if file.suffix == ".py" and not _is_test(file.name):
            yield file


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name in ("tests.py", "conftest.py")


def files_under(root: Path, *, leave_out: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files in a folder and its folders, but for hidden ones, environments and what is installed in them."""
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__pycache__"))
            and name not in (*_INSTALLED_IN, *leave_out)
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        ]
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name)


def content_of(path: Path, found: Found) -> bytes:
    """What a file holds that can ask for a key: each attribute, tag, filter and import that does has these letters."""
    found.looked_through.add(str(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        found.unread.add(Unread(str(path), 0, error.strerror or str(error)))
        return b""
    return content if b"entitle" in content else b""


def module_of(path: Path) -> str:
    """The dotted name that a file is imported by, told from the packages that it is in."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)
