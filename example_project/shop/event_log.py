"""The log that pages show: what arrived from Stripe, and what it changed. Read from this app's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from entitlements_app.middleware import EntitlementsHttpRequest
from entitlements_app.models import Customer, EntitlementChange, WebhookEvent

from .orders import has_waited_long

ROWS = 12
ONE_WRITE = timedelta(seconds=1)
SUMMARY = "entitlements.active_entitlement_summary.updated"
TITLES = {
    "fetch": "Stripe was asked",
    "link": "customer linked",
    "unlink": "customer unlinked",
    "override": "granted or denied by hand",
    "expiry": "an override has ended",
}


@dataclass
class Row:
    """A webhook, or news that came without one: then `event` is `None`."""

    at: datetime
    title: str
    user: str
    event: WebhookEvent | None = None
    granted: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        return self.event is not None and self.event.sent_at is not None

    def note(self, change: EntitlementChange) -> None:
        (self.granted if change.kind == EntitlementChange.Kind.GRANTED else self.revoked).append(change.lookup_key)


def recent() -> list[Row]:
    """The newest first, of all users."""
    events = list(WebhookEvent.objects.order_by("-pk")[:ROWS])
    changes = list(
        EntitlementChange.objects.filter(effective=True)
        .select_related("customer", "subscriber")
        .order_by("-pk")[: ROWS * 4]
    )
    rows = _rows_of_events(events, changes) + _rows_of_other_news(changes)
    return sorted(rows, key=lambda row: row.at, reverse=True)[:ROWS]


def newest(request: EntitlementsHttpRequest) -> str:
    """Differs from what it was if a page would look different now. Read it before what the page shows.

    What the visitor holds is in it, as of this request's only reading: a page can have that and newer events.
    """
    event = WebhookEvent.objects.order_by("-pk").values_list("pk", flat=True).first()
    unprocessed = WebhookEvent.objects.pending().count()
    change = EntitlementChange.objects.order_by("-pk").values_list("pk", flat=True).first()
    held = " ".join(request.entitlements)
    return f"{event or 0}-{unprocessed}-{change or 0}-{int(has_waited_long(request))} {held}"


def _rows_of_events(events: Sequence[WebhookEvent], changes: Iterable[EntitlementChange]) -> list[Row]:
    customers = Customer.objects.filter(stripe_id__in=[event.customer_stripe_id for event in events])
    names = dict(customers.values_list("stripe_id", "subscriber__username"))
    rows = {
        event.pk: Row(event.received_at, event.type, names.get(event.customer_stripe_id) or "", event)
        for event in events
    }
    for change in changes:
        event = _event_of(change, events)
        if event is not None:
            rows[event.pk].note(change)
    return list(rows.values())


def _event_of(change: EntitlementChange, events: Iterable[WebhookEvent]) -> WebhookEvent | None:
    """The summary that was applied when the change was written: of this customer the first processed after it."""
    if change.cause != EntitlementChange.Cause.EVENT or change.customer is None:
        return None
    later = [
        event
        for event in events
        if event.type == SUMMARY
        and event.customer_stripe_id == change.customer.stripe_id
        and event.processed_at is not None
        and event.processed_at >= change.created_at
    ]
    return min(later, key=lambda event: (event.processed_at, -(event.created or 0)), default=None)


def _rows_of_other_news(changes: Iterable[EntitlementChange]) -> list[Row]:
    """The changes of one write follow one another at once: one row."""
    rows: list[Row] = []
    for change in changes:
        if change.cause == EntitlementChange.Cause.EVENT:
            continue
        title, name = TITLES[change.cause], change.subscriber.username if change.subscriber else ""
        if not rows or (rows[-1].title, rows[-1].user) != (title, name) or rows[-1].at - change.created_at > ONE_WRITE:
            rows.append(Row(change.created_at, title, name))
        rows[-1].note(change)
    return rows
