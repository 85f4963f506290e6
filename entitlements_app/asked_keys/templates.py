"""The site's templates: all that its engines can find, but for those of installed packages and of this app."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.template.loaders import filesystem

from .django_templates import read_django_template
from .findings import Found, Unread
from .site_files import content_of, files_under, is_installed, site_roots


def read_templates() -> Found:
    """What the site's templates ask for. One that cannot be read is told of, and left out."""
    found = Found()
    for file, engine in sorted(_files().items()):
        if content := content_of(file, found):
            found.add(_read(file, content, engine))
    return found


def _read(file: Path, content: bytes, engine: Any) -> Found:
    try:
        source = content.decode()
    except UnicodeDecodeError as error:
        return Found(unread={Unread(str(file), 0, f"It is not UTF-8: {error.reason}.")})
    if isinstance(engine, DjangoTemplates):
        return read_django_template(str(file), source)
    from .jinja_templates import read_jinja_template  # only a site that has such an engine has Jinja

    return read_jinja_template(str(file), source, engine.env)


def _files() -> dict[Path, Any]:
    """Each file and the engine that reads it: the one with the innermost folder, of two with the same the first."""
    folders: dict[Path, Any] = {}
    for engine in engines.all():
        for folder in _folders_of(engine):
            folders.setdefault(Path(folder).resolve(), engine)
    roots = site_roots()
    files: dict[Path, Any] = {}
    for folder in sorted(folders, key=lambda folder: len(folder.parts)):
        if not is_installed(folder / "file") or any(root in folder.parents for root in roots):
            files |= dict.fromkeys(files_under(folder), folders[folder])
    return files


def _folders_of(engine: Any) -> Iterable[Any]:
    if isinstance(engine, DjangoTemplates):
        return [folder for loader in engine.engine.template_loaders for folder in _folders_of_loader(loader)]
    if hasattr(engine, "env"):  # Jinja's
        return [*(getattr(engine.env.loader, "searchpath", None) or engine.template_dirs)]
    return ()  # of a kind that this app has no gate for


def _folders_of_loader(loader: Any) -> Iterator[Any]:
    for inner in getattr(loader, "loaders", ()):  # of one that caches
        yield from _folders_of_loader(inner)
    if isinstance(loader, filesystem.Loader):  # as the one for apps is
        yield from loader.get_dirs()
