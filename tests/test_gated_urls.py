"""A gate around a whole include: everything behind it, as it was, and nothing beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver, include, path, resolve, reverse
from django.urls.resolvers import ResolverMatch, RoutePattern

from entitlements_app.decorators import entitlement_required
from tests.testapp.gates import KEY
from tests.visitors import entitled, unlinked

pytestmark = pytest.mark.django_db

Build = Callable[..., ModuleType]


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse(" ".join(f"{name}={value}" for name, value in sorted(kwargs.items())) or "open")


@pytest.fixture
def urlconf() -> Iterator[Build]:
    """Build modules with `urlpatterns`."""
    names: list[str] = []

    def build(*patterns: Any) -> ModuleType:
        module = ModuleType(f"tests.urls_{len(names)}")
        module.urlpatterns = list(patterns)  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        names.append(module.__name__)
        return module

    yield build
    for name in names:
        del sys.modules[name]


def gated(*included: Any) -> Any:
    return entitlement_required(KEY)(include(*included))


def served(root: ModuleType, at: str, user: Any = None) -> tuple[int, str]:
    client = Client()
    if user:
        client.force_login(user)
    with override_settings(ROOT_URLCONF=root.__name__):
        response = client.get(at)
    return response.status_code, response.content.decode()


STRIPE = path("stripe/", include("entitlements_app.urls"))


def test_the_arguments_that_a_pattern_adds_reach_the_view(urlconf: Build) -> None:
    deep = urlconf(path("page/", page, {"a": 1}))
    inner = urlconf(path("<int:number>/", include(deep), {"b": 2}))
    root = urlconf(path("x/", gated(inner), {"c": 3}), STRIPE)
    assert served(root, "/x/7/page/", entitled()) == (200, "a=1 b=2 c=3 number=7")
    assert served(root, "/x/7/page/", unlinked())[0] == 403
    assert served(root, "/x/7/page/")[0] == 302


def test_views_beside_the_gate_stay_open(urlconf: Build) -> None:
    inner = urlconf(path("page/", page, name="page"))
    root = urlconf(path("free/", include(inner)), path("paid/", gated(inner)), path("also-free/", include(inner)))
    assert served(root, "/free/page/")[0] == served(root, "/also-free/page/")[0] == 200
    assert served(root, "/paid/page/")[0] == 302


def test_a_urlconf_that_includes_itself(urlconf: Build) -> None:
    inner = urlconf(path("page/", page, name="page"))
    inner.app_name = "loop"  # type: ignore[attr-defined]  # without one, Django itself cannot
    inner.urlpatterns.append(path("again/", include(inner)))
    root = urlconf(path("x/", gated(inner)))
    assert served(root, "/x/again/again/again/page/")[0] == 302
    with override_settings(ROOT_URLCONF=root.__name__):
        assert reverse("loop:page") == "/x/page/"


def test_gates_around_a_gate(urlconf: Build) -> None:
    inner = urlconf(path("page/", page))
    root = urlconf(path("x/", entitlement_required("sso")(gated(inner))), STRIPE)
    assert served(root, "/x/page/", entitled())[0] == 403, "has the one and not the other"


class Counting(URLPattern):
    """A site's own kind of pattern."""

    def resolve(self, path: str) -> ResolverMatch | None:
        match = super().resolve(path)
        if match:
            match.kwargs["counted"] = True
        return match


class Versioned(URLResolver):
    def resolve(self, path: str) -> ResolverMatch:
        match = super().resolve(path)
        match.kwargs["version"] = 1
        return match


def test_patterns_of_a_site_s_own_classes_stay_what_they_are(urlconf: Build) -> None:
    deep = urlconf(Counting(RoutePattern("page/", is_endpoint=True), page))
    inner = urlconf(Versioned(RoutePattern("v1/"), deep))
    for root in (urlconf(path("x/", include(inner))), urlconf(path("x/", gated(inner)))):
        with override_settings(ROOT_URLCONF=root.__name__):
            assert resolve("/x/v1/page/").kwargs == {"counted": True, "version": 1}
    assert served(root, "/x/v1/page/")[0] == 302


def test_the_admin_can_be_gated_and_keeps_its_names(urlconf: Build) -> None:
    root = urlconf(path("admin/", entitlement_required(KEY)(admin.site.urls)))
    assert served(root, "/admin/auth/user/") == (302, "")
    with override_settings(ROOT_URLCONF=root.__name__):
        assert reverse("admin:auth_user_changelist") == "/admin/auth/user/"


def test_the_urls_are_read_when_they_are_needed_and_not_before(urlconf: Build) -> None:
    """As with Django's own include: the included module may import the one that includes it."""
    inner = urlconf()
    root = urlconf(path("x/", gated(inner)))
    inner.urlpatterns.append(path("page/", page))
    assert served(root, "/x/page/")[0] == 302
