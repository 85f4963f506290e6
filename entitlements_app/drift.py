"""Why a fetch found something that nobody had told: the likely cause, by lookup key.

What a webhook event has told, or is about to tell, is no drift: an event that came with more entitlements than it could
carry, or one that is still pending when an early fetch comes first, is news that arrived. One that somebody waits for
after a checkout is still on its way. Nor is the first look at a customer of whom nothing was known drift.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from .diff import Difference
from .models import EntitlementChange, Feature, WebhookEvent
from .stripe_objects import CUSTOMER_DELETED, SUMMARY_UPDATED, parse_summary
from .transactions import primary
from .windows import SETTLE

Drift = EntitlementChange.Drift

# A subscription follows the catalogue with its next period, which may be a year away.
LONGEST_PERIOD = timedelta(days=366)


@dataclass(frozen=True)
class Finding:
    """What a fetch found: keys moved from those `held`. `early`: Stripe may not have settled since the last news.

    `awaited`: news was expected, and nobody knows yet whether it gets lost. `since` is when what was held had last been
    looked at, or news of it came.
    """

    customer_id: int
    stripe_id: str
    held: frozenset[str]
    keys: Difference
    since: datetime
    early: bool
    awaited: bool
    deleted: bool


def causes(findings: Sequence[Finding], *, livemode: bool) -> dict[int, dict[str, Drift]]:
    """The likely cause of each key that drifted, by customer. In at most two queries."""
    changed = [finding for finding in findings if finding.keys]
    if not changed:
        return {}
    events = _events(changed, livemode=livemode)
    drifted = [finding for finding in changed if not _is_told(finding, events[finding.stripe_id])]
    catalog = _catalog(drifted, livemode=livemode)
    return {finding.customer_id: _causes(finding, events[finding.stripe_id], catalog) for finding in drifted}


def _events(findings: Sequence[Finding], *, livemode: bool) -> defaultdict[str, list[WebhookEvent]]:
    """Events since then, and those not processed yet, newest first."""
    stripe_ids = [finding.stripe_id for finding in findings]
    since = min(finding.since for finding in findings) - SETTLE
    rows = primary(WebhookEvent).filter(
        Q(received_at__gte=since) | Q(status=WebhookEvent.Status.PENDING),
        customer_stripe_id__in=stripe_ids,
        account="",
        livemode=livemode,
    )
    events = defaultdict(list)
    for event in rows.exclude(status=WebhookEvent.Status.IGNORED).order_by("-pk"):
        events[event.customer_stripe_id].append(event)
    return events


def _is_told(finding: Finding, events: Sequence[WebhookEvent]) -> bool:
    """Whether a delivered event told of it, or still may."""
    if any(event.status == WebhookEvent.Status.PENDING and event.sent_at is not None for event in events):
        return True
    news = [event for event in _since(finding, events) if event.type in (SUMMARY_UPDATED, CUSTOMER_DELETED)]
    if not news:
        return finding.awaited
    if not _is_delivered(news[0]):  # polled: it should have come
        return False
    if finding.early:
        return True
    delivered = [event for event in news if _is_delivered(event)]
    newest = max(event.created or 0 for event in delivered)
    return any(not _says(event, finding.held) for event in delivered if (event.created or 0) == newest)


def _since(finding: Finding, events: Sequence[WebhookEvent]) -> list[WebhookEvent]:
    return [event for event in events if event.received_at >= finding.since - SETTLE]


def _is_delivered(event: WebhookEvent) -> bool:
    return event.type in (SUMMARY_UPDATED, CUSTOMER_DELETED) and event.sent_at is not None


def _says(event: WebhookEvent, held: frozenset[str]) -> bool:
    """Whether the event's payload is what was held: then it does not tell of what was found."""
    if event.type != SUMMARY_UPDATED or event.payload is None:
        return False
    summary = parse_summary(event.payload, livemode=event.livemode)
    return summary.complete and {grant.lookup_key for grant in summary.grants} == held


def _catalog(findings: Sequence[Finding], *, livemode: bool) -> dict[str, set[str]]:
    """Keys whose feature was lately attached to a product (`gained`), or taken from one (`lost`)."""
    keys = {key for finding in findings for key in finding.keys.gained | finding.keys.lost}
    moved: dict[str, set[str]] = {"gained": set(), "lost": set()}
    if keys:
        lately = timezone.now() - LONGEST_PERIOD
        features = primary(Feature).filter(account="", livemode=livemode, lookup_key__in=keys)
        features = features.filter(Q(attached_at__gte=lately) | Q(detached_at__gte=lately))
        for key, attached_at, detached_at in features.values_list("lookup_key", "attached_at", "detached_at"):
            if attached_at and attached_at >= lately:
                moved["gained"].add(key)
            if detached_at and detached_at >= lately:
                moved["lost"].add(key)
    return moved


def _causes(finding: Finding, events: Sequence[WebhookEvent], catalog: dict[str, set[str]]) -> dict[str, Drift]:
    # What else was heard meanwhile (polled, or about a subscription) says that an event should have come.
    if finding.deleted or any(not _is_delivered(event) for event in _since(finding, events)):
        return dict.fromkeys(finding.keys.gained | finding.keys.lost, Drift.EVENT_LOST)
    return _by_catalog(finding.keys.gained, catalog["gained"]) | _by_catalog(finding.keys.lost, catalog["lost"])


def _by_catalog(keys: Collection[str], moved: set[str]) -> dict[str, Drift]:
    return {key: Drift.CATALOG if key in moved else Drift.UNKNOWN for key in keys}
