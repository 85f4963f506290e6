"""The gates of this site, each with what its page tells of it. The gates themselves are in what `sources` shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import reverse

from example_project import settings, urls

from . import api, gate_views, reports, sources
from .plans import ADVANCED_REPORTING, API_ACCESS, PREMIUM_SUPPORT, SSO, Feature
from .sources import Source


@dataclass(frozen=True)
class Gate:
    """`name` is its page's URL name. `any_of`: one of the features is enough. `superusers`: pass, as Django has it."""

    name: str
    title: str
    spelling: str
    says: str
    features: tuple[Feature, ...]
    read_sources: Callable[[], list[Source]]
    any_of: bool = False
    superusers: bool = False
    also: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return reverse(self.name)

    @property
    def sources(self) -> list[Source]:
        return self.read_sources()


GATES = (
    Gate(
        "request",
        "In a template",
        "{% if request.entitlements.premium_support %}",
        "The shortest spelling. The first question of a request is one query, and all others are free.",
        (PREMIUM_SUPPORT,),
        lambda: [sources.of_template("shop/gates/request.html")],
    ),
    Gate(
        "block",
        "A block tag",
        '{% entitled "premium_support" %}',
        "Takes any key, with hyphens or dots too, and several of them.",
        (PREMIUM_SUPPORT,),
        lambda: [sources.of_template("shop/gates/block.html")],
    ),
    Gate(
        "filter",
        "A filter",
        '{% if user|entitled_to:"premium_support" %}',
        "For any subscriber, not only the visitor. Each question is one query.",
        (PREMIUM_SUPPORT,),
        lambda: [sources.of_template("shop/gates/filter.html")],
    ),
    Gate(
        "jinja",
        "In a Jinja template",
        '{% if "premium_support" in request.entitlements %}',
        "The same in the other template engine that Django has; the block tag, too.",
        (PREMIUM_SUPPORT,),
        lambda: [
            sources.of_template("shop/phone.html", using="jinja2"),
            sources.of_setting(settings, "TEMPLATES", item=1),
            sources.of(gate_views.jinja),
        ],
    ),
    Gate(
        "support",
        "A view",
        '@entitlement_required("premium_support")',
        "Strangers are sent to sign in and come back; who lacks the feature gets the site’s own page for it.",
        (PREMIUM_SUPPORT,),
        lambda: [sources.of(gate_views.support)],
    ),
    Gate(
        "tokens",
        "An async view",
        '@entitlement_required("api_access", "sso", any=True)',
        "The same decorator, before async code. Here one of two features is enough.",
        (API_ACCESS, SSO),
        lambda: [sources.of(gate_views.tokens)],
        any_of=True,
    ),
    Gate(
        "exports",
        "A class-based view",
        "class Exports(EntitlementRequiredMixin, TemplateView)",
        "A mixin that works with all of Django’s own, left of the view’s base class.",
        (ADVANCED_REPORTING,),
        lambda: [sources.of(gate_views.Exports)],
    ),
    Gate(
        "reports",
        "A whole include",
        'entitlement_required("advanced_reporting")(include(…))',
        "One gate before each view of a URLconf, now or later. The views know nothing of it.",
        (ADVANCED_REPORTING,),
        lambda: [sources.of_line(urls, "example_project.shop.reports"), sources.of(reports)],
        also=("reports-of-year",),
    ),
    Gate(
        "permission",
        "A permission",
        '@permission_required("entitlements.premium_support")',
        "For what thinks in Django’s permissions. Superusers have them all, here as everywhere in Django.",
        (PREMIUM_SUPPORT,),
        lambda: [
            sources.of(gate_views.permission),
            sources.of_template("shop/gates/permission.html"),
            sources.of_setting(settings, "AUTHENTICATION_BACKENDS"),
        ],
        superusers=True,
    ),
    Gate(
        "api",
        "An API",
        "permission_classes = [HasEntitlement]",
        "With Django REST framework, the answer is about whom it authenticated, by session or credentials.",
        (API_ACCESS,),
        lambda: [sources.of(api.Usage)],
    ),
    Gate(
        "api-composed",
        "An API, composed",
        'IsAuthenticated & HasEntitlement.of("sso", …)',
        "With &, | and ~, as other permission classes. Here one of two features is enough.",
        (SSO, ADVANCED_REPORTING),
        lambda: [sources.of(api.Members)],
        any_of=True,
    ),
    Gate(
        "code",
        "Anywhere else",
        'has_entitlement(user, "sso")',
        "For tasks, commands, signals, and whatever has no template and no URL.",
        (SSO,),
        lambda: [sources.of(gate_views.code), sources.of_template("shop/gates/code.html")],
    ),
)

_BY_URL_NAME = {name: gate for gate in GATES for name in (gate.name, *gate.also)}


def gate_of(request: HttpRequest) -> Gate | None:
    """The gate whose page, or API, was asked for."""
    match = request.resolver_match
    return _BY_URL_NAME.get(match.url_name or "") if match else None
