"""Explain an answer: why a subscriber is entitled to a lookup key, or is not. For people; a gate asks `access`.

The database that is written to is read, in the same few queries for everybody, and Stripe is not asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model, Q, Value
from django.utils import timezone

from . import answers, budget, cache, conf, explanation_text, forced_answers
from .explanation import (
    AboutCache,
    AboutChange,
    AboutCustomer,
    AboutEntitlement,
    AboutEvent,
    AboutFeature,
    AboutOverride,
    Case,
    Explanation,
)
from .in_force import DENY, GRANT, Term, combine
from .lookup_keys import check_key
from .models import ActiveEntitlement, Customer, EntitlementChange, EntitlementOverride, Feature, WebhookEvent
from .subscribers import is_nobody, subscriber_key
from .transactions import alias, own, primary

LAST_CHANGES = 10

Catalogue = Mapping[str, tuple[AboutFeature, ...]]


def explain(subscriber: object, key: str, *, catalogue: Catalogue | None = None) -> Explanation:
    """Why this subscriber is entitled to this lookup key now, or is not, in the configured mode.

    `entitled` is what every gate answers that does not ask a cache. `None`, anonymous users and unsaved instances are
    explained, too. `catalogue` is for who has just read it. Raises `TypeError` for what is no key, or an instance of
    another model than the subscriber's.
    """
    key = check_key(key)
    pk = subscriber_key(subscriber)
    catalogue = read_catalogue() if catalogue is None else catalogue
    if pk is None:
        facts = _read(key, None, [], catalogue)
        facts = replace(facts, case=Case.NOBODY if is_nobody(subscriber) else Case.UNSAVED)
    else:
        facts = _read(key, pk, list(primary(Customer).filter(subscriber_id=pk).order_by("pk")), catalogue)
    forced = None if is_nobody(subscriber) else forced_answers.keys_of(subscriber, pk)
    if forced is not None:
        facts = replace(facts, case=Case.FORCED, entitled=key in forced, held_keys=tuple(sorted(forced)))
    elif pk is not None:
        facts = replace(facts, case=_case(facts))
    return replace(facts, is_inactive=_is_inactive(subscriber), reason=explanation_text.get_reason(facts))


def explain_customer(customer: Customer, key: str, *, catalogue: Catalogue | None = None) -> Explanation:
    """The same about a customer that is linked to nobody: what it holds counts for no one."""
    key = check_key(key)
    catalogue = read_catalogue() if catalogue is None else catalogue
    facts = replace(_read(key, None, [customer], catalogue), case=Case.UNLINKED)
    return replace(facts, reason=explanation_text.get_reason(facts))


def explain_found(found: Model, key: str, *, catalogue: Catalogue | None = None) -> Explanation:
    """The same about a subscriber, or about a customer, which is about its subscriber if it has one."""
    subscriber = found.subscriber if isinstance(found, Customer) else found
    if subscriber is None and isinstance(found, Customer):
        return explain_customer(found, key, catalogue=catalogue)
    return explain(subscriber, key, catalogue=catalogue)


def read_catalogue() -> Catalogue:
    """Each known lookup key in order, and the features that have it, archived ones last: none, if only overrides do."""
    features = own(Feature)
    overrides = primary(EntitlementOverride)
    known = features.values_list("lookup_key", "pk", "stripe_id", "name", "active").union(
        overrides.values_list("lookup_key", Value(0), Value(""), Value(""), Value(False))
    )
    catalogue: defaultdict[str, tuple[AboutFeature, ...]] = defaultdict(tuple)
    for key, _pk, stripe_id, name, active in sorted(known, key=lambda row: (row[0], not row[4], row[1])):
        catalogue[key] += (AboutFeature(stripe_id, name, is_archived=not active),) if stripe_id else ()
    return dict(catalogue)


def _is_inactive(subscriber: object) -> bool:
    """Whether a request of this user is nobody's, unless the site's own function says whose it is."""
    if not isinstance(subscriber, AbstractBaseUser) or subscriber.is_active:
        return False
    return conf.subscriber_from_request() is None


# Which case it is


def _case(facts: Explanation) -> Case:
    counting = {row.effect for row in facts.counting_overrides}
    if DENY in counting:
        return Case.DENIED
    if facts.entitlements:
        return Case.HELD
    if GRANT in counting:
        return Case.GRANTED
    if facts.grants_to_come:
        return Case.TO_COME
    if set(facts.other_spellings) & set(facts.held_keys) or (facts.other_spellings and not facts.is_known):
        return Case.OTHER_SPELLING
    if facts.grants_over and not _is_lost_since(facts, facts.grants_over[0]):
        return Case.ENDED
    return _case_of_customers(facts)


def _is_lost_since(facts: Explanation, over: AboutOverride) -> bool:
    return any(over.expires_at is not None and loss.at > over.expires_at for loss in facts.losses)


def _case_of_customers(facts: Explanation) -> Case:
    live = facts.live_customers
    if not facts.customers:
        return Case.NO_CUSTOMER
    if not any(customer.is_own for customer in facts.customers):
        in_other_mode = any(not customer.account for customer in facts.customers)
        return Case.OTHER_MODE if in_other_mode else Case.OTHER_ACCOUNT
    if not live:
        return Case.DELETED
    if all(customer.missing_since for customer in live):
        return Case.UNKNOWN_TO_STRIPE
    if not any(customer.is_heard_of for customer in live):
        return Case.NOT_HEARD_OF
    if facts.losses:
        return Case.LOST
    return Case.NOT_HELD if facts.is_known else Case.UNKNOWN_KEY


# What the database says


def _read(key: str, subscriber_id: Any, customers: Sequence[Customer], catalogue: Catalogue) -> Explanation:
    now, mode = timezone.now(), conf.livemode()
    rows = _entitlements(customers, mode)
    overrides = _overrides(subscriber_id, key, now, mode)
    held: frozenset[str] = frozenset()
    if subscriber_id is not None:
        held, _ = combine({row.lookup_key for row in rows}, [row.period for row in overrides], now=now)
    alike = {other for other in catalogue.keys() | held if other != key and _folded(other) == _folded(key)}
    return Explanation(
        entitled=key in held,
        key=key,
        subscriber_id=subscriber_id,
        livemode=mode,
        as_of=now,
        is_known=key in catalogue,
        other_spellings=(*sorted(alike & held), *sorted(alike - held)),
        held_keys=tuple(sorted(held)),
        features=catalogue.get(key, ()),
        customers=_about_customers(customers, mode),
        entitlements=tuple(_about_entitlement(row) for row in rows if row.lookup_key == key),
        overrides=_about_overrides([row for row in overrides if row.lookup_key == key], now),
        changes=_changes(subscriber_id, customers, key, mode),
        cache=_cached(subscriber_id, key, mode),
        has_api_key=conf.stripe_api_key() is not None,
        calls_stopped=budget.stopped_reason(),
    )


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]+", "_", key.strip().casefold())


def _entitlements(customers: Iterable[Customer], livemode: bool) -> list[ActiveEntitlement]:
    """Whatever counts of what these customers hold, the latest confirmed first."""
    granting = ActiveEntitlement.objects.using(alias()).granting(livemode)
    rows = granting.filter(customer__in=[customer.pk for customer in customers])
    return list(rows.select_related("customer", "feature").order_by("-customer__fetched_at", "pk"))


def _overrides(subscriber_id: Any, key: str, now: datetime, livemode: bool) -> list[EntitlementOverride]:
    """Those of the key, and of other keys those that count or will."""
    if subscriber_id is None:
        return []
    of_mode = EntitlementOverride.objects.using(alias()).in_mode(livemode)
    of_subscriber = of_mode.filter(subscriber_id=subscriber_id)
    rows = of_subscriber.not_over(now) | of_subscriber.filter(lookup_key=key)
    return list(rows.select_related("author"))


def _changes(subscriber_id: Any, customers: Sequence[Customer], key: str, livemode: bool) -> tuple[AboutChange, ...]:
    """The last ones, newest first: also of a customer before it was linked, but not while it was somebody else's."""
    whose = Q(customer__in=[customer.pk for customer in customers])
    if subscriber_id is not None:
        whose = Q(subscriber_id=subscriber_id) | (whose & Q(subscriber=None))
    rows = primary(EntitlementChange).filter(whose, lookup_key=key, livemode=livemode)
    return tuple(
        AboutChange(
            row.pk, row.kind, row.cause, row.effective, row.customer.stripe_id if row.customer else "", row.created_at
        )
        for row in rows.select_related("customer").order_by("-pk")[:LAST_CHANGES]
    )


def _cached(subscriber_id: Any, key: str, livemode: bool) -> AboutCache | None:
    held = None if subscriber_id is None else cache.held(subscriber_id, livemode=livemode)
    return None if held is None else AboutCache(key in held.keys, answers.moment(held.as_of))


def _about_feature(row: Feature) -> AboutFeature:
    return AboutFeature(row.stripe_id, row.name, is_archived=not row.active)


def _about_entitlement(row: ActiveEntitlement) -> AboutEntitlement:
    feature = _about_feature(row.feature)
    return AboutEntitlement(row.stripe_id, row.customer.stripe_id, feature, row.created_at, row.confirmed_at)


def _about_overrides(rows: Sequence[EntitlementOverride], now: datetime) -> tuple[AboutOverride, ...]:
    """In force, denials first; to come, the next first; over, the last first."""
    denied = any(row.effect == DENY and row.period.is_in_force(now) for row in rows)
    found = [
        AboutOverride(
            id=row.pk,
            effect=row.effect,
            term=row.period.term(now),
            counts=row.period.is_in_force(now) and (row.effect == DENY or not denied),
            starts_at=row.starts_at,
            expires_at=row.expires_at,
            reason=row.reason,
            author=str(row.author.get_username()) if row.author else "",
            is_bridge=row.is_bridge,
        )
        for row in rows
    ]
    in_force = [row for row in found if row.term is Term.IN_FORCE]
    to_come = [row for row in found if row.term is Term.TO_COME]
    over = [row for row in found if row.term is Term.OVER]
    return (
        *sorted(in_force, key=lambda row: (not row.counts, row.effect, row.expires_at is not None, row.id)),
        *sorted(to_come, key=lambda row: (row.starts_at, row.id)),
        *sorted(over, key=lambda row: (row.expires_at or now, row.id), reverse=True),
    )


def _about_customers(customers: Sequence[Customer], livemode: bool) -> tuple[AboutCustomer, ...]:
    own = {row.stripe_id: row for row in customers if not row.account and row.livemode is livemode}
    events = _events(own, livemode)
    return tuple(
        AboutCustomer(
            stripe_id=row.stripe_id,
            account=row.account,
            livemode=row.livemode,
            is_own=own.get(row.stripe_id) is row,
            is_heard_of=row.window is not None,
            fetched_at=row.fetched_at,
            deleted_at=row.deleted_at,
            missing_since=row.missing_since,
            hinted_at=row.hinted_at,
            urgent=row.urgent,
            next_fetch_at=row.next_fetch_at,
            events=tuple(events[row.stripe_id]) if own.get(row.stripe_id) is row else (),
        )
        for row in customers
    )


def _events(customers: dict[str, Customer], livemode: bool) -> defaultdict[str, list[AboutEvent]]:
    """Events of these customers that are not processed, oldest first. What Stripe was asked for since is mended."""
    unfinished = Q(status=WebhookEvent.Status.PENDING) | Q(status=WebhookEvent.Status.FAILED)
    rows = primary(WebhookEvent).filter(unfinished, customer_stripe_id__in=customers, account="", livemode=livemode)
    found: defaultdict[str, list[AboutEvent]] = defaultdict(list)
    for row in rows.defer("payload").order_by("pk"):
        asked_at = customers[row.customer_stripe_id].fetched_at
        if row.status == WebhookEvent.Status.FAILED and asked_at is not None and asked_at > row.received_at:
            continue
        found[row.customer_stripe_id].append(
            AboutEvent(row.stripe_id, row.type, row.status, row.received_at, row.next_attempt_at, row.error)
        )
    return found
