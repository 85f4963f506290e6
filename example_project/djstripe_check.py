"""What `make demo-check DJSTRIPE=1` looks at besides the story: what is particular beside dj-stripe."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from example_project.steps import Browser, Steps
from example_project.stripe_account import NO_KEY

OURS, THEIRS = "/admin/entitlements_app", "/admin/djstripe"
SUMMARY = "entitlements.active_entitlement_summary.updated"
PRO = {"premium_support", "api_access"}
PRICE_OF_PRO = "entitlements_demo_pro"


def story(steps: Steps, browser: Browser, stripe: Browser) -> None:
    """Of a customer whom dj-stripe makes, of one whom it does not know, and of a webhook on which it fails."""

    def held() -> set[str]:
        return set(browser.get("/").marks("held"))

    def customer_of_admin() -> str:
        return "".join(re.findall(r"You are <code>(cus_\w+)</code>", browser.get("/").text))

    browser.submit("/sign-in/", "/sign-in/", user="admin")
    steps.see("admin, who has bought nothing, is the customer", lambda: customer_of_admin() or "nobody", "nobody")
    _set_faults(stripe, hold_webhooks=True)
    browser.submit("/", "/plan/", plan="pro")
    customer = customer_of_admin()
    steps.see(
        "admin buys Pro, and the customer that dj-stripe makes is", lambda: "linked" if customer else "", "linked"
    )
    steps.see("which is before any webhook, so that admin holds", held, set())
    steps.see("dj-stripe has so many rows of the customer", lambda: len(_rows(browser, THEIRS, customer)), 1)
    steps.see("its page of the customer and ours", lambda: _ways(browser, customer), "lead to each other")
    _set_faults(stripe, hold_webhooks=False)
    steps.see("the webhooks arrive, and admin holds", held, PRO, wait=True)

    _set_faults(stripe, drop_webhooks={"times": 2, "type": "customer.*"})
    stranger = _buy(stripe)
    of_stranger = "somebody buys of whom dj-stripe is not told; the webhook with the summary"
    steps.see(of_stranger, lambda: _events_of(browser, stranger), "processed", wait=True)
    steps.see("dj-stripe, which discards it, has so many rows", lambda: len(_rows(browser, THEIRS, stranger)), 0)
    steps.see("here they hold", lambda: _held_in_admin(browser, stranger), PRO)

    retrieval = {"method": "GET", "path": f"/v1/customers/{customer}"}
    _set_faults(stripe, fail_requests={"status": 400, "times": 1000, **retrieval})
    browser.submit("/", "/plan/", plan="enterprise")
    steps.see("admin buys Enterprise; dj-stripe fails, and answers", lambda: _answers(stripe)[0], "500", wait=True)
    steps.see("GET /reports/, all the same", lambda: browser.get("/reports/").status, 200)
    stripe.delete("/_simulator/faults")
    steps.see("Stripe tries again, and is answered", lambda: _answers(stripe)[-1], "200", wait=True)
    steps.see("the summaries of admin in the inbox", lambda: _events_of(browser, customer), "processed, processed")


def _set_faults(stripe: Browser, **faults: object) -> None:
    answer = stripe.post("/_simulator/faults", json.dumps(faults).encode())
    if answer.status != 200:
        raise ValueError(answer.text)


def _buy(stripe: Browser) -> str:
    """The id of a customer who subscribes to Pro without the site, as by a payment link."""
    key = {"Authorization": f"Bearer sk_test_{NO_KEY}"}
    prices = json.loads(stripe.get("/v1/prices", **key).text)["data"]
    (price,) = (row["id"] for row in prices if row["lookup_key"] == PRICE_OF_PRO)
    customer: str = json.loads(stripe.post("/v1/customers", b"email=stranger%40example.com", **key).text)["id"]
    stripe.post("/v1/subscriptions", urlencode({"customer": customer, "items[0][price]": price}).encode(), **key)
    return customer


def _rows(browser: Browser, admin: str, customer: str) -> set[str]:
    """The addresses of the customer's pages in a list. Nothing is searched for: dj-stripe 2.11 fails at that."""
    rows = browser.get(f"{admin}/customer/").text.split("<tr>")
    pages = rf'href="({admin}/customer/\d+/change/)'
    return {page for row in rows if customer in row for page in re.findall(pages, row)}


def _ways(browser: Browser, customer: str) -> str:
    (ours,), (theirs,) = _rows(browser, OURS, customer), _rows(browser, THEIRS, customer)
    ways = (ours, theirs), (theirs, ours)
    missing = [here for here, there in ways if f'href="{there}"' not in browser.get(here).text]
    return f"{', '.join(missing)} does not" if missing else "lead to each other"


def _held_in_admin(browser: Browser, customer: str) -> set[str]:
    (page,) = _rows(browser, OURS, customer)
    return set(re.findall(r'<th scope="row"><code>(\w+)</code>', browser.get(page).text))


def _events_of(browser: Browser, customer: str) -> str:
    """What became of the summaries about the customer."""
    row = rf'<td class="field-state"><[^>]*>(\w+)</span></td><td class="field-type_and_customer">{re.escape(SUMMARY)}<'
    return ", ".join(re.findall(row, browser.get(f"{OURS}/webhookevent/?q={customer}").text))


def _answers(stripe: Browser) -> list[str]:
    """What the site has answered to the newest summary so far."""
    deliveries = json.loads(stripe.get("/_simulator/deliveries").text)["data"]
    summaries = [delivery for delivery in deliveries if delivery["type"] == SUMMARY]
    return [str(delivery["status"]) for delivery in summaries if delivery["event_id"] == summaries[-1]["event_id"]]
