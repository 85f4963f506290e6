"""The gaps in words, and as data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from entitlements_app import bridges, conf
from entitlements_app.answers import moment
from entitlements_app.counts import today
from entitlements_app.gap_store import Gap, GapStore, Group
from entitlements_app.gaps import NAMED, Scan
from entitlements_app.models import Customer, Feature, Product
from entitlements_app.transactions import own, primary
from entitlements_app.who_is_meant import get_name
from entitlements_app.wording import format_moment

from . import reading
from .plan_text import printable
from .terminal import number

RENEW = "To read them now: manage.py entitlements_sync --catalog"


class Names:
    """What products and features are called, and when a feature was attached."""

    def __init__(self) -> None:
        self._products = dict(own(Product).values_list("stripe_id", "name"))
        features = own(Feature).filter(product_features__isnull=False).distinct()
        self._features = {row.stripe_id: row for row in features}

    def product(self, stripe_id: str) -> str:
        return self._products.get(stripe_id) or ""

    def of_product(self, stripe_id: str) -> str:
        name = self.product(stripe_id)
        return printable(f"{name} ({stripe_id})" if name else stripe_id)

    def of_feature(self, group: Group) -> str:
        row = self._features.get(group.feature)
        archived = ", archived, which still grants" if row and not row.active else ""
        return printable(f"“{group.lookup_key}” ({group.feature}{archived})")

    def attached_at(self, feature: str) -> datetime | None:
        row = self._features.get(feature)
        return row.attached_at if row else None


def get_catalogue_age() -> tuple[datetime | None, datetime | None]:
    """When the features of products were read: the oldest and the newest of it."""
    rows = own(Product).filter(features_read_at__isnull=False)
    times = rows.filter(product_features__isnull=False).values_list("features_read_at", flat=True)
    found = list(times.order_by("features_read_at").distinct())
    return (found[0], found[-1]) if found else (None, None)


def age_line() -> str:
    oldest, newest = get_catalogue_age()
    if oldest is None or newest is None:
        return f"Features of products were not read from Stripe yet: known is what was changed from here. {RENEW}"
    when = format_moment(newest)
    if format_moment(oldest) != when:
        when = f"{when}, the oldest part of it on {format_moment(oldest)}"
    return f"Features of products as last read on {when}. {RENEW}"


def lines(scan: Scan, names: Names, *, most: int) -> Iterator[str]:
    """The whole report for people."""
    gaps, customers = scan.store.count()
    for group in scan.store.groups():
        yield from _group_lines(scan.store, group, names, most=most)
        yield ""
    if gaps:
        lack = "lacks" if customers == 1 else "lack"
        yield f"{number(customers, 'customer')} {lack} what Stripe owes: {number(gaps, 'gap')}."
    else:
        yield _nothing(scan)
    yield from _doubt_lines(scan)
    yield age_line()


def _group_lines(store: GapStore, group: Group, names: Names, *, most: int) -> Iterator[str]:
    lack = "lacks" if group.customers == 1 else "lack"
    yield f"{names.of_product(group.product)}: {number(group.customers, 'customer')} {lack} {names.of_feature(group)}."
    yield "  " + _why(store, group, names)
    shown = store.of_group(group, most=most)
    people = read_people(shown)
    for gap in shown:
        person = people.get(gap.customer_pk, NOBODY)
        yield f"  {gap.customer}  {person.name}"
        yield f"      {_since(gap)}"
        if gap.holder:
            yield f"      {gap.holder}, of the same subscriber, has it"
        elif until := person.bridges.get(gap.lookup_key):
            yield f"      bridged, at most until {format_moment(until)}"
    if (more := group.customers - len(shown)) > 0:
        yield f"  … and {more:,} more; --most N lists more of them"


def _why(store: GapStore, group: Group, names: Names) -> str:
    attached_at = names.attached_at(group.feature)
    if attached_at is None:
        return "It was attached before the catalogue was first read here, so when is not known."
    aware = attached_at if timezone.is_aware(attached_at) else timezone.make_aware(attached_at)
    older = store.begun_before(group, int(aware.timestamp()))
    return (
        f"It was attached to a product by {format_moment(attached_at)}; "
        f"{older:,} of {number(group.customers, 'subscription')} {'is' if older == 1 else 'are'} older."
    )


def _since(gap: Gap) -> str:
    text = f"{gap.subscription} since {format_moment(moment(gap.since))}"
    return text + (f", next period from {format_moment(moment(gap.period_end))}" if gap.period_end else "")


def _nothing(scan: Scan) -> str:
    if not scan.live:
        what = f"for {' and '.join(filter(None, scan.scope))}" if not scan.scope.is_whole else "in this account"
        doubt = "" if _is_known(scan.scope.customer) else " This customer is not known here: is the ID right?"
        return (
            f"No gaps: there is no live subscription (trialing, active or past due) {what}, in {reading.mode()} mode."
            f"{doubt}"
        )
    some = scan.unconfirmed or scan.unsettled or scan.too_new or scan.unread
    whom = "nobody who can be judged" if some else "nobody"
    return f"No gaps: {number(scan.live, 'live subscription')}, and {whom} lacks a feature of their products."


def _is_known(customer: str) -> bool:
    """Whether there is nothing to doubt about the ID of the customer whom the report is about, if it is about one."""
    return not customer or own(Customer).filter(stripe_id=customer).exists()


def _doubt_lines(scan: Scan) -> Iterator[str]:
    """Of whom nothing is said."""
    if scan.others:
        yield f"Not looked at: {number(scan.others, 'subscription')} neither trialing, active nor past due."
    if scan.too_new:
        yield f"Not judged: {number(scan.too_new, 'subscription')} less than a minute old; Stripe may still compute."
    if scan.unsettled:
        yield f"Not judged: {number(scan.unsettled, 'customer')} with news of the last minute. Run it again."
    if scan.unconfirmed:
        yield f"Not judged: {number(scan.unconfirmed, 'customer')} of whom Stripe said nothing usable; see the log."
    if scan.unread:
        named = sorted(scan.unread_products) + ["…"] * (len(scan.unread_products) == NAMED)
        yield (
            f"Not judged: {number(scan.unread, 'subscription')} to products whose features are not known here "
            f"({', '.join(named)}): archived ones, perhaps, or new ones."
        )


def what_can_be_done() -> list[str]:
    return [
        "What can be done:",
        "  Wait. Stripe should grant it when the next period of the subscription begins; at times it does not.",
        "  Touch the subscription at Stripe: change its items, for example to another price of the product. Stripe "
        "then computes anew what it grants.",
        f"  Bridge it: manage.py entitlements_catalog gaps --bridge until={today() + timedelta(days=60)} --dry-run",
        "  shows whom that would grant what, until Stripe does. For the whole story: manage.py entitlements_explain.",
    ]


class Person(NamedTuple):
    """Whose customer it is, as a line can show it, and until when bridges of which keys stand."""

    name: str
    key: str | None
    bridges: Mapping[str, datetime]


NOBODY = Person("linked to nobody", None, {})


def read_people(gaps: Sequence[Gap]) -> dict[int, Person]:
    """By the customer's primary key."""
    rows = primary(Customer).filter(pk__in={gap.customer_pk for gap in gaps}, subscriber__isnull=False)
    found = list(rows.select_related("subscriber"))
    bridged: defaultdict[Any, dict[str, datetime]] = defaultdict(dict)
    standing = bridges.standing(livemode=conf.livemode()).filter(subscriber_id__in={row.subscriber_id for row in found})
    for pk, key, until in standing.values_list("subscriber_id", "lookup_key", "expires_at"):
        if until is not None:
            bridged[pk][key] = until
    return {
        row.pk: Person(printable(get_name(row.subscriber)), str(row.subscriber_id), bridged[row.subscriber_id])
        for row in found
        if row.subscriber is not None
    }


# For scripts


def write_json(write: Callable[[str], object], scan: Scan, names: Names, bridged: dict[str, Any] | None) -> None:
    """One object, written piece by piece: there may be many gaps."""
    oldest, newest = get_catalogue_age()
    gaps, customers = scan.store.count()
    head = {
        "livemode": conf.livemode(),
        "as_of": timezone.now(),
        "catalogue_read_at": {"oldest": oldest, "newest": newest},
        "scope": scan.scope._asdict(),
        "subscriptions": {"live": scan.live, "other": scan.others},
        "not_judged": {
            "too_new": scan.too_new,
            "unsettled": scan.unsettled,
            "unconfirmed": scan.unconfirmed,
            "products_not_known": scan.unread,
        },
        "counts": {"gaps": gaps, "customers": customers},
        "bridges": bridged,
    }
    write(_dumped(head)[:-1] + ', "gaps": [')
    separator = "\n"
    for batch in scan.store.batches():
        people = read_people(batch)
        for gap in batch:
            write(separator + _dumped(_as_data(gap, names, people.get(gap.customer_pk, NOBODY))))
            separator = ",\n"
    write("\n]}\n")


def _as_data(gap: Gap, names: Names, person: Person) -> dict[str, Any]:
    return {
        "product": gap.product,
        "product_name": names.product(gap.product),
        "feature": gap.feature,
        "lookup_key": gap.lookup_key,
        "attached_at": names.attached_at(gap.feature),
        "customer": gap.customer,
        "subscriber": person.key,
        "subscription": gap.subscription,
        "since": moment(gap.since),
        "next_period": moment(gap.period_end) if gap.period_end else None,
        "held_by": gap.holder or None,
        "bridged_until": person.bridges.get(gap.lookup_key),
    }


def _dumped(data: dict[str, Any]) -> str:
    return json.dumps(data, cls=DjangoJSONEncoder)
