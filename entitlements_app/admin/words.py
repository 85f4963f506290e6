"""How pages say things: states as marked words, modes, numbers, lengths of time, texts of several lines."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from entitlements_app.models import EntitlementChange, SyncRun, WebhookEvent
from entitlements_app.runs import KILLED
from entitlements_app.status import Run
from entitlements_app.windows import LEASE

NOTHING = "–"

MODES = (("1", gettext_lazy("live mode")), ("0", gettext_lazy("test mode")))

_STATUS_TONES = {
    WebhookEvent.Status.PROCESSED: "ent-good",
    WebhookEvent.Status.PENDING: "ent-warn",
    WebhookEvent.Status.FAILED: "ent-bad",
}


def tag(word: object, tone: str = "") -> str:
    """A word that says how something is. `tone` is a class of the style sheet: `ent-good`, `ent-warn`, `ent-bad`."""
    return format_html('<span class="ent-tag {}">{}</span>', tone, word)


def kind_tag(change: EntitlementChange) -> str:
    """Whether a key was granted or revoked."""
    return tag(change.get_kind_display(), "ent-good" if change.kind == EntitlementChange.Kind.GRANTED else "")


def status_tag(event: WebhookEvent) -> str:
    return tag(event.get_status_display(), _STATUS_TONES.get(WebhookEvent.Status(event.status), ""))


def active_tag(active: bool) -> str:
    """Of a feature or product in Stripe's catalogue."""
    return tag(_("active"), "ent-good") if active else tag(_("archived"))


def run_tag(kind: str, run: SyncRun | Run, now: datetime) -> str:
    if run.error:
        return tag(_("broke off") if run.error == KILLED else _("failed"), "ent-bad")
    if run.finished_at is not None:
        return tag(_("done"), "ent-good")
    if is_at_work(run, now):
        return tag(_("at work"), "ent-warn")
    # Fetches of an hour share a run, which ends with the first one of a later hour.
    return tag(_("nothing more to do yet")) if kind == SyncRun.Kind.CONFIRM else tag(_("broke off"), "ent-bad")


def is_at_work(run: SyncRun | Run, now: datetime) -> bool:
    return run.finished_at is None and now - run.seen_at < LEASE


def mode_tag(livemode: bool, tone: str = "") -> str:
    return tag(dict(MODES)["1" if livemode else "0"], tone)


def get_mode(livemode: bool, account: str = "") -> str:
    """For where it says that a mode is meant. `account`: whose it is, if not the site's own."""
    mode = _("live") if livemode else _("test")
    return _("%(mode)s, %(account)s") % {"mode": mode, "account": account} if account else mode


def get_number(number: int) -> str:
    return str(number_format(number, force_grouping=True))


def get_span(length: timedelta, *, units: int = 1) -> str:
    """About so long, in that many units."""
    if length < timedelta(minutes=1):
        seconds = max(int(length.total_seconds()), 0)
        return ngettext("%d second", "%d seconds", seconds) % seconds
    now = timezone.now()
    return timesince(now - length, now, depth=units)


def below(first: object, second: object) -> str:
    """Two things in one column, the second in small letters."""
    return format_html('{}<span class="ent-below">{}</span>', first, second)


def block(text: str) -> str:
    """A text of several lines, as it is."""
    return format_html('<pre class="ent-block">{}</pre>', text) if text else NOTHING
