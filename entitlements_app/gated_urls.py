"""Gate all views that a URLconf includes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.urls import URLPattern, URLResolver

Gate = Callable[[Any], Any]
Included = tuple[Any, str | None, str | None]


def is_included(target: object) -> bool:
    """Whether this is what `include()` returns, or `admin.site.urls`: a URLconf, an app name and a namespace."""
    return isinstance(target, tuple) and len(target) == 3


def gate_included(included: Included, gate: Gate) -> Included:
    """The same URLs with the same names, each view behind the gate."""
    urlconf, app_name, namespace = included
    return _GatedUrlconf(urlconf, gate), app_name, namespace


class _GatedUrlconf:
    """Stands for a module with `urlpatterns`, so that they are read when Django first needs them, as an include's."""

    def __init__(self, urlconf: Any, gate: Gate) -> None:
        self._urlconf, self._gate = urlconf, gate

    @property
    def urlpatterns(self) -> list[URLPattern | URLResolver]:
        patterns: Sequence[URLPattern | URLResolver] = getattr(self._urlconf, "urlpatterns", self._urlconf)
        return [_gated(pattern, self._gate) for pattern in patterns]


def _gated(pattern: URLPattern | URLResolver, gate: Gate) -> URLPattern | URLResolver:
    if isinstance(pattern, URLPattern):
        return URLPattern(pattern.pattern, gate(pattern.callback), pattern.default_args, pattern.name)
    return URLResolver(
        pattern.pattern,
        _GatedUrlconf(pattern.urlconf_module, gate),  # type: ignore[arg-type]  # a module's stand-in
        pattern.default_kwargs,
        app_name=pattern.app_name,
        namespace=pattern.namespace,
    )
