"""The example project through its own front door: `make`, and the commands behind `make demo` and `make demo-check`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from entitlements_app.testing import StripeSimulator
from example_project.demo_check import OF_AN_ACCOUNT, running_demo
from example_project.steps import Browser

for needed in ("rest_framework", "jinja2"):
    pytest.importorskip(needed, reason="the example needs the extra demo")

ROOT = Path(__file__).resolve().parent.parent

UNSET = {"DJANGO_SETTINGS_MODULE", "DJSTRIPE", "PORT", "STRIPE_PORT", *OF_AN_ACCOUNT}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python at the root of the project, as the Makefile does, in another process than the tests' Django."""
    outside = {key: value for key, value in os.environ.items() if key not in UNSET}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=outside | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_demo_check_fails_loudly_when_a_gate_does_not_open(tmp_path: Path):
    (tmp_path / "closed_settings.py").write_text(
        "from example_project.settings import *\n"
        "ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST = 'closed_settings.nobody'\n"
        "def nobody(request): return None\n"
    )

    check = run(
        *("-m", "example_project.demo_check", "--patience", "0.5"),
        DJANGO_SETTINGS_MODULE="closed_settings",
        PYTHONPATH=str(tmp_path),
    )

    assert check.returncode == 1
    assert "expected 200\n    seen     403" in check.stdout
    assert '"GET /support/ HTTP/1.1" 403' in check.stdout  # the server's log
    assert check.stdout.splitlines()[-1].startswith("demo-check: FAILED at step 7: free switches to Pro")


def test_demo_on_a_port_in_use_says_so_and_leaves_the_database_alone(tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        database = tmp_path / f"site-{port}.sqlite3"
        database.write_text("of the demo that runs")

        demo = run("manage.py", "demo", PORT=port, DEMO_FOLDER=str(tmp_path))

    assert demo.returncode == 1
    assert f"Port {port} is not free" in demo.stdout
    assert "PORT=" in demo.stdout
    assert database.read_text() == "of the demo that runs"


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PORT": ""}, "PORT must be a number from 1 to 65535, not ''. For example: PORT=8000 make demo"),
        ({"PORT": "http"}, "PORT must be a number from 1 to 65535, not 'http'. For example: PORT=8000 make demo"),
        ({"PORT": "65536"}, "PORT must be a number from 1 to 65535, not '65536'. For example: PORT=8000 make demo"),
        (
            {"PORT": "65535", "STRIPE_PORT": "0"},
            "STRIPE_PORT must be a number from 1 to 65535, not '0'. For example: STRIPE_PORT=61424 make demo",
        ),
        (
            {"PORT": "8000", "STRIPE_PORT": "8000"},
            "PORT and STRIPE_PORT are both 8000; the site and the simulated Stripe need one each.",
        ),
    ],
)
def test_a_port_that_is_none_is_refused_in_one_line(environment: dict[str, str], line: str):
    demo = run("manage.py", "demo", **environment)

    assert demo.returncode == 1
    assert demo.stdout.splitlines() == [line]


@pytest.mark.parametrize(("port", "stripe_port"), [("8000", "12111"), ("8001", "12112"), ("65000", "60889")])
def test_the_simulated_stripe_follows_the_port_of_the_site(port: str, stripe_port: str):
    asked = run("-c", "from example_project.settings import STRIPE_PORT; print(STRIPE_PORT)", PORT=port)

    assert asked.stdout.strip() == stripe_port


SUMMARY = "entitlements.active_entitlement_summary.updated"
KEY, SECRET = "sk_test_of_an_account_1a2b3c", "whsec_of_an_account_4d5e6f"
BOTH = "Set STRIPE_API_KEY and STRIPE_WEBHOOK_SECRET for a Stripe test account, or neither for the simulated Stripe."


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"STRIPE_API_KEY": KEY},
            f"STRIPE_WEBHOOK_SECRET is not set. `stripe listen --print-secret` prints it. {BOTH}",
        ),
        ({"STRIPE_WEBHOOK_SECRET": SECRET}, f"STRIPE_API_KEY is not set. {BOTH}"),
        ({"STRIPE_API_BASE": "http://127.0.0.1:9"}, f"STRIPE_API_BASE is set without a key. {BOTH}"),
        *(
            (
                {"STRIPE_API_KEY": key, "STRIPE_WEBHOOK_SECRET": SECRET},
                "The demo makes customers and subscriptions, so it takes no live key: "
                "STRIPE_API_KEY must be the key of a test account, which starts with sk_test_ or rk_test_.",
            )
            for key in ("sk_live_1a2b3c", "rk_live_1a2b3c", "pk_test_1a2b3c")
        ),
    ],
)
def test_half_an_account_and_a_live_one_are_refused_in_one_line(environment: dict[str, str], line: str):
    demo = run("manage.py", "demo", **environment)

    assert demo.returncode == 1
    assert demo.stdout.splitlines() == [line]


def test_with_an_account_set_the_demo_talks_to_it_and_finds_again_what_it_made(tmp_path: Path):
    """The account is another simulator than the demo's own, which is not started."""
    with StripeSimulator(api_key=KEY, webhook_secret=SECRET) as account:
        settings = {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "STRIPE_API_KEY": KEY,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "STRIPE_API_BASE": account.url,
        }
        with running_demo(tmp_path, **settings) as demo:
            endpoint = account.add_webhook_endpoint(f"{demo.site}/stripe/webhook/")
            log = (tmp_path / "log").read_text()
            browser = Browser(demo.site)
            browser.submit("/sign-in/", "/sign-in/", user="free")
            browser.submit("/", "/plan/", plan="pro")
            account.wait_for_deliveries()
            opened = browser.get("/support/").status
            loses_on_demand = "Lose the next webhook" in browser.get("/").text
            refused = browser.submit("/", "/lose-webhook/").status
            made = made_in(account)
            account.call("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
        with running_demo(tmp_path, **settings) as demo:
            browser = Browser(demo.site)
            browser.submit("/sign-in/", "/sign-in/", user="pro")
            opened_again = browser.get("/support/").status
            made_again = made_in(account)

    assert (opened, opened_again) == (200, 200)
    assert (loses_on_demand, refused) == (False, 404)
    assert made == made_again == {"features": 4, "products": 2, "prices": 2, "customers": 3}
    assert f"stripe listen --events {SUMMARY}" in log
    assert "--forward-to http://127.0.0.1:" in log
    assert KEY not in log
    assert SECRET not in log


@pytest.mark.skipif(find_spec("djstripe") is not None, reason="about an environment without dj-stripe")
def test_where_dj_stripe_is_not_installed_the_demo_beside_it_is_refused_in_one_line():
    demo = run("manage.py", "demo", DJSTRIPE="1")

    assert demo.returncode == 1
    assert demo.stdout.splitlines() == [
        "dj-stripe is not installed here. `make demo DJSTRIPE=1` makes an environment that has it."
    ]


def test_a_demo_that_is_half_beside_dj_stripe_is_refused_in_one_line():
    demo = run("manage.py", "demo", DJSTRIPE="yes")

    assert demo.returncode == 1
    assert demo.stdout.splitlines() == ["DJSTRIPE must be 1, for a demo beside dj-stripe, or be left out."]


def made_in(account: StripeSimulator) -> dict[str, int]:
    paths = ("entitlements/features", "products", "prices", "customers")
    return {path.rpartition("/")[2]: len(account.call("GET", f"/v1/{path}")["data"]) for path in paths}


def test_without_a_chromium_the_browser_s_story_says_how_to_get_one():
    asked = run("-m", "example_project.browser.chromium", CHROMIUM="/nowhere/chromium")

    assert asked.returncode == 1
    assert "apt-get install chromium" in asked.stdout


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As from a shell, even if these tests were started by `make test`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@needs_make
def test_make_alone_lists_the_targets():
    targets = [line.split()[1] for line in make().stdout.splitlines() if line.startswith("make ")]

    assert targets == ["demo", "demo-check", "browser", "screenshots", "test", "djstripe-test", "soak", "bench", "lint"]


@needs_make
@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("", "PYTHON is empty. Name one: make demo PYTHON=python3.12"),
        ("false", "Python 3.11 or newer is needed, and false is not. Name one: make demo PYTHON=python3.12"),
    ],
)
def test_make_refuses_a_python_that_will_not_do_whatever_is_in_the_environment(python: str, line: str):
    refused = make("demo", f"PYTHON={python}")

    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == line
