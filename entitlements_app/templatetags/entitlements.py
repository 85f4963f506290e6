"""`{% load entitlements %}`: the gates of Django templates."""

from __future__ import annotations

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.template.base import FilterExpression, Node, NodeList, Parser, Token, token_kwargs
from django.template.context import Context
from django.utils.safestring import SafeString

from entitlements_app.access import get_entitlements
from entitlements_app.request_entitlements import get_request_entitlements
from entitlements_app.requirements import Requirement

register = template.Library()


@register.filter
def entitled_to(subscriber: object, key: str) -> bool:
    """`{% if user|entitled_to:"premium_support" %}`, for any subscriber. Asked anew each time."""
    return get_entitlements(subscriber)[key]


@register.tag
def entitled(parser: Parser, token: Token) -> EntitledNode:
    """`{% entitled "premium_support" %}…{% else %}…{% endentitled %}`, for the request's subscriber.

    Several keys mean all of them; with `any=True` one of them is enough. Raises `TypeError` for no keys.
    """
    _, *arguments = token.split_contents()
    keys: list[FilterExpression] = []
    options: dict[str, FilterExpression] = {}
    for argument in arguments:
        option = token_kwargs([argument], parser)
        if not option:
            keys.append(parser.compile_filter(argument))
        options |= option
    if not keys:
        raise TypeError('Name at least one lookup key: {% entitled "premium_support" %}.')
    if not options.keys() <= {"any"}:
        raise template.TemplateSyntaxError("entitled takes lookup keys and any=True, nothing else.")
    held = parser.parse(("else", "endentitled"))
    otherwise = NodeList()
    if parser.next_token().contents == "else":
        otherwise = parser.parse(("endentitled",))
        parser.delete_first_token()
    return EntitledNode(keys, options.get("any"), held, otherwise)


class EntitledNode(Node):
    child_nodelists = ("held", "otherwise")

    def __init__(
        self, keys: list[FilterExpression], any_of: FilterExpression | None, held: NodeList, otherwise: NodeList
    ) -> None:
        self.keys, self.any_of, self.held, self.otherwise = keys, any_of, held, otherwise
        # Texts that stand in the template are read once.
        is_constant = any_of is None and not any(key.is_var or key.filters for key in keys)
        self.constant = self._requirement(Context()) if is_constant else None

    def render(self, context: Context) -> SafeString:
        # The one it is rendered with comes first: a variable may have taken the name.
        request = getattr(context, "request", None) or context.get("request")
        if request is None:
            raise ImproperlyConfigured(
                "{% entitled %} asks about a request: render the template with one. "
                'For any other subscriber: {% if subscriber|entitled_to:"key" %}.'
            )
        requirement = self.constant or self._requirement(context)
        lacks = requirement.missing_from(get_request_entitlements(request))
        return (self.otherwise if lacks else self.held).render(context)

    def _requirement(self, context: Context) -> Requirement:
        any_of = self.any_of is not None and self.any_of.resolve(context)
        return Requirement(tuple(key.resolve(context) for key in self.keys), any_of)
