"""Functions and pages of the site that settings name, by a dotted path or as `LOGIN_URL` is written.

Whatever is wrong with one raises `ImproperlyConfigured`, which names the setting and repeats no value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.functional import Promise
from django.utils.module_loading import import_string


def load(name: str, path: object, argument: str) -> Callable[[Any], Any] | None:
    """The function of one argument that stands at a dotted path; `None` for `None`."""
    if path is None:
        return None
    if not isinstance(path, str):
        raise ImproperlyConfigured(f"{name} must be the dotted path of a function.")
    return _imported(name, path, argument)


@lru_cache(maxsize=16)
def _imported(name: str, path: str, argument: str) -> Callable[[Any], Any]:
    try:
        function = import_string(path)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"{name} must be the dotted path of a function that can be imported.") from error
    return checked(name, function, argument)


def checked(name: str, function: object, *arguments: str) -> Callable[..., Any]:
    """What was named, if it can be called with these arguments."""
    if not callable(function):
        raise ImproperlyConfigured(f"{name} names something that cannot be called.")
    try:
        signature(function).bind(*arguments)
    except (TypeError, ValueError) as error:  # the second of one that tells nothing, as some of C do
        raise ImproperlyConfigured(f"{name} names a function that does not take ({', '.join(arguments)}).") from error
    return function


def load_or_resolve(name: str, value: object, *arguments: str) -> Callable[..., Any] | str:
    """A function at a dotted path, or else the URL of a page."""
    if isinstance(value, Promise):  # reverse_lazy
        return _url(name, value)
    if not isinstance(value, str) or not value.strip():
        raise ImproperlyConfigured(f"{name} must be a dotted path, a URL, the name of one, or None.")
    if "." not in value or not all(part.isidentifier() for part in value.split(".")):
        return _url(name, value)
    try:
        function = import_string(value)
    except ImportError as error:
        raise _neither(name) from error
    return checked(name, function, *arguments)


def _url(name: str, value: str | Promise) -> str:
    try:
        url = resolve_url(str(value))
        parts = urlsplit(url)
    except (NoReverseMatch, ValueError) as error:
        raise _neither(name) from error
    # `resolve_url` takes any text with a dot or a slash for a URL.
    if not (url.startswith("/") or (parts.scheme in ("http", "https") and parts.netloc)):
        raise _neither(name)
    return url


def _neither(name: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"{name} is neither the dotted path of a function that can be imported, nor a URL that begins with "
        "/ or https://, nor the name of one."
    )
