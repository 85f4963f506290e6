"""The example project beside dj-stripe. Its story is `make demo-check DJSTRIPE=1`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entitlements_app.testing import StripeSimulator
from example_project.demo_check import running_demo
from example_project.steps import Browser
from tests.test_example_project import run

KEY, SECRET = "sk_test_" + "ofAnAccount1a2b3c4d5e6f7g8h", "whsec_of_an_account_4d5e6f"

pytestmark = pytest.mark.skipif(
    os.environ.get("TEST_DATABASE") == "postgresql", reason="the example has a database of its own: once is enough"
)


def test_a_key_that_dj_stripe_cannot_use_is_refused_in_one_line() -> None:
    account = {"STRIPE_API_KEY": "rk_test_" + "a" * 24, "STRIPE_WEBHOOK_SECRET": SECRET}

    demo = run("manage.py", "demo", DJSTRIPE="1", **account)

    assert demo.returncode == 1
    assert demo.stdout.splitlines() == [
        "Beside dj-stripe STRIPE_API_KEY must be a secret key of a test account, sk_test_ and at least 24 letters and "
        "digits: dj-stripe takes no other, and cannot find the account of a restricted one."
    ]


def test_with_an_account_set_it_talks_to_that_and_lets_dj_stripe_adopt_its_customers(tmp_path: Path) -> None:
    """The account is another simulator than the demo's own, which is not started."""
    with StripeSimulator(api_key=KEY, webhook_secret=SECRET) as account:
        met = account.create_customer("free@example.com", metadata={"entitlements_demo_user": "free"})["id"]
        settings = {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DJSTRIPE": "1",
            "STRIPE_API_KEY": KEY,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "STRIPE_API_BASE": account.url,
        }
        with running_demo(tmp_path, **settings) as demo:
            log = (tmp_path / "log").read_text()
            (endpoint,) = {line.split()[1] for line in log.splitlines() if line.strip().startswith("--forward-to http")}
            account.add_webhook_endpoint(endpoint)
            browser = Browser(demo.site)
            browser.submit("/sign-in/", "/sign-in/", user="free")
            browser.submit("/", "/plan/", plan="pro")
            account.wait_for_deliveries()
            opened = browser.get("/support/").status
            answers = {delivery.status for delivery in account.deliveries}
            is_met = met in browser.get("/").text
            customers = len(account.call("GET", "/v1/customers")["data"])

    assert (opened, answers, is_met, customers) == (200, {200}, True, 3)
    assert "--events" not in log  # dj-stripe wants all of them, and a shell has another use for a star
    assert KEY not in log
    assert SECRET not in log
