"""docs/migrating-from-plan-names.md, done as it is written, on a site that has customers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.legacy.legacy_site import OUR_EVENTS, LegacySite, Page

# The plan that the handler wrote, and at Stripe: product, status.
USERS = {
    "ada": ("pro", "Pro", "active"),
    "tea": ("team", "Team", "active"),
    "tim": ("pro", "Pro", "trialing"),
    "pat": ("pro", "Pro", "past_due"),
    "cleo": ("free", "Pro", "canceled"),
    "ned": ("free", "", ""),
    "zoe": ("free", "Pro", "active"),  # and Team, which she has cancelled since
    "gus": ("gold", "Gold 2019", "active"),
    "sam": ("team", "", ""),  # set by hand
    "tess": ("pro", "", ""),  # a trial of the site's own
}
OF_PRO = {"reports", "export", "10 projects", "link to reports"}
OF_TEAM = {"reports", "export", "audit_log", "50 projects", "link to reports", "link to audit log"}
OF_GOLD = {"export", "10 projects"}
FREE: set[str] = set()


class Shop(LegacySite):
    name = "plan_names"
    guide = "migrating-from-plan-names.md"
    users = USERS
    pages = {
        "reports": Page("/reports/"),
        "export": Page("/export/"),
        "audit_log": Page("/audit/"),
        "10 projects": Page("/projects/", text="10 projects"),
        "50 projects": Page("/projects/", text="50 projects"),
        "link to reports": Page("/", text='<a href="/reports/">'),
        "link to audit log": Page("/", text='<a href="/audit/">'),
    }

    def open(self) -> None:
        for plan, product in {"pro": "Pro", "team": "Team", "gold": "Gold 2019"}.items():
            terms = {"product": self.stripe.create_product(product)["id"], "currency": "usd", "unit_amount": 1000}
            wanted = {**terms, "recurring": {"interval": "month"}, "metadata": {"plan": plan}}
            self.prices[product] = self.stripe.call("POST", "/v1/prices", wanted)["id"]
        rows = []
        trial = (datetime.now(UTC) + timedelta(days=5)).isoformat()
        for user, (plan, product, status) in USERS.items():
            if product:
                self.customers[user] = self.customer(user)
                self.subscribe(user, product, status)
            fields = {"username": user, "email": f"{user}@example.com", "password": "!", "plan": plan}
            fields["trial_until"] = trial if user == "tess" else None
            rows.append({"model": "shop.user", "pk": self.key(user), "fields": fields})
        self.stripe.cancel(self.stripe.subscribe(self.customer("zoe"), self.prices["Team"]))
        self.stripe.create_customer("stranger@example.com")
        self.lose_events()
        self.load(rows)
        self.endpoints["/billing/webhook/"] = ("whsec_of_the_old_endpoint", ("customer.subscription.",))

    def customer(self, user: str) -> str:
        whose = {"user_id": str(self.key(user))}
        return str(self.stripe.create_customer(f"{user}@example.com", metadata=whose)["id"])


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop.opened(tmp_path) as shop:
        yield shop


def test_nobody_s_answer_changes_but_that_of_who_paid_and_was_denied(shop: Shop) -> None:
    before = {
        **dict.fromkeys(("ada", "tim", "pat", "tess"), OF_PRO),
        **dict.fromkeys(("tea", "sam"), OF_TEAM),
        **dict.fromkeys(("cleo", "ned", "zoe"), FREE),
        "gus": OF_GOLD,
    }
    shop.assert_it_began_as_written()
    assert shop.say() == before

    shop.follow(1)
    assert shop.say() == before

    shop.follow(2)
    shop.endpoints["/stripe/webhook/"] = (shop.environment["STRIPE_WEBHOOK_SECRET"], OUR_EVENTS)
    shop.cron("entitlements_run")
    assert shop.say() == before

    shop.follow(3, exits={"plan catalogue.toml": 2})
    assert "is nobody's" in shop.follow(4)
    # Two come meanwhile: one pays, and is found by the metadata; one tries it without paying.
    shop.customers["ned"] = shop.post("ned", "/checkout/")
    shop.subscribe("ned", "Team")
    shop.post("cleo", "/trial/")
    before.update(ned=OF_TEAM, cleo=OF_PRO)
    assert shop.say() == before
    shop.follow(5)
    shop.let_a_minute_pass()
    shop.follow(6)
    assert shop.say() == before

    shop.follow(7, exits={"compare_gates": 2})
    assert shop.say() == before

    shop.follow(8)
    assert shop.say() == before
    assert shop.gates_that_differed() == {
        "Gate reports, user 7: old False, new True",
        "Gate export, user 7: old False, new True",
        "Gate projects, user 7: old 3, new 10",
    }

    shop.run('export NEW_GATES="reports"')
    assert shop.say() == before | {"zoe": {"reports", "link to reports"}}
    shop.run('export NEW_GATES=""')
    assert shop.say() == before, "and back"

    shop.follow(9, exits={"compare_gates": 2})
    after = before | {"zoe": OF_PRO}
    assert shop.say() == after

    # A bridge does not see a cancellation; the run of each hour does. Stripe's own grant goes with the event.
    shop.cancel("gus")
    assert shop.say("gus") == {"gus": OF_GOLD}
    shop.cron("--bridge")
    after["gus"] = FREE
    shop.renew_all()
    assert shop.say() == after

    shop.follow(10)
    assert shop.say() == after
    shop.assert_strangers_log_in("/reports/")

    del shop.endpoints["/billing/webhook/"]
    shop.follow(11)
    shop.cancel("tea")
    assert shop.say() == after | {"tea": FREE}
    shop.assert_all_was_followed()
