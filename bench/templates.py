"""A template that shows something to those who hold a feature."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.context_processors import PermWrapper
from django.contrib.auth.models import User
from django.template import Context, Template

from bench.data import KEY
from bench.first_checks import GUARDIAN, ON_REDIS
from bench.measure import Contender, Row, clear_cache
from bench.repeated import with_entitlements
from entitlements_app.models import Feature

_TEXTS = {
    "{% entitled %}": "{% load entitlements %}{% entitled 'KEY' %}yes{% endentitled %}",
    "{% if request.entitlements %}": "{% if request.entitlements.KEY %}yes{% endif %}",
    "{% if perms %}": "{% if perms.entitlements_app.view_feature %}yes{% endif %}",
    "django-guardian, {% get_obj_perms %}": (
        "{% load guardian_tags %}{% get_obj_perms request.user for feature as 'held' %}"
        "{% if 'view_feature' in held %}yes{% endif %}"
    ),
    "django-flags, {% flag_enabled %}": (
        "{% load feature_flags %}{% flag_enabled 'KEY' as is_on %}{% if is_on %}yes{% endif %}"
    ),
    "django-waffle, {% flag %}": "{% load waffle_tags %}{% flag 'KEY' %}yes{% endflag %}",
    "{% if variable %}": "{% if answer %}yes{% endif %}",
}


def rows() -> list[Row]:
    context_of = _ContextOf()

    def contender(name: str, **options: Any) -> Contender:
        text = _TEXTS[name].replace("KEY", KEY)
        label = name + options.pop("label", "")
        return Contender(label, Template(text).render, context_of, **options)

    def peers(*, asks_again: bool, waffle: dict[str, Any]) -> tuple[Contender, ...]:
        return (
            contender("{% if perms %}", asks_again=asks_again),
            contender("django-guardian, {% get_obj_perms %}", asks_again=asks_again, settings=GUARDIAN),
            contender("django-flags, {% flag_enabled %}", asks_again=asks_again, users=1),
            contender("django-waffle, {% flag %}", asks_again=asks_again, **waffle),
            contender("{% if variable %}", kind="floor"),
        )

    return [
        Row(
            "Template, first",
            (
                contender("{% entitled %}", kind="ours"),
                contender("{% if request.entitlements %}", kind="ours"),
                contender("{% entitled %}", label=", Redis warm", settings=ON_REDIS, kind="ours"),
                *peers(asks_again=False, waffle={"label": ", cold", "before_each": clear_cache}),
                contender("django-waffle, {% flag %}", label=", Redis warm"),
            ),
        ),
        Row(
            "Template, repeated",
            (
                contender("{% entitled %}", asks_again=True, kind="ours"),
                contender("{% if request.entitlements %}", asks_again=True, kind="ours"),
                *peers(asks_again=True, waffle={"label": ", Redis warm"}),
            ),
        ),
    ]


class _ContextOf:
    def __init__(self) -> None:
        self.feature = Feature.objects.get(lookup_key=KEY)

    def __call__(self, user: User) -> Context:
        request = with_entitlements(user)
        return Context(
            {"request": request, "perms": PermWrapper(request.user), "feature": self.feature, "answer": True}
        )
