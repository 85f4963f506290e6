"""The end: everything runs, nothing fails. What has to be true then, and that it is."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable

from django.db import connection
from django.utils import timezone

from entitlements_app.access import get_entitlements
from entitlements_app.models import (
    AccountState,
    Customer,
    EntitlementChange,
    SubscriberState,
    WebhookEvent,
)
from entitlements_app.poll import BEHIND
from tests.delivery import SECRET
from tests.rows import replay
from tests.soak.programs import PATIENCE
from tests.soak.site import Site
from tests.soak.story import SUMMARIES, Story

POLL = (
    "import time; from entitlements_app.poll import backfill_events; "
    "report = backfill_events(deadline=time.monotonic() + 60); print(report); assert not report.problem, report"
)
# What a program may say when one that it needs is killed.
_CUT_OFF = re.compile(
    r"\S*\b(OperationalError|InterfaceError|AdminShutdown|ConnectionError|TimeoutError|\w+Error: \[Errno \d+\])"
    r"(?!.*(deadlock|serialize))"
)
_OURS = ("/entitlements_app/", "/tests/", "/django/")


def bring_to_rest(site: Site, story: Story) -> None:
    """One poll for what webhooks did not bring, one pass over marked customers; a second one changes nothing."""
    connection.close()  # it led to a server that was killed
    story.stripe.wait_for_deliveries(180)
    story.stripe.clock.advance(BEHIND + 10)  # the poll leaves the newest events to their webhooks
    site.command("shell", "--no-imports", "-c", POLL)
    _wait_until_nothing_waits()
    site.command("entitlements_sync", "--marked")
    _wait_until_nothing_waits()
    assert ", 0 of them changed something, 0 failed." in site.command("entitlements_sync", "--marked")
    _wait_until_nothing_waits()


def _wait_until_nothing_waits() -> None:
    deadline = time.monotonic() + PATIENCE
    while not _nothing_waits():
        assert time.monotonic() < deadline, "something waits for ever"
        time.sleep(0.5)


def _nothing_waits() -> bool:
    """The minutes after which a killed worker's work is taken up, and a failed one's repeated, are over at once."""
    now = timezone.now()
    AccountState.objects.update(next_call_at=None)
    WebhookEvent.objects.pending().update(next_attempt_at=now)
    EntitlementChange.objects.waiting().update(next_attempt_at=now)
    SubscriberState.objects.filter(delivery_until__gt=now).update(delivery_until=now)
    return not (WebhookEvent.objects.pending().exists() or EntitlementChange.objects.waiting().exists())


def assert_much_happened(story: Story) -> None:
    """Or all this says nothing."""
    assert WebhookEvent.objects.filter(sent_at=None).exists(), "no webhook was lost for good"
    causes = EntitlementChange.objects.filter(effective=True).values_list("cause", flat=True)
    # On a slow machine each payload may be older than a fetch that another hint of it had made, so not "event"; and a
    # customer may hold nothing yet while it is linked, so not "link".
    assert {"fetch", "override"} <= set(causes)
    assert True in story.visitors.answers


def assert_inbox_is_complete(story: Story) -> None:
    assert not WebhookEvent.objects.filter(status__in=["pending", "failed"]).exists()
    happened = sorted(event["id"] for event in story.stripe.events() if event["type"] in SUMMARIES)
    stored = WebhookEvent.objects.filter(type__in=SUMMARIES).order_by("stripe_id").values_list("stripe_id", flat=True)
    assert list(stored) == happened


def assert_customers_equal_stripe(story: Story) -> None:
    held: defaultdict[str, set[str]] = defaultdict(set)
    for row in Customer.objects.prefetch_related("active_entitlements"):
        held[row.stripe_id] = {grant.lookup_key for grant in row.active_entitlements.all()}
        assert (row.deleted_at is not None) == (row.stripe_id in story.deleted), row
        changes = EntitlementChange.objects.filter(customer=row, cause__in=["event", "fetch"])
        assert replay(changes.order_by("pk")) == held[row.stripe_id], row
    assert {name: held[name] for name in story.customers} == {name: story.held(name) for name in story.customers}


def assert_answers_follow(story: Story) -> None:
    for pk, subscriber in story.subscribers.items():
        answer = story.expected(pk)
        assert set(get_entitlements(subscriber)) == answer
        assert replay(EntitlementChange.objects.filter(subscriber=subscriber, effective=True).order_by("pk")) == answer
        assert story.visitors.sees(pk) == ("premium_support" in answer)


def assert_all_was_told(site: Site) -> None:
    """At least once, and for the first time in order."""
    assert not EntitlementChange.objects.undelivered().exists()
    told: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for line in site.told.read_text().splitlines():
        _, subscriber_id, pk = line.split()
        told[subscriber_id][int(pk)] = None
    effective: defaultdict[str, list[int]] = defaultdict(list)
    for change in EntitlementChange.objects.filter(effective=True).order_by("pk"):
        effective[str(change.subscriber_id)].append(change.pk)
    assert {who: list(pks) for who, pks in told.items()} == effective


def assert_logs_are_clean(site: Site, story: Story) -> None:
    for program in site.programs.values():
        assert SECRET not in program.log
        assert story.stripe.api_key not in program.log
        assert (program.name, [*_told_unexpectedly(program.log)]) == (program.name, [])


def _told_unexpectedly(log: str) -> Iterable[str]:
    """Tracebacks that no kill explains. Celery has some of its own when it connects again; it recovers."""
    for chain in _tracebacks(log):
        if any(name in line for line in chain for name in _OURS) and not _CUT_OFF.match(chain[-1]):
            yield "\n".join(chain)


def _tracebacks(log: str) -> Iterable[list[str]]:
    """Each with those of the exceptions that led to it before."""
    chain: list[str] = []
    inside = False
    for line in log.splitlines():
        if "Traceback (most recent call last)" in line:
            inside = True
        elif chain and not inside and line and not line.endswith(" exception occurred:") and "direct cause" not in line:
            yield chain
            chain = []
        if inside:
            chain.append(line)
            inside = "Traceback (" in line or not line or line[0].isspace()
    if chain:
        yield chain


def assert_site_says_that_it_is_well(site: Site) -> None:
    site.command("entitlements_status")
