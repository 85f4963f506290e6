"""The words of an explanation, for people: in the language and the time zone of who reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .explanation import (
    AboutChange,
    AboutCustomer,
    AboutEntitlement,
    AboutEvent,
    AboutOverride,
    Case,
    Explanation,
)
from .in_force import GRANT, Term
from .wording import describe_bridge, describe_mode, format_moment

_MOST_KEYS = 12

_CAUSES = {
    "event": gettext_lazy("a webhook from Stripe said so"),
    "fetch": gettext_lazy("Stripe was asked and said so"),
    "link": gettext_lazy("the customer was linked"),
    "unlink": gettext_lazy("the customer was unlinked"),
    "override": gettext_lazy("by an override"),
    "expiry": gettext_lazy("an override ended"),
}


class Caused(Protocol):
    """A change of the log: the row itself, or what an explanation tells of it."""

    @property
    def cause(self) -> str: ...


class Paragraph(NamedTuple):
    """What there is to say under one label, a line each."""

    label: str
    lines: list[str]


def get_reason(told: Explanation) -> str:
    """Yes or no, and why, in one sentence."""
    because = _PLAIN_REASONS.get(told.case) or _REASONS[told.case](told)
    return (
        _("Yes: %(because)s") % {"because": because} if told.entitled else _("No: %(because)s") % {"because": because}
    )


def get_paragraphs(told: Explanation) -> list[Paragraph]:
    """The chain that leads to the answer, and what is still to come."""
    has_subscriber = told.subscriber_id is not None
    has_customers = has_subscriber or bool(told.customers)
    chain: list[tuple[bool, str, Iterable[str], list[str]]] = [
        (told.is_inactive, _("Not active"), [_("the user may not sign in, and gates on requests say no")], []),
        (True, _("Key"), _key_lines(told), []),
        (has_customers, _("Customers"), map(_customer_line, told.customers), [_("none is linked")]),
        (has_customers, _("Held by"), map(_entitlement_line, told.entitlements), [_("no customer")]),
        (has_subscriber, _("Overrides"), map(_override_line, told.overrides), [_("none of this key")]),
        (has_subscriber, _("All keys held"), filter(None, [_list_keys(told.held_keys)]), [_("none")]),
        (has_customers, _("Last changes"), map(_change_line, told.changes), [_("none on record")]),
        (has_customers, _("Still to come"), _pending_lines(told), [_("nothing")]),
        (has_subscriber, _("Cache"), _cache_lines(told), []),
        (True, _("As of"), [_as_of_line(told)], []),
    ]
    return [
        Paragraph(label, said) for applies, label, lines, nothing in chain if applies and (said := [*lines] or nothing)
    ]


def get_cause(change: Caused) -> str:
    """What a change came from."""
    return str(_CAUSES[change.cause])


# Reasons

_PLAIN_REASONS = {
    Case.FORCED: gettext_lazy("a test has set the answer."),
    Case.NOBODY: gettext_lazy("nobody is signed in, and strangers hold nothing."),
    Case.UNSAVED: gettext_lazy("this subscriber is not saved yet, so nothing can be linked or granted to it."),
}


def _unlinked(told: Explanation) -> str:
    return _("%(customer)s is linked to nobody here, so what it holds counts for no one.") % {
        "customer": told.customers[0].stripe_id
    }


def _denied(told: Explanation) -> str:
    return _("an override denies it %(until)s%(remark)s.") % _override_words(told.counting_overrides[0])


def _granted(told: Explanation) -> str:
    return _("an override grants it %(until)s%(remark)s.") % _override_words(told.counting_overrides[0])


def _to_come(told: Explanation) -> str:
    return _("an override grants it only from %(start)s on%(remark)s.") % _override_words(told.grants_to_come[0])


def _ended(told: Explanation) -> str:
    return _("the override that granted it ended on %(end)s%(remark)s.") % _override_words(told.grants_over[0])


def _held(told: Explanation) -> str:
    entitlement = told.entitlements[0]
    customer = next(row for row in told.live_customers if row.stripe_id == entitlement.customer)
    names = {"customer": customer.stripe_id}
    if entitlement.confirmed_at is None or customer.fetched_at is None:
        return _("%(customer)s holds it, as a webhook said; not confirmed yet.") % names
    if customer.missing_since:
        return _("%(customer)s holds it, as was confirmed before; since %(at)s Stripe does not know it.") % {
            **names,
            "at": format_moment(customer.missing_since),
        }
    return _("%(customer)s holds it, confirmed by Stripe on %(at)s.") % {
        **names,
        "at": format_moment(customer.fetched_at),
    }


def _other_spelling(told: Explanation) -> str:
    names = {"key": told.key, "other": told.other_spellings[0]}
    if told.other_spellings[0] in told.held_keys:
        return _("“%(other)s” is held, but “%(key)s” is another key: keys are compared exactly.") % names
    return _("no feature has the key “%(key)s”. Is “%(other)s” meant?") % names


def _no_customer(told: Explanation) -> str:
    if not told.losses or told.losses[0].cause != "unlink":
        return _("no Stripe customer is linked.")
    return _("no Stripe customer is linked any more: %(customer)s was unlinked on %(at)s.") % _change_words(
        told.losses[0]
    )


def _other_mode(told: Explanation) -> str:
    return _("all customers linked are in %(theirs)s (%(customers)s), and this site is in %(ours)s.") % {
        "customers": _list_customers(row for row in told.customers if not row.account),
        "theirs": describe_mode(not told.livemode),
        "ours": describe_mode(told.livemode),
    }


def _other_account(told: Explanation) -> str:
    return _("all customers linked are of another Stripe account than the site's own: %(customers)s.") % {
        "customers": _list_customers(told.customers)
    }


def _deleted(told: Explanation) -> str:
    own = [row for row in told.customers if row.is_own]
    last = max((row.deleted_at for row in own if row.deleted_at), default=told.as_of)
    return ngettext(
        "%(customers)s was deleted in Stripe on %(at)s.",
        "all customers linked were deleted in Stripe, the last one on %(at)s: %(customers)s.",
        len(own),
    ) % {"customers": _list_customers(own), "at": format_moment(last)}


def _unknown_to_stripe(told: Explanation) -> str:
    return _("Stripe says that it does not know %(customers)s in %(mode)s.") % {
        "customers": _list_customers(told.live_customers),
        "mode": describe_mode(told.livemode),
    }


def _not_heard_of(told: Explanation) -> str:
    return _("nothing has come from Stripe about %(customers)s yet.") % {
        "customers": _list_customers(told.live_customers)
    }


def _lost(told: Explanation) -> str:
    return _("%(customer)s held it until %(at)s: %(cause)s.") % _change_words(told.losses[0])


def _unknown_key(told: Explanation) -> str:
    return _("no feature and no override has the key “%(key)s”. Is it spelled right?") % {"key": told.key}


def _not_held(told: Explanation) -> str:
    if told.held_keys:
        return _("only other keys are held: %(keys)s.") % {"keys": _list_keys(told.held_keys)}
    return _("nothing is held by %(customers)s at present.") % {"customers": _list_customers(told.live_customers)}


_REASONS: dict[Case, Callable[[Explanation], str]] = {
    Case.UNLINKED: _unlinked,
    Case.DENIED: _denied,
    Case.HELD: _held,
    Case.GRANTED: _granted,
    Case.TO_COME: _to_come,
    Case.OTHER_SPELLING: _other_spelling,
    Case.ENDED: _ended,
    Case.NO_CUSTOMER: _no_customer,
    Case.OTHER_MODE: _other_mode,
    Case.OTHER_ACCOUNT: _other_account,
    Case.DELETED: _deleted,
    Case.UNKNOWN_TO_STRIPE: _unknown_to_stripe,
    Case.NOT_HEARD_OF: _not_heard_of,
    Case.LOST: _lost,
    Case.UNKNOWN_KEY: _unknown_key,
    Case.NOT_HELD: _not_held,
}


# Paragraphs


def _key_lines(told: Explanation) -> Iterator[str]:
    yield told.key
    for feature in told.features:
        line = _("%(name)s (%(feature)s)") if feature.name else _("%(feature)s, whose name is not known yet")
        archived = _("; archived in Stripe, where it is sold no more and stays with those who hold it")
        yield line % {"name": feature.name, "feature": feature.stripe_id} + (archived if feature.is_archived else "")
    if not told.is_known:
        yield _("no feature and no override has it; a new feature is known after manage.py entitlements_sync --catalog")
    elif not told.features:
        yield _("no feature has it, only overrides")
    if told.other_spellings:
        yield _("spelled alike: %(keys)s") % {"keys": _list_keys(told.other_spellings)}


def _customer_line(row: AboutCustomer) -> str:
    if row.account:
        line = _("%(customer)s: of the account %(account)s, so it does not count")
    elif not row.is_own:
        line = _("%(customer)s: in %(mode)s, so it does not count")
    elif row.deleted_at:
        line = _("%(customer)s: deleted in Stripe on %(deleted)s, so it does not count")
    elif row.missing_since:
        line = _("%(customer)s: unknown to Stripe since %(missing)s")
    elif row.fetched_at:
        line = _("%(customer)s: last confirmed by Stripe on %(fetched)s")
    elif row.is_heard_of:
        line = _("%(customer)s: known from webhooks only, not confirmed yet")
    else:
        line = _("%(customer)s: nothing has come from Stripe yet")
    return line % {
        "customer": row.stripe_id,
        "account": row.account,
        "mode": describe_mode(row.livemode),
        "deleted": format_moment(row.deleted_at) if row.deleted_at else "",
        "missing": format_moment(row.missing_since) if row.missing_since else "",
        "fetched": format_moment(row.fetched_at) if row.fetched_at else "",
    }


def _entitlement_line(row: AboutEntitlement) -> str:
    line = _("%(customer)s since %(at)s (%(entitlement)s, %(feature)s)") % {
        "customer": row.customer,
        "at": format_moment(row.since),
        "entitlement": row.stripe_id,
        "feature": row.feature.stripe_id,
    }
    return line if row.confirmed_at else line + _(", not confirmed yet")


def _override_line(row: AboutOverride) -> str:
    is_grant = row.effect == GRANT
    if row.term is Term.IN_FORCE:
        line = _("grants it since %(start)s, %(until)s") if is_grant else _("denies it since %(start)s, %(until)s")
    elif row.term is Term.TO_COME:
        line = _("will grant it from %(start)s, %(until)s") if is_grant else _("will deny it from %(start)s, %(until)s")
    elif row.is_bridge:
        line = _("bridged it from %(start)s %(until)s")
    else:
        line = _("granted it from %(start)s %(until)s") if is_grant else _("denied it from %(start)s %(until)s")
    words = _override_words(row)
    is_beaten = row.term is Term.IN_FORCE and not row.counts
    return line % words + words["remark"] + (_("; but a denial wins") if is_beaten else "")


def _override_words(row: AboutOverride) -> dict[str, str]:
    end = format_moment(row.expires_at) if row.expires_at else ""
    reason = " ".join(row.reason.split())
    remark = _(", “%(reason)s”") % {"reason": reason} if reason else ""
    if row.author:
        remark += _(" (by %(author)s)") % {"author": row.author}
    return {
        "start": format_moment(row.starts_at),
        "end": end,
        "until": _until(row),
        "remark": remark,
    }


def _until(row: AboutOverride) -> str:
    if row.expires_at is None:
        return _("for good")
    at = {"at": format_moment(row.expires_at)}
    return describe_bridge(row.expires_at) if row.is_bridge and row.term is not Term.OVER else _("until %(at)s") % at


def _change_line(row: AboutChange) -> str:
    line = _("%(at)s: gained, %(cause)s") if row.kind == "granted" else _("%(at)s: lost, %(cause)s")
    line = line % _change_words(row) + (f" ({row.customer})" if row.customer else "")
    return line if row.effective else line + _("; the answer stayed the same")


def _change_words(row: AboutChange) -> dict[str, str]:
    return {"customer": row.customer, "at": format_moment(row.at), "cause": get_cause(row)}


def _pending_lines(told: Explanation) -> Iterator[str]:
    if told.live_customers and not told.has_api_key:
        yield _("Stripe cannot be asked: ENTITLEMENTS_STRIPE_API_KEY is not set")
    elif told.live_customers and told.calls_stopped:
        yield _("Stripe is not asked since it refused the API key: %(reason)s") % {"reason": told.calls_stopped}
    for customer in told.live_customers:
        for event in customer.events:
            yield _event_line(event, customer)
        if customer.next_fetch_at is not None:
            yield _fetch_line(customer, customer.next_fetch_at, told.as_of)


def _event_line(event: AboutEvent, customer: AboutCustomer) -> str:
    if event.status == "failed":
        line = _("%(customer)s: the webhook %(event)s of %(at)s could not be processed, so Stripe is to be asked")
    else:
        line = _("%(customer)s: the webhook %(event)s of %(at)s waits to be processed")
    return line % {
        "customer": customer.stripe_id,
        "event": event.stripe_id,
        "at": format_moment(event.received_at),
    }


def _fetch_line(customer: AboutCustomer, planned_at: datetime, now: datetime) -> str:
    when = _("as soon as possible") if planned_at <= now else _("on %(at)s") % {"at": format_moment(planned_at)}
    if customer.hinted_at is None:
        return _("%(customer)s: to be confirmed again %(when)s") % {"customer": customer.stripe_id, "when": when}
    return _("%(customer)s: Stripe is to be asked %(when)s, because of what happened on %(at)s") % {
        "customer": customer.stripe_id,
        "when": when,
        "at": format_moment(customer.hinted_at),
    }


def _cache_lines(told: Explanation) -> Iterator[str]:
    if told.cache and told.cache.entitled is not told.entitled:
        yes, no = (
            _("gates may answer yes for a while, as of %(at)s"),
            _("gates may answer no for a while, as of %(at)s"),
        )
        yield (yes if told.cache.entitled else no) % {"at": format_moment(told.cache.as_of)}


def _as_of_line(told: Explanation) -> str:
    return _("%(at)s, in %(mode)s; times are of %(zone)s") % {
        "at": format_moment(told.as_of),
        "mode": describe_mode(told.livemode),
        "zone": timezone.get_current_timezone_name(),
    }


# Lists


def _list_customers(rows: Iterable[AboutCustomer]) -> str:
    return ", ".join(row.stripe_id for row in rows)


def _list_keys(keys: Sequence[str]) -> str:
    listed = ", ".join(keys[:_MOST_KEYS])
    more = len(keys) - _MOST_KEYS
    return listed if more <= 0 else _("%(keys)s and %(more)d more") % {"keys": listed, "more": more}
