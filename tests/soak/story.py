"""Customers who change their minds, staff who links and overrides, visitors who look, and a Stripe that is unwell.

What happens is drawn from a seed. Nobody waits for the site: it is up or it is not.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from django.test import Client

from entitlements_app.testing import StripeSimulator
from tests.rows import make_subscriber, visitor_of
from tests.shop import PLANS, Shop
from tests.soak.programs import PATIENCE

WIDE = tuple(f"k{number}" for number in range(12))  # more than an event carries
KEYS = ("premium_support", "sso", "audit", "k3")
GATE = "/saying/get/"  # asks for premium_support
SUMMARIES = ("entitlements.active_entitlement_summary.updated", "customer.deleted")

Change = tuple[str, Any, str]


class Story:
    """What was asked of Stripe and of the site, and so what has to come of it."""

    def __init__(self, stripe: StripeSimulator, url: str, *, customers: int, seed: int) -> None:
        self._random = random.Random(seed)
        self.stripe = stripe
        self.shop = Shop(stripe)
        self.shop.prices["support"] = self.shop.plan("support", "premium_support", "sso")
        self.shop.prices["wide"] = self.shop.plan("wide", "premium_support", *WIDE)
        self.customers = [self.shop.customer() for _ in range(customers)]
        self.subscriptions: defaultdict[str, list[str]] = defaultdict(list)
        self.deleted: set[str] = set()
        self.subscribers = {row.pk: row for row in (make_subscriber() for _ in range(max(customers * 9 // 10, 2)))}
        self.owner: dict[str, Any] = {}
        self.overrides: defaultdict[Any, set[tuple[str, str]]] = defaultdict(set)
        self.desk = Desk(url)
        self.visitors = Visitors(url, list(self.subscribers.values()), seed=seed)
        self._holds = False
        self._last_event = ""

    def expected(self, subscriber_id: Any) -> set[str]:
        """What this subscriber is entitled to, by what Stripe says and staff did."""
        keys = {key for customer, owner in self.owner.items() if owner == subscriber_id for key in self.held(customer)}
        keys |= {key for what, key in self.overrides[subscriber_id] if what == "grant"}
        return keys - {key for what, key in self.overrides[subscriber_id] if what == "deny"}

    def held(self, customer: str) -> set[str]:
        return set() if customer in self.deleted else self.shop.holds(customer)

    def open(self) -> None:
        """Most customers are linked before anything happens; some subscribers have two, some none, some a grant."""
        for customer in self.customers[: len(self.customers) * 8 // 10]:
            self._link(customer)
        for _ in range(3):
            self._override(whats=["grant"])

    def tell(self, *, events: int, pace: float) -> None:
        """Let happen what makes so many events, so many a second."""
        began = time.monotonic()
        told = 0
        self._new_events()
        while told < events:
            self._step()
            told += self._new_events()
            time.sleep(max(0.0, began + told / pace - time.monotonic()))

    def _new_events(self) -> int:
        """How many there are since the last time."""
        since = {"ending_before": self._last_event} if self._last_event else {}
        page = self.stripe.call("GET", "/v1/events", {"limit": 100, **since})["data"]
        if page:
            self._last_event = page[0]["id"]
        return len(page)

    def end(self) -> None:
        """Stripe is well again, and what was asked of the site is done."""
        self.stripe.clear_faults()
        self.desk.close()
        self.visitors.close()

    def _step(self) -> None:
        steps: list[tuple[Callable[[], None], int]] = [
            (self._subscribe, 30),
            (self._change_plan, 40),
            (self._cancel, 18),
            (self._delete_customer, 2),
            (self._relink, 7),
            (self._override, 8),
            (self._webhooks_go_wrong, 6),
            (self._stripe_is_unwell, 3),
        ]
        [step] = self._random.choices([step for step, _ in steps], [weight for _, weight in steps])
        step()

    # --- at Stripe

    def _somebody(self) -> str:
        """A third of all that happens, happens to a few."""
        alive = [customer for customer in self.customers if customer not in self.deleted]
        return self._random.choice(alive[:10] if self._random.random() < 0.3 else alive)

    def _price(self) -> Any:
        return self.shop.prices[self._random.choice([*PLANS, "support", "wide"])]

    def _subscribe(self) -> None:
        customer = self._somebody()
        if len(self.subscriptions[customer]) < 2:
            self.subscriptions[customer].append(self.stripe.subscribe(customer, self._price())["id"])

    def _change_plan(self) -> None:
        customer = self._somebody()
        if not self.subscriptions[customer]:
            self._subscribe()
        elif self._random.random() < 0.01:
            self._archive()
        else:
            self.stripe.change_plan(self._random.choice(self.subscriptions[customer]), self._price())

    def _cancel(self) -> None:
        subscriptions = self.subscriptions[self._somebody()]
        if subscriptions:
            self.stripe.cancel(subscriptions.pop())

    def _delete_customer(self) -> None:
        customer = self._somebody()
        self.stripe.delete_customer(customer)
        self.deleted.add(customer)

    def _archive(self) -> None:
        """A feature is archived, which takes it from nobody, and its key is given to another one."""
        key = self._random.choice(("reports", "audit"))
        self.stripe.archive_feature(self.shop.features.pop(key))
        self.shop.prices[next(name for name, keys in PLANS.items() if key in keys)] = self.shop.plan("again", key)

    def _webhooks_go_wrong(self) -> None:
        some = self._random.randint(2, 5)
        wrong = self._random.choice(["drop", "double", "reorder", "hold"])
        if self._holds or wrong == "hold":
            self._holds = not self._holds
            self.stripe.hold_webhooks(self._holds)
        elif wrong == "drop":
            self.stripe.drop_webhooks(some, type="entitlements.*")
        elif wrong == "double":
            self.stripe.double_webhooks(some)
        else:
            self.stripe.reorder_webhooks(some)

    def _stripe_is_unwell(self) -> None:
        how = self._random.choice(["429", "500", "slow", "well"])
        if how in ("429", "500"):
            self.stripe.fail_requests(int(how), times=self._random.randint(1, 3))
        else:
            self.stripe.slow(0.3 if how == "slow" else 0)

    # --- at the desk

    def _link(self, customer: str) -> None:
        owner = self._random.choice(list(self.subscribers))
        self.owner[customer] = owner
        self.desk.ask([("link", owner, customer)])

    def _relink(self) -> None:
        customer = self._somebody()
        if customer in self.owner and self._random.random() < 0.3:
            self.desk.ask([("unlink", self.owner.pop(customer), customer)])
        else:
            self._link(self._random.choice([row for row in self.customers if row not in self.owner] or [customer]))

    def _override(self, *, whats: Sequence[str] = ("grant", "deny", "clear")) -> None:
        who = self._random.choice(list(self.subscribers))
        key = self._random.choice(KEYS)
        what = self._random.choice(whats)
        self.desk.ask([(what, who, key)])
        if what == "clear":
            self.overrides[who] -= {("grant", key), ("deny", key)}
        else:
            self.overrides[who].add((what, key))


class Desk:
    """Staff does one thing after the other, each until the site has said that it is done."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/desk/"
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="desk")
        self._asked: list[Future[None]] = []

    def ask(self, changes: Sequence[Change]) -> None:
        self._asked.append(self._queue.submit(self._do, json.dumps(changes, default=str).encode()))

    def _do(self, body: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(Request(self._url, data=body), timeout=30).close()
                return
            except (OSError, HTTPException):  # an answer above 399 is one, too
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        """Return when all is done. Raises what could not be."""
        self._queue.shutdown()
        for asked in self._asked:
            asked.result()


class Visitors:
    """They come to a gate all the time, so that there is something in the cache that can be wrong."""

    def __init__(self, url: str, subscribers: Sequence[Any], *, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)
        self._cookies = {row.pk: _session(row) for row in subscribers}
        self._closed = Event()
        self.answers: list[bool] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visitors")
        self._walk = self._thread.submit(self._come)

    def sees(self, subscriber_id: Any) -> bool:
        """Whether the gate is open for that subscriber's visitor."""
        request = Request(self._url + GATE, headers={"Cookie": self._cookies[subscriber_id]})
        with urlopen(request, timeout=30) as response:
            return {"open": True, "closed": False}[response.read().decode()]

    def _come(self) -> None:
        known = list(self._cookies)
        while not self._closed.wait(0.05):
            try:
                self.answers.append(self.sees(self._random.choice(known)))
            except HTTPError as error:
                if error.code < 500:
                    raise
            except (OSError, HTTPException):  # the site is down
                continue

    def close(self) -> None:
        self._closed.set()
        self._walk.result()
        self._thread.shutdown()


def _session(subscriber: Any) -> str:
    client = Client()
    client.force_login(visitor_of(subscriber))
    return f"sessionid={client.cookies['sessionid'].value}"
