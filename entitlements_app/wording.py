"""Moments, modes and bridges, as pages, commands and explanations say them: in the language of who reads them."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.dateformat import format as format_date
from django.utils.translation import gettext as _


def format_moment(moment: datetime) -> str:
    """In the reader's time zone, to the minute."""
    return format_date(timezone.localtime(moment) if timezone.is_aware(moment) else moment, "j M Y, H:i")


def describe_mode(livemode: bool) -> str:
    return _("live mode") if livemode else _("test mode")


def describe_bridge(latest: datetime) -> str:
    """Until when an override counts that stands in for what Stripe owes."""
    return _("until Stripe grants it, at most until %(at)s") % {"at": format_moment(latest)}
