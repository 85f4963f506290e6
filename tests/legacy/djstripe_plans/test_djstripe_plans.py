"""docs/migrating-from-dj-stripe-plans.md, done as it is written, on a site that has customers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.legacy.legacy_site import OUR_EVENTS, LegacySite, Page

# At Stripe: product, status.
USERS = {
    "ada": ("Pro", "active"),
    "tea": ("Team", "active"),
    "tim": ("Pro", "trialing"),
    "pat": ("Pro", "past_due"),
    "pam": ("Team", "past_due"),
    "una": ("Team", "unpaid"),
    "cleo": ("Pro", "canceled"),
    "ned": ("", ""),
    "sam": ("", ""),  # of the staff
    "twin": ("Pro", "active"),  # and another customer, who has cancelled
    "gus": ("Basic", "active"),
}
OF_BASIC = {"export", "link to export"}
OF_PRO = {"reports", *OF_BASIC}
OF_TEAM = {"audit_log", *OF_PRO}
REPORTS, AUDIT_LOG = {"reports"}, {"audit_log"}
NOTHING: set[str] = set()

UUID = "8ff1e8a5-5b25-4c1c-9e0c-6a2c4a4b7a01"
URL = f"/djstripe/webhook/{UUID}/"
SECRET = "whsec_of_dj_stripe"
SUBSCRIPTION_EVENTS = [f"customer.subscription.{kind}" for kind in ("created", "updated", "deleted")]


class Club(LegacySite):
    name = "djstripe_plans"
    guide = "migrating-from-dj-stripe-plans.md"
    users = USERS
    pages = {
        "reports": Page("/reports/"),
        "export": Page("/export/"),
        "audit_log": Page("/audit/"),
        "link to export": Page("/", text='<a href="/export/">'),
    }
    settings = """
MIGRATION_MODULES = {"djstripe": "entitlements_app.testing.djstripe_tables"}  # dj-stripe's own take a minute
STRIPE_API_HOST = os.environ["STRIPE_API_BASE"]
SILENCED_SYSTEM_CHECKS = ["djstripe.W002"]  # that it is set
"""

    def open(self) -> None:
        for product in ("Basic", "Pro", "Team"):
            self.prices[product] = self.stripe.create_price(self.stripe.create_product(product))["id"]
        rows = [self._endpoint()]
        for user, (product, status) in USERS.items():
            if product:
                self.customers[user] = self.customer(user)
                self.subscribe(user, product, status)
            fields = {"username": user, "email": f"{user}@example.com", "password": "!", "is_staff": user == "sam"}
            rows.append({"model": "auth.user", "pk": self.key(user), "fields": fields})
        self.stripe.cancel(self.stripe.subscribe(self.customer("twin"), self.prices["Basic"]))
        self.stripe.subscribe(self.stripe.create_customer("stranger@example.com"), self.prices["Basic"])
        self.lose_events()
        self.load(rows)
        self.run("python manage.py djstripe_sync_models Account Customer Product Price Subscription SubscriptionItem")
        self.endpoints[URL] = (SECRET, tuple(SUBSCRIPTION_EVENTS))

    def _endpoint(self) -> dict[str, object]:
        """What Stripe and dj-stripe have of the one endpoint."""
        self.stripe.hold_webhooks()  # `say` delivers
        url = f"http://127.0.0.1:9{URL}"
        self.endpoint = self.stripe.add_webhook_endpoint(url, enabled_events=SUBSCRIPTION_EVENTS, secret=SECRET)
        known = {
            key: self.endpoint[key] for key in ("id", "livemode", "url", "enabled_events", "status", "api_version")
        }
        own = {"djstripe_uuid": UUID, "secret": SECRET, "stripe_data": {}}
        times = dict.fromkeys(("djstripe_created", "djstripe_updated"), "2020-01-01T00:00:00Z")
        return {"model": "djstripe.webhookendpoint", "pk": 1, "fields": {**known, **own, **times}}

    def customer(self, user: str) -> str:
        whose = {"djstripe_subscriber": str(self.key(user))}
        return str(self.stripe.create_customer(f"{user}@example.com", metadata=whose)["id"])

    def send_more(self) -> None:
        """In Stripe's Dashboard: the endpoint is sent what the guide says."""
        more = [*SUBSCRIPTION_EVENTS, "customer.subscription.paused", "customer.subscription.resumed", *OUR_EVENTS[:2]]
        self.stripe.call("POST", f"/v1/webhook_endpoints/{self.endpoint['id']}", {"enabled_events": more})
        self.endpoints[URL] = (SECRET, tuple(more))


@pytest.fixture
def club(tmp_path: Path) -> Iterator[Club]:
    with Club.opened(tmp_path) as club:
        yield club


def test_nobody_s_answer_changes_but_those_that_were_decided_on(club: Club) -> None:
    before = {
        **dict.fromkeys(("ada", "twin"), OF_PRO),
        "tea": OF_TEAM,
        "gus": OF_BASIC,
        **dict.fromkeys(("tim", "sam"), REPORTS),
        **dict.fromkeys(("pam", "una"), AUDIT_LOG),
        **dict.fromkeys(("pat", "cleo", "ned"), NOTHING),
    }
    club.assert_it_began_as_written()
    assert club.say() == before

    club.follow(1)
    assert club.say() == before

    club.send_more()
    club.follow(2)
    club.cron("entitlements_run")
    assert club.say() == before

    club.follow(3, exits={"plan catalogue.toml": 2})
    club.follow(4)
    # Somebody comes meanwhile: linked as dj-stripe makes the customer, and Stripe grants at once.
    club.customers["ned"] = club.post("ned", "/checkout/")
    club.subscribe("ned", "Pro")
    before["ned"] = OF_PRO
    assert club.say() == before
    club.follow(5)
    club.let_a_minute_pass()
    club.follow(6, exits={"--yes": 2})
    assert club.say() == before

    club.follow(7, exits={"compare_gates": 2})
    assert club.say() == before

    club.follow(8)
    assert club.say() == before
    assert club.gates_that_differed() == {
        "Gate export, user 3: old False, new True",
        "Gate audit_log, user 6: old True, new False",
    }

    club.run('export NEW_GATES="audit_log"')
    assert club.say() == before | {"una": NOTHING}
    club.run('export NEW_GATES=""')
    assert club.say() == before, "and back"

    club.follow(9, exits={"compare_gates": 2})
    after = before | {"tim": OF_PRO, "una": NOTHING}
    assert club.say() == after

    # A bridge does not see a cancellation; the run of each hour does. Stripe's own grant goes with the event.
    club.cancel("gus")
    assert club.say("gus") == {"gus": OF_BASIC}
    club.cron("--bridge", exits_with=2)
    after["gus"] = NOTHING
    club.renew_all()
    assert club.say() == after

    club.follow(10)
    assert club.say() == after
    club.assert_strangers_log_in("/reports/")
    club.cancel("tea")
    club.stripe.set_status(club.subscriptions["pat"], "active")
    assert club.say() == after | {"tea": NOTHING, "pat": OF_PRO}
    club.assert_all_was_followed()
