"""What a customer's row says of how well we know it, in a word, and the customers of each such word."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.translation import gettext as _

from entitlements_app import conf
from entitlements_app.models import Customer

_GOOD, _NEUTRAL, _WARN, _BAD = "ent-good", "", "ent-warn", "ent-bad"


def state_tag(customer: Customer) -> str:
    """The one word that matters most about a customer, marked up."""
    word, look = _state(customer)
    return format_html('<span class="ent-tag {}">{}</span>', look, word)


def _state(customer: Customer) -> tuple[str, str]:
    if customer.deleted_at:
        return _("deleted"), _NEUTRAL
    if customer.missing_since:
        return _("unknown to Stripe"), _BAD
    if customer.account or customer.livemode is not conf.livemode():
        return _("not asked about"), _NEUTRAL
    if customer.fetch_failures:
        return _("cannot be fetched"), _BAD
    if customer.urgent:
        return _("urgent"), _WARN
    if customer.hinted_at:
        return _("marked"), _WARN
    if customer.window is None:
        return _("not confirmed yet"), _WARN
    return _("confirmed"), _GOOD


def mode_name(customer: Customer) -> str:
    """Test or live, and whose account it is if not the site's own."""
    mode = _("live mode") if customer.livemode else _("test mode")
    return f"{mode}, {customer.account}" if customer.account else mode
