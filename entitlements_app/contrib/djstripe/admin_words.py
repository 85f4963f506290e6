"""What dj-stripe's pages in the admin say of our rows of the same object, each in two or three queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from entitlements_app import conf
from entitlements_app.access import get_entitlements
from entitlements_app.admin.event_words import get_meaning
from entitlements_app.admin.links import link
from entitlements_app.models import Customer, Product, WebhookEvent
from entitlements_app.subscribers import is_subscriber
from entitlements_app.wording import describe_mode

from .accounts import is_own, is_own_account, owner_of
from .customers import COMMAND as LINK_ALL

_M = TypeVar("_M", Customer, Product, WebhookEvent)

Address = Callable[[Model], str]

LISTED = 20
READ_CATALOGUE = "manage.py entitlements_sync --catalog"


def of_customer(theirs: Any, address: Address) -> str:
    """What it holds, with a link to its page here; whom that counts for; what to do if that is not dj-stripe's."""
    row = _row_of(Customer.objects.select_related("subscriber"), theirs)
    whose = _subscriber_of(theirs)
    if row is None:
        return _lines(*_unknown_customer(theirs, whose))
    keys = sorted(set(row.active_entitlements.values_list("lookup_key", flat=True)))
    number = ngettext("%d active entitlement", "%d active entitlements", len(keys)) % len(keys)
    return _lines(_named(link(address(row), number), keys), *_counts_for(row, whose, keys))


def of_product(theirs: Any, address: Address) -> str:
    """Its features, with a link to its page here."""
    row = _row_of(Product.objects.all(), theirs)
    if row is None:
        if not is_own(theirs):
            return _lines(_of_other_account())
        return _lines(
            _("It is not known here yet."),
            _remedy(_("Active products are read once a day. To read them now: %(command)s"), READ_CATALOGUE),
        )
    attached = row.product_features.order_by("feature__lookup_key").values_list("feature__lookup_key", flat=True)
    keys = list(attached)
    number = ngettext("%d feature", "%d features", len(keys)) % len(keys)
    lines: list[str] = [_named(link(address(row), number), keys)]
    if row.features_read_at is None and not keys:
        lines.append(_remedy(_("Stripe has not been asked about them yet. To ask now: %(command)s"), READ_CATALOGUE))
    return _lines(*lines)


def of_event(theirs: Any, address: Address) -> str:
    """How it ended in the inbox, with a link to its page here."""
    row = _row_of(WebhookEvent.objects.defer("payload"), theirs)
    if row is None:
        is_of_other = not is_own(theirs)
        return _lines(_of_other_account() if is_of_other else _("It is not in the inbox, or not any more."))
    return _lines(link(address(row), row.get_status_display()), row.error or get_meaning(row))


def _of_other_account() -> str:
    return _("It is of another Stripe account than this site's, so nothing of it is kept here.")


def _row_of(rows: QuerySet[_M], theirs: Any) -> _M | None:
    """Ours: of the same ID, mode and account."""
    owner = owner_of(theirs)
    account = "" if is_own_account(owner) else owner
    return rows.filter(stripe_id=theirs.id, account=account, livemode=theirs.livemode).first()


def _subscriber_of(theirs: Any) -> Model | None:
    """dj-stripe's, if it is one of ours."""
    return theirs.subscriber if is_subscriber(theirs.subscriber) else None


def _unknown_customer(theirs: Any, whose: Model | None) -> list[str]:
    if not is_own(theirs):
        return [_of_other_account()]
    if whose is None:
        return [_("It is not known here yet: it has no subscriber, and Stripe has told nothing of it.")]
    return [_("It is not known here yet."), _remedy(_("To link it to its subscriber: %(command)s"), LINK_ALL)]


def _counts_for(row: Customer, whose: Model | None, held: Sequence[str]) -> list[str]:
    if row.deleted_at is not None:
        return [_("It is deleted in Stripe, which is final.")]
    if row.account:
        return [_("It is of another Stripe account: what it holds counts for nobody here.")]
    if row.livemode is not conf.livemode():
        modes = {"its": describe_mode(row.livemode), "ours": describe_mode(conf.livemode())}
        return [_("It is of %(its)s and this site of %(ours)s: what it holds counts for nobody here.") % modes]
    if row.subscriber is None:
        lines: list[str] = [_("It is linked to nobody here: what it holds counts for nobody.")]
        if whose is not None:
            lines.append(_remedy(_("To link it to its subscriber: %(command)s"), LINK_ALL))
        return lines
    if whose is not None and whose.pk != row.subscriber.pk:
        names = {"ours": row.subscriber, "theirs": whose}
        text = _("It is linked here to another subscriber: what it holds counts for %(ours)s, not for %(theirs)s.")
        remedy = _("To move it, link it on its page here. To move all that differ: %(command)s")
        return [text % names, _remedy(remedy, f"{LINK_ALL} --move")]
    answer = list(get_entitlements(row.subscriber))
    if answer == list(held):
        return [_("That is what %(subscriber)s is entitled to.") % {"subscriber": row.subscriber}]
    text = _("With overrides and other customers, %(subscriber)s is entitled to: %(keys)s")
    return [text % {"subscriber": row.subscriber, "keys": _listed(answer) or _("nothing")}]


def _named(number: str, keys: Sequence[str]) -> str:
    return format_html("{}: {}", number, _listed(keys)) if keys else number


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:LISTED]) + (", …" if len(keys) > LISTED else "")


def _remedy(text: str, command: str) -> str:
    """With the command in the place of `%(command)s`."""
    before, after = text.split("%(command)s")
    return format_html("{}<code>{}</code>{}", before, command, after)


def _lines(*lines: str) -> str:
    return format_html_join("", "<div>{}</div>", [[conditional_escape(line)] for line in lines])
