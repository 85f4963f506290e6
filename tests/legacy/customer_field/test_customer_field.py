"""docs/migrating-from-a-customer-field.md, done as it is written, on a site that has customers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.legacy.legacy_site import OUR_EVENTS, LegacySite, Page

# The status that the handler wrote.
USERS = {
    "ada": "active",
    "tim": "trialing",
    "pat": "past_due",
    "cleo": "canceled",
    "ned": "",
    "lou": "",  # has a lifetime deal
    "sam": "",  # of the staff
    "olga": "active",  # and has cancelled since, which the handler missed
    "kim": "active",
    "kay": "active",  # by the customer of kim
}
NOTHING: set[str] = set()


class Shop(LegacySite):
    name = "customer_field"
    guide = "migrating-from-a-customer-field.md"
    users = USERS
    pages = {
        "reports": Page("/reports/"),
        "export": Page("/export/"),
        "link to export": Page("/", text='<a href="/export/">'),
    }

    def open(self) -> None:
        self.prices["Premium"] = self.stripe.create_price(self.stripe.create_product("Premium"))["id"]
        rows = []
        for user, status in USERS.items():
            if user == "kay":
                self.customers["kay"] = self.customers["kim"]
            elif status:
                self.customers[user] = self.stripe.create_customer(f"{user}@example.com")["id"]
                self.subscribe(user, "Premium", status)
            fields = {"username": user, "email": f"{user}@example.com", "password": "!", "is_staff": user == "sam"}
            profile = {
                "user": self.key(user),
                "stripe_customer_id": self.customers.get(user, ""),
                "subscription_status": status,
                "is_lifetime": user == "lou",
            }
            rows.append({"model": "auth.user", "pk": self.key(user), "fields": fields})
            rows.append({"model": "accounts.profile", "pk": self.key(user), "fields": profile})
        self.cancel("olga")
        self.lose_events()
        self.load(rows)
        self.endpoints["/billing/webhook/"] = ("whsec_of_the_old_endpoint", ("customer.subscription.",))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop.opened(tmp_path) as shop:
        yield shop


def test_nobody_s_answer_changes_but_those_that_were_decided_on(shop: Shop) -> None:
    everything = set(shop.pages)
    before = dict.fromkeys(USERS, everything) | dict.fromkeys(("pat", "cleo", "ned"), NOTHING)
    shop.assert_it_began_as_written()
    assert shop.say() == before

    shop.follow(1)
    assert shop.say() == before

    shop.follow(2)
    shop.endpoints["/stripe/webhook/"] = (shop.environment["STRIPE_WEBHOOK_SECRET"], OUR_EVENTS)
    shop.cron("entitlements_run")
    assert shop.say() == before

    shop.follow(3, exits={"plan catalogue.toml": 2})
    shop.follow(4, exits={"--dry-run": 1, "--subscriber user": 1})
    # Somebody comes meanwhile: linked where the ID is stored, and Stripe grants at once.
    shop.customers["ned"] = shop.post("ned", "/checkout/")
    shop.subscribe("ned", "Premium")
    before["ned"] = everything
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
        "Gate reports, user 3: old False, new True",
        "Gate export, user 3: old False, new True",
        "Gate reports, user 8: old True, new False",
        "Gate export, user 8: old True, new False",
    }

    shop.run('export NEW_GATES="reports"')
    assert shop.say() == before | {"pat": {"reports"}, "olga": everything - {"reports"}}
    shop.run('export NEW_GATES=""')
    assert shop.say() == before, "and back"

    shop.follow(9, exits={"compare_gates": 2})
    after = before | {"pat": everything, "olga": NOTHING}
    assert shop.say() == after

    # A bridge does not see a cancellation; the run of each hour does. Stripe's own grant goes with the event.
    shop.cancel("tim")
    assert shop.say("tim") == {"tim": everything}
    shop.cron("--bridge")
    after["tim"] = NOTHING
    shop.renew_all()
    assert shop.say() == after

    shop.follow(10)
    assert shop.say() == after
    shop.assert_strangers_log_in("/reports/")

    del shop.endpoints["/billing/webhook/"]
    shop.follow(11)
    shop.cancel("ada")
    assert shop.say() == after | {"ada": NOTHING}
    shop.assert_all_was_followed()
