"""A whole site is killed, program by program, while much happens at Stripe; in the end nothing is lost, and all right.

`make soak` is the long form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from entitlements_app.testing import StripeSimulator
from tests.delivery import SECRET
from tests.soak import verdict
from tests.soak.chaos import ALL, Chaos
from tests.soak.site import Site, open_site
from tests.soak.story import Story

pytestmark = pytest.mark.postgresql

SEED = int(os.environ.get("TEST_SEED", "1"))
PROGRAMS = ("worker-1", "database", "web", "broker", "worker-2", "beat")


@dataclass(frozen=True)
class Form:
    customers: int
    events: int
    pace: float  # events a second
    kills: tuple[str, ...]


SHORT = Form(customers=20, events=100, pace=20, kills=("worker-1", "broker"))
LONG = Form(customers=500, events=3000, pace=20, kills=(*PROGRAMS, ALL, *PROGRAMS))


@pytest.fixture
def stripe() -> Iterator[StripeSimulator]:
    """One that tries again for longer than anything is down."""
    with StripeSimulator(webhook_secret=SECRET, retry_delays=(0.5, 1, 2, 4, 8, 16, 32), seed=SEED) as simulator:
        yield simulator


@pytest.fixture
def site(stripe: StripeSimulator, django_db_blocker: Any) -> Iterator[Site]:
    with django_db_blocker.unblock(), open_site(stripe) as opened:
        yield opened


def test_whatever_is_killed_nothing_is_lost_and_nothing_wrongly_granted(stripe: StripeSimulator, site: Site) -> None:
    form = LONG if "TEST_SOAK" in os.environ else SHORT
    story = Story(stripe, site.web.url, customers=form.customers, seed=SEED)
    stripe.add_webhook_endpoint(f"{site.web.url}/stripe/webhook/")
    with ExitStack() as end:
        end.callback(story.end)
        story.open()
        end.callback(Chaos(site, form.kills, seconds=form.events / form.pace, seed=SEED).wait)
        story.tell(events=form.events, pace=form.pace)
    verdict.bring_to_rest(site, story)
    verdict.assert_much_happened(story)
    verdict.assert_inbox_is_complete(story)
    verdict.assert_customers_equal_stripe(story)
    verdict.assert_answers_follow(story)
    verdict.assert_all_was_told(site)
    verdict.assert_site_says_that_it_is_well(site)
    verdict.assert_logs_are_clean(site, story)
