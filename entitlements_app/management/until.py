"""The end of something, as one types it: `2026-12-31`, `2026-12-31T18:00`, `30d`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from entitlements_app.counts import start_of, today

LONGEST = timedelta(days=731)


def parse_until(text: str) -> datetime:
    """A moment in the site's time zone, unless the text names another. A day lasts until it ends, `30d` until that day.

    So on one day the same text is the same moment. Raises `CommandError` for what is no such text, is over, or is
    farther away than LONGEST.
    """
    name, _, value = text.partition("=")
    if name != "until" or not value:
        raise CommandError(f"--bridge takes until=2026-12-31, until=2026-12-31T18:00 or until=30d, not {text!r}.")
    try:
        moment = _moment(value)
    except (ValueError, OverflowError):  # a day that no month has, or a year that no calendar has
        moment = None
    if moment is None:
        raise CommandError(f"{value!r} is no day (2026-12-31), no day and time (2026-12-31T18:00), and no 30d.")
    now = timezone.now()
    if moment <= now:
        raise CommandError(f"until={value} is over: the bridges would never count.")
    if moment - now > LONGEST:
        raise CommandError(f"until={value} is more than two years away. A bridge is for a while; it can be prolonged.")
    return moment


def _moment(value: str) -> datetime | None:
    days = re.fullmatch(r"([0-9]{1,6})d", value)
    day = today() + timedelta(days=int(days[1])) if days else parse_date(value)
    if day is not None:
        return start_of(day + timedelta(days=1))
    moment = parse_datetime(value)
    return None if moment is None else _in_site(moment)


def _in_site(moment: datetime) -> datetime:
    if timezone.is_naive(moment):
        return timezone.make_aware(moment) if settings.USE_TZ else moment
    return moment if settings.USE_TZ else timezone.make_naive(moment)
