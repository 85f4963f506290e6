"""Gate all views that a URLconf includes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from django.urls import URLPattern, URLResolver

Gate = Callable[[Any], Any]
Included = tuple[Any, str | None, str | None]
Pattern = URLPattern | URLResolver


def is_included(target: object) -> bool:
    """Whether this is what `include()` returns, or `admin.site.urls`: a URLconf, an app name and a namespace."""
    return isinstance(target, tuple) and len(target) == 3


def gate_included(included: Included, gate: Gate) -> Included:
    """The same URLs with the same names, each view behind the gate."""
    urlconf, app_name, namespace = included
    return _GatedUrlconf(urlconf, _Twins(gate)), app_name, namespace


class _GatedUrlconf:
    """Stands for a module with `urlpatterns`, so that they are read when Django first needs them, as an include's."""

    def __init__(self, urlconf: Any, twins: _Twins) -> None:
        self._urlconf, self._twins = urlconf, twins

    @property
    def urlpatterns(self) -> list[Pattern]:
        patterns: Sequence[Pattern] = getattr(self._urlconf, "urlpatterns", self._urlconf)
        return [self._twins.of(pattern) for pattern in patterns]


class _Twins:
    """The gated twin of each pattern: one, so that Django sees where a URLconf includes itself."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._made: dict[int, tuple[Pattern, Pattern]] = {}  # by identity; holding the pattern keeps its id its own

    def of(self, pattern: Pattern) -> Pattern:
        if id(pattern) not in self._made:
            self._made[id(pattern)] = pattern, self._twin(pattern)
        return self._made[id(pattern)][1]

    def _twin(self, pattern: Pattern) -> Pattern:
        return self._of_view(pattern) if isinstance(pattern, URLPattern) else self._of_include(pattern)

    # Both may be of a site's own class, and keep all that it has.

    def _of_view(self, pattern: URLPattern) -> URLPattern:
        twin = copy(pattern)
        twin.callback = self._gate(pattern.callback)
        return twin

    def _of_include(self, pattern: URLResolver) -> URLResolver:
        twin = copy(pattern)
        for cached in ("urlconf_module", "url_patterns"):
            twin.__dict__.pop(cached, None)
        # What a resolver has learnt about its URLs is the first one's, and is learnt anew.
        URLResolver.__init__(
            twin,
            twin.pattern,
            _GatedUrlconf(pattern.urlconf_module, self),  # type: ignore[arg-type]  # a module's stand-in
            twin.default_kwargs,
            twin.app_name,
            twin.namespace,
        )
        return twin
