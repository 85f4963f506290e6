"""The gates of Jinja templates. Needs the extra `jinja`."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context

from .access import get_entitlements
from .request_entitlements import get_request_entitlements
from .requirements import Requirement


def entitled_to(subscriber: object, key: str) -> bool:
    """`{% if user is entitled_to("sso") %}` or `{% if user|entitled_to("sso") %}`: any subscriber, asked anew."""
    return get_entitlements(subscriber)[key]


class EntitlementsExtension(Extension):
    """Adds the block `{% entitled "premium_support" %}…{% else %}…{% endentitled %}`, for the request's subscriber.

    Several keys, with commas between them, mean all; with `any=True` one of them is enough. Also adds `entitled_to` as
    a filter and as a test. In `OPTIONS` of Django's Jinja2 backend:
    `"extensions": ["entitlements_app.jinja.EntitlementsExtension"]`.
    """

    tags = {"entitled"}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters["entitled_to"] = entitled_to
        environment.tests["entitled_to"] = entitled_to

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        keys, any_of = _arguments(parser)
        arguments = [nodes.ContextReference(), nodes.Tuple(keys, "load", lineno=line), any_of]
        held = parser.parse_statements(("name:else", "name:endentitled"))
        otherwise: list[nodes.Node] = []
        if next(parser.stream).test("name:else"):
            otherwise = parser.parse_statements(("name:endentitled",), drop_needle=True)
        return nodes.If(self.call_method("_is_entitled", arguments, lineno=line), held, [], otherwise, lineno=line)

    def _is_entitled(self, context: Context, keys: tuple[str, ...], any_of: bool) -> bool:
        request = context.get("request")
        if request is None:
            raise ImproperlyConfigured(
                "{% entitled %} needs the request in the template's context: render with the request, and import "
                'macros "with context". For any other subscriber: {% if subscriber is entitled_to("key") %}.'
            )
        return not Requirement(keys, any_of).missing_from(get_request_entitlements(request))


def _arguments(parser: Parser) -> tuple[list[nodes.Expr], nodes.Expr]:
    keys: list[nodes.Expr] = []
    any_of: nodes.Expr = nodes.Const(False)
    while parser.stream.current.type != "block_end":
        if parser.stream.current.type == "string" and parser.stream.look().type == "string":
            parser.fail("Put a comma between the lookup keys.")  # Jinja would make one text of the two
        if parser.stream.current.test("name:any") and parser.stream.look().type == "assign":
            parser.stream.skip(2)
            any_of = parser.parse_expression()
        else:
            keys.append(parser.parse_expression())
        if parser.stream.current.type != "block_end":
            parser.stream.expect("comma")
    if not keys:
        raise TypeError('Name at least one lookup key: {% entitled "premium_support" %}.')
    return keys, any_of
