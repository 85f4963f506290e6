"""`make demo-check`: the story of the demo, without a person.

It starts `manage.py demo` on free ports and a database of its own, then acts as a browser, as curl, as a forger and as
an operator would: over HTTP, and with one management command. It imports nothing of the site and writes no row itself.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.error import URLError

from example_project import djstripe_check
from example_project.free_ports import free_port
from example_project.steps import Browser, Page, StepFailed, Steps, say

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
START_SECONDS = 90
LOG_LINES = 30
BESIDE_DJSTRIPE = os.environ.get("DJSTRIPE") == "1"
OF_AN_ACCOUNT = {"STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE"}
PRO, ENTERPRISE = {"premium_support", "api_access"}, {"premium_support", "api_access", "advanced_reporting", "sso"}
GATES_OF_PRO = {"request", "block", "filter", "jinja", "support", "tokens", "permission", "api"}
GATES = GATES_OF_PRO | {"exports", "reports", "api-composed", "code"}
ADMIN = "/admin/entitlements_app"
SUMMARY = "entitlements.active_entitlement_summary.updated"
CATALOGUE = Path(__file__).with_name("catalogue.toml")
SAME = "Nothing differs."


@dataclass(frozen=True)
class Demo:
    """A running demo: its site, its simulated Stripe, and its environment for commands beside it."""

    site: str
    stripe: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """Press Ctrl-C. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def command(self, *arguments: str) -> str:
        """Run a management command. Raises StepFailed if it fails."""
        done = subprocess.run(  # noqa: S603  (our own manage.py)
            [sys.executable, str(MANAGE), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(f"expected manage.py {' '.join(arguments)} to succeed\n    seen     {done.stderr.strip()}")
        return done.stdout.strip()


def story(demo: Demo, steps: Steps) -> None:
    """A customer goes from Free to Pro to Enterprise and back; a forger and a lost webhook come between."""
    browser, stripe, stranger = Browser(demo.site), Browser(demo.stripe), Browser(demo.site)

    def home() -> Page:
        return browser.get("/")

    def held() -> set[str]:
        return set(home().marks("held"))

    def armed() -> set[str]:
        return set(home().marks("armed"))

    def status(path: str) -> Callable[[], int]:
        return lambda: browser.get(path).status

    def choose(plan: str) -> None:
        steps.current = f"free chooses the plan {plan}"
        page = browser.submit("/", "/plan/", plan=plan)
        billed = home().marks("plan")
        if page.status != 200 or billed != [plan]:
            raise StepFailed(f"expected Stripe to bill {plan}\n    seen     {billed or page.status}")

    steps.see("a stranger at the support desk is asked", lambda: stranger.get("/support/").heading, "Who are you?")
    steps.see("free signs in, and holds", lambda: set(_sign_in(browser, "free").marks("held")), set())
    steps.see("GET /support/", status("/support/"), 403)
    steps.see("its refusal names the plans", lambda: set(_plans_named(browser.get("/support/"))), {"Pro", "Enterprise"})
    steps.see("GET /api/usage/", status("/api/usage/"), 403)
    steps.see("of all gates these are open, on their pages too", lambda: _open_gates(browser), set())

    choose("pro")
    steps.see("free switches to Pro, and the webhook opens /support/", status("/support/"), 200, wait=True)
    steps.see("GET /api/usage/", status("/api/usage/"), 200)
    steps.see("curl -u free:demo /api/usage/", lambda: _curl(stranger, "free"), 200)
    steps.see("GET /api/entitlements/ tells a front end of", lambda: _told_to_a_front_end(browser), PRO)
    steps.see("of all gates these are open, on their pages too", lambda: _open_gates(browser), GATES_OF_PRO)
    steps.see("GET /reports/, which is for Enterprise", status("/reports/"), 403)
    steps.see("free holds", held, PRO)
    steps.see("the list shows the webhook with the new summary as", lambda: _newest(home(), "free"), "processed")
    steps.see("the site answered each of Stripe's webhooks with", lambda: _answers(stripe), {"200"})

    before, endpoint = _told(home()), _endpoint(home())
    steps.see("a webhook without a signature", lambda: _forge(stranger, endpoint, "").status, 400)
    steps.see("a webhook with a made-up signature", lambda: _forge(stranger, endpoint, "v1=" + "0" * 64).status, 400)
    steps.see("what the forger moved", lambda: "nothing" if _told(home()) == before else "something", "nothing")

    choose("enterprise")
    steps.see("free switches to Enterprise, and the webhook opens /reports/", status("/reports/"), 200, wait=True)
    steps.see("free holds", held, ENTERPRISE)

    steps.see("of all gates these are open, on their pages too", lambda: _open_gates(browser), GATES)

    browser.submit("/", "/lose-webhook/")
    steps.see("free loses the next webhook, and the page says that this is armed", armed, {"yes"})
    choose("pro")
    steps.see("free goes back to Pro, and the webhook is lost", lambda: _lost(stripe), 1, wait=True)
    steps.see("which disarms it", armed, set())
    steps.see("so the local copy still says", held, ENTERPRISE)
    steps.see("and the page says that it waits for", lambda: set(home().marks("waiting")), {"pro"})
    steps.current = "manage.py entitlements_sync --marked"
    *_, last = demo.command("entitlements_sync", "--marked").splitlines()
    steps.see(f"{steps.current}: {last} So free holds", held, PRO)

    steps.see("free's plan", lambda: set(home().marks("terms")), {"renews"})
    browser.submit("/", "/plan/cancel-at-period-end/")
    steps.see("free cancels at the end of the period, and until then holds", held, PRO)
    steps.see("free's plan", lambda: set(home().marks("terms")), {"ends"})
    choose("free")
    steps.see("free cancels at once, and the webhook closes /support/", status("/support/"), 403, wait=True)
    steps.see("GET /api/usage/", status("/api/usage/"), 403)
    steps.see("free holds", held, set())

    browser.submit("/", "/lose-webhook/")
    steps.current = "free buys Pro, the webhook is lost, and the page that waits goes on"
    page = browser.wait_as_told(browser.submit("/", "/plan/", plan="pro", next="/support/"), at="/welcome/")
    steps.see(
        "the page that waits asks Stripe, and goes on to /support/, which is", lambda: page.marks("verdict"), ["open"]
    )
    steps.see("free holds", held, PRO)

    steps.see(
        "enterprise signs in, untouched by all this, and holds", lambda: _held_by(browser, "enterprise"), ENTERPRISE
    )
    _sign_in(browser, "free")
    browser.submit("/", "/lose-webhook/")
    choose("enterprise")
    steps.see("free goes to Enterprise, and the webhook is lost", lambda: _lost(stripe), 3, wait=True)
    _sign_in(browser, "admin")
    steps.see("admin opens the inbox in Django admin", status(f"{ADMIN}/webhookevent/"), 200)
    steps.see("and the overview", status(f"{ADMIN}/overview/"), 200)
    steps.see(
        "why free has no sso, the admin says in the words of the command",
        lambda: _explained(browser),
        demo.command("entitlements_explain", "free", "sso").splitlines()[0],
    )
    customer = _page_of_customer(browser, "free")
    page = browser.submit(customer, f"{customer.removesuffix('change/')}confirm/")
    steps.see(
        "admin confirms the customer of free, and reads what free gained", lambda: _gained(page), ENTERPRISE - PRO
    )
    steps.see("free signs in, and holds", lambda: _held_by(browser, "free"), ENTERPRISE)
    if BESIDE_DJSTRIPE:
        djstripe_check.story(steps, browser, stripe)
    sell_more(demo, steps, browser, stripe)
    steps.see("Ctrl-C ends the site and the simulated Stripe, with exit status", demo.stop, 0)


def sell_more(demo: Demo, steps: Steps, browser: Browser, stripe: Browser) -> None:
    """Staff make a feature, the file attaches it to Pro, and who has Pro is entitled to it a month later."""

    def catalog(*arguments: str) -> Callable[[], str]:
        return lambda: demo.command("entitlements_catalog", *arguments).splitlines()[-1]

    steps.see("the catalogue in Stripe, against the file of the example", catalog("plan", str(CATALOGUE)), SAME)
    _sign_in(browser, "admin")
    page = browser.submit(f"{ADMIN}/feature/add/", f"{ADMIN}/feature/add/", name="Audit log", lookup_key="audit_log")
    steps.see("admin makes the feature audit_log in Django admin", lambda: page.status, 200)
    steps.see("the catalogue's page has it, for nobody", lambda: _included(browser, "audit_log"), 0)
    file = Path(demo.environment["DEMO_FOLDER"]) / "catalogue.toml"
    text = CATALOGUE.read_text().replace(
        '["premium_support", "api_access"]', '["premium_support", "api_access", "audit_log"]'
    )
    file.write_text(f'{text}\n[features.audit_log]\nname = "Audit log"\n')
    steps.current = "entitlements_catalog apply attaches it to Pro"
    said = demo.command("entitlements_catalog", "apply", "--yes", str(file))
    steps.see(steps.current, lambda: said.splitlines()[-1], "Done: 1 of 1.")
    steps.see("the catalogue's page has it, included in so many products", lambda: _included(browser, "audit_log"), 1)
    steps.see("applied once more", catalog("apply", "--yes", str(file)), SAME)
    steps.see("who subscribed to Pro before still holds", lambda: _held_by(browser, "pro"), PRO)
    stripe.post("/_simulator/clock", json.dumps({"advance": 32 * 24 * 3600}).encode())
    steps.see(
        "a month later Stripe grants it, so that pro holds", lambda: _entitled(browser), {*PRO, "audit_log"}, wait=True
    )


def _included(browser: Browser, key: str) -> int:
    """In how many products the catalogue's page shows a feature."""
    _, found, row = browser.get("/catalogue/").text.partition(f'data-feature="{key}"')
    if not found:
        raise StepFailed(f"expected {key} on /catalogue/\n    seen     no such row")
    return row.partition("</tr>")[0].count(">included<")


def _entitled(browser: Browser) -> set[str]:
    """What the catalogue's page says that the visitor is entitled to."""
    return set(browser.get("/catalogue/").marks("entitled"))


def _sign_in(browser: Browser, user: str) -> Page:
    return browser.submit("/sign-in/", "/sign-in/", user=user)


def _held_by(browser: Browser, user: str) -> set[str]:
    return set(_sign_in(browser, user).marks("held"))


def _explained(browser: Browser) -> str:
    page = browser.get(f"{ADMIN}/customer/explain/?who=free&key=sso")
    return "".join(map(unescape, re.findall(r'class="ent-verdict[^"]*">([^<]*)<', page.text)))


def _page_of_customer(browser: Browser, user: str) -> str:
    found: list[str] = re.findall(
        r'href="(/admin/entitlements_app/customer/\d+/change/)', browser.get(f"{ADMIN}/customer/?q={user}").text
    )
    if len(set(found)) != 1:
        raise StepFailed(f"expected the search for {user} to find one customer\n    seen     {len(set(found))}")
    return found[0]


def _gained(page: Page) -> set[str]:
    """What the message says."""
    told = "".join(re.findall(r'<li class="success">(.*?)</li>', page.text))
    return set(re.findall(r"\+(\w+)", told))


def _plans_named(page: Page) -> list[str]:
    return re.findall(r"Switch to (\w+)", page.text)


def _curl(stranger: Browser, user: str) -> int:
    credentials = base64.b64encode(f"{user}:demo".encode()).decode()
    return stranger.get("/api/usage/", Authorization=f"Basic {credentials}").status


def _told_to_a_front_end(browser: Browser) -> set[str]:
    return set(json.loads(browser.get("/api/entitlements/").text)["entitlements"])


def _open_gates(browser: Browser) -> set[str]:
    """Raises StepFailed if a gate's own page does, or tells of it, anything else than the list of gates says."""
    listed = re.findall(r'data-gate="([^"]*)" data-gate-state="(\w+)">\s*<a href="([^"]*)"', browser.get("/").text)
    for name, state, url in listed:
        page = browser.get(url)
        told, done = page.marks("verdict"), re.findall(r'class="gate (\w+)"', page.text)
        if told != [state] or done != [state]:
            raise StepFailed(f"expected {name} to be {state}\n    seen     {page.status}, says {told}, is {done}")
    return {name for name, state, _ in listed if state == "open"}


def _newest(page: Page, user: str) -> str:
    states = re.findall(
        rf'data-user="{user}" data-event="\w+" data-type="{re.escape(SUMMARY)}" data-status="(\w+)"', page.text
    )
    return states[0] if states else "absent"


def _told(page: Page) -> list[list[str]]:
    """All that the page shows of entitlements, webhooks and changes."""
    return [page.marks(name) for name in ("held", "event", "status", "change")]


def _endpoint(page: Page) -> str:
    """Where webhooks are posted to."""
    return "".join(re.findall(r"posted to <code>http://[^/]+(/[^<]*)</code>", page.text))


def _forge(stranger: Browser, endpoint: str, signature: str) -> Page:
    """An event that would give everything to everyone, if anyone believed it."""
    event = {"id": "evt_forged", "object": "event", "type": SUMMARY, "livemode": False, "created": int(time.time())}
    header = f"t={int(time.time())},{signature}" if signature else ""
    return stranger.post(endpoint, json.dumps(event).encode(), **{"Stripe-Signature": header})


def _deliveries(stripe: Browser) -> list[dict[str, object]]:
    deliveries: list[dict[str, object]] = json.loads(stripe.get("/_simulator/deliveries").text)["data"]
    return deliveries


def _answers(stripe: Browser) -> set[str]:
    return {str(delivery["status"]) for delivery in _deliveries(stripe)}


def _lost(stripe: Browser) -> int:
    return sum(delivery["status"] is None for delivery in _deliveries(stripe))


@contextmanager
def running_demo(folder: Path, *, command: Sequence[str] = (str(MANAGE), "demo"), **more: str) -> Iterator[Demo]:
    """Start the demo and wait until it says where to look. Afterwards it has ended. `command`: of another one.

    It is the one with a simulated Stripe, whatever account the shell has set, unless `more` of the environment says so.
    """
    port, stripe_port = free_port(), free_port()
    outside = {name: value for name, value in os.environ.items() if name not in OF_AN_ACCOUNT}
    environment = outside | {
        "PORT": str(port),
        "STRIPE_PORT": str(stripe_port),
        "DEMO_FOLDER": str(folder),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        **more,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (our own manage.py)
            [sys.executable, *command], cwd=MANAGE.parent, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        demo = Demo(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{stripe_port}", environment, process)
        try:
            _wait_until_open(process, folder / "log")
            yield demo
        finally:
            demo.stop()


def _wait_until_open(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Open http" not in log.read_text(errors="replace"):
        if process.poll() is not None:
            raise StepFailed(f"expected a running demo\n    seen     it ended with exit status {process.returncode}")
        if time.monotonic() > deadline:
            raise StepFailed(f"expected the demo to say where to look, within {START_SECONDS} s\n    seen     nothing")
        time.sleep(0.05)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the demo is stopped whoever stops us
    parser = ArgumentParser(description="Drive the demo over HTTP, and fail loudly.")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds a webhook may take (default: 10)")
    steps = Steps(patience=parser.parse_args().patience)
    with tempfile.TemporaryDirectory(prefix="entitlements-demo-") as name:
        folder = Path(name)
        try:
            with running_demo(folder) as demo:
                story(demo, steps)
        except (StepFailed, URLError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            _report(steps, error, folder / "log")
            return 1
    say(f"demo-check: all {steps.passed} steps passed")
    return 0


def _report(steps: Steps, error: Exception, log: Path) -> None:
    reason = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
    say(f"\nFAILED  step {steps.passed + 1}: {steps.current}\n    {reason}\n\nThe demo's last words:")
    for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
        say(f"    {line}")
    say(f"\ndemo-check: FAILED at step {steps.passed + 1}: {steps.current}")


if __name__ == "__main__":
    sys.exit(main())
