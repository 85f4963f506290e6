"""Overrides that start and end: gates count them by themselves, and `entitlements_run` tells who wants to be told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.utils import timezone

from entitlements_app import overrides
from entitlements_app.access import get_entitlements
from entitlements_app.models import EntitlementChange, SubscriberState
from entitlements_app.overrides import clear, deny, grant
from tests.delivery import deliver, summary
from tests.receivers import Listener, connected
from tests.rows import effective, log, make_subscriber
from tests.threads import together

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> Iterator[Any]:
    """Stands still, and is moved by the test; to the second."""
    with time_machine.travel(int(time.time()), tick=False) as traveller:
        yield traveller


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    with connected(listener):
        yield listener


def run() -> str:
    out = StringIO()
    call_command("entitlements_run", stdout=out, stderr=StringIO())
    return next(line for line in out.getvalue().splitlines() if line.startswith("Starts and ends"))


def said(subscribers: int, failed: int = 0) -> str:
    return f"Starts and ends of overrides: of {subscribers} subscriber(s), {failed} failed."


def test_a_start_and_an_end_are_told_once_each_with_their_cause(clock: Any, listener: Listener) -> None:
    grant(make_subscriber(), "sso", starts=timezone.now() + HOUR, until=timezone.now() + 2 * HOUR, force=True)
    clock.shift(3599)
    assert run() == said(0)
    clock.shift(1)
    assert run() == said(1)
    assert run() == said(0)
    assert listener.heard == ["+sso"]
    clock.shift(3600)
    assert run() == said(1)
    clock.shift(3600)
    assert run() == said(0)
    assert log() == [("granted", "sso", "override", True), ("revoked", "sso", "expiry", True)]
    assert listener.heard == ["+sso", "-sso"]


def test_a_start_and_an_end_between_two_passes_are_both_told(clock: Any, listener: Listener) -> None:
    subscriber = make_subscriber()
    grant(subscriber, "sso", starts=timezone.now() + HOUR, until=timezone.now() + 2 * HOUR, force=True)
    grant(subscriber, "audit", starts=timezone.now() + HOUR, force=True)
    clock.shift(3 * 3600)
    assert run() == said(1)
    assert log() == [
        ("granted", "audit", "override", True),
        ("granted", "sso", "override", True),
        ("revoked", "sso", "expiry", True),
    ]
    assert listener.heard == ["+audit", "+sso", "-sso"]
    assert run() == said(0)


def test_what_passed_is_told_before_the_event_that_comes_then(clock: Any, acme: Any, listener: Listener) -> None:
    grant(acme, "sso", until=timezone.now() + HOUR, force=True)
    deny(acme, "audit", starts=timezone.now() + HOUR, until=timezone.now() + 2 * HOUR, force=True)
    deliver(summary("cus_acme", "audit"))
    clock.shift(3 * 3600)
    deliver(summary("cus_acme", "audit", "sso", created=int(time.time())), t=int(time.time()))
    assert listener.heard == ["+sso", "+audit", "-audit", "-sso", "+audit", "+sso"]
    assert [row[2] for row in log(effective=True)] == ["override", "event", "override", "expiry", "expiry", "event"]


def test_an_end_that_another_grant_outlives_is_not_told(clock: Any, listener: Listener) -> None:
    subscriber = make_subscriber()
    grant(subscriber, "sso", until=timezone.now() + HOUR, force=True)
    grant(subscriber, "sso", starts=timezone.now() + HOUR, until=timezone.now() + 3 * HOUR, force=True)
    clock.shift(2 * 3600)
    run()
    assert listener.heard == ["+sso"]
    clock.shift(2 * 3600)
    run()
    assert listener.heard == ["+sso", "-sso"]


def test_starts_and_ends_are_told_in_the_other_mode_after_a_switch(
    clock: Any, listener: Listener, settings: Any
) -> None:
    """Staff granted keys while the site was built, in test mode, to subscribers who have no Stripe customer."""
    subscriber, now = make_subscriber(), timezone.now()
    grant(subscriber, "sso", until=now + HOUR, force=True)
    grant(subscriber, "audit", starts=now + 2 * HOUR, force=True)
    settings.ENTITLEMENTS_LIVEMODE = True
    assert list(get_entitlements(subscriber)) == ["sso"]
    run()
    assert listener.heard == ["+sso"], "which was told, and stays so"
    clock.shift(3600)
    run()
    clock.shift(3600)
    run()
    assert list(get_entitlements(subscriber)) == ["audit"]
    assert listener.heard == ["+sso", "-sso", "+audit"]


def test_a_denial_takes_and_gives_back(clock: Any, acme: Any, listener: Listener) -> None:
    deliver(summary("cus_acme", "sso"))
    deny(acme, "sso", starts=timezone.now() + HOUR, until=timezone.now() + 2 * HOUR)
    for _ in range(2):
        clock.shift(3600)
        run()
    assert log()[1:] == [("revoked", "sso", "override", True), ("granted", "sso", "expiry", True)]
    assert listener.heard == ["+sso", "-sso", "+sso"]


def test_what_moves_no_answer_is_not_told_and_the_next_one_is(clock: Any, acme: Any) -> None:
    """Stripe grants the first key as well."""
    deliver(summary("cus_acme", "sso"))
    grant(acme, "sso", until=timezone.now() + HOUR)
    grant(acme, "audit", starts=timezone.now() + 2 * HOUR, force=True)
    clock.shift(3600)
    assert run() == said(1)
    assert effective() == ["+sso"]
    clock.shift(3600)
    assert run() == said(1)
    assert effective() == ["+sso", "+audit"]
    assert SubscriberState.objects.get().next_boundary_at is None


def test_an_end_that_a_change_has_told_is_not_told_again(clock: Any) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", until=timezone.now() + HOUR, force=True)
    clock.shift(3600)
    clear(somebody, "audit")
    assert effective() == ["+sso", "-sso"]
    assert run() == said(0)


def test_it_is_told_in_both_modes(clock: Any, settings: Any, listener: Listener) -> None:
    somebody = make_subscriber()
    grant(somebody, "audit", force=True)
    settings.ENTITLEMENTS_LIVEMODE = True
    grant(somebody, "sso", until=timezone.now() + HOUR, force=True)
    clock.shift(3600)
    run()
    rows = EntitlementChange.objects.filter(cause="expiry").values_list("livemode", flat=True)
    assert sorted(rows) == [False, True]
    assert [(change.kind, change.livemode) for change in listener.changes if change.cause == "expiry"] == [
        ("revoked", True)
    ]


def test_a_bad_row_does_not_hold_up_the_others(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    crowd = [make_subscriber() for _ in range(5)]
    for somebody in crowd:
        grant(somebody, "sso", until=timezone.now() + HOUR, force=True)
    SubscriberState.objects.filter(subscriber=crowd[1]).update(announced=7)
    clock.shift(3600)
    assert run() == said(4, failed=1)
    assert effective() == ["+sso"] * 5 + ["-sso"] * 4
    assert "entitlements_app.overrides" in {record.name for record in caplog.records}
    assert run() == said(0, failed=1)
    assert get_entitlements(crowd[1]).has_any("sso") is False


def test_more_than_one_batch_is_told_in_one_pass(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "BATCH", 2)
    for _ in range(5):
        grant(make_subscriber(), "sso", until=timezone.now() + HOUR, force=True)
    clock.shift(3600)
    assert run() == said(5)
    assert effective() == ["+sso"] * 5 + ["-sso"] * 5


def test_runs_that_overlap_tell_each_once(clock: Any, monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    monkeypatch.setattr(overrides, "BATCH", 3)
    crowd = [make_subscriber() for _ in range(12)]
    for somebody in crowd:
        grant(somebody, "sso", until=timezone.now() + HOUR, force=True)
    clock.shift(3600)
    reports = []

    def work() -> None:
        reports.append(overrides.tell_boundaries(deadline=time.monotonic() + 30))

    together(*[work] * 4)
    assert sum(report.told for report in reports) == 12
    assert [report.failed for report in reports] == [0] * 4
    assert effective() == ["+sso"] * 12 + ["-sso"] * 12
    for somebody in crowd:
        assert len(listener.of(somebody)) == 2


def test_a_change_that_meets_the_pass_tells_it_once(clock: Any, listener: Listener) -> None:
    somebody = make_subscriber()
    grant(somebody, "sso", until=timezone.now() + HOUR, force=True)
    clock.shift(3600)
    together(run, lambda: grant(somebody, "audit", force=True))
    assert sorted(effective()) == ["+audit", "+sso", "-sso"]
    assert sorted(listener.heard) == ["+audit", "+sso", "-sso"]
