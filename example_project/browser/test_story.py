"""The demo as a person sees it, in a real browser: `make browser`."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .conftest import Open
from .launch import fits_and_can_be_read, sign_in

GATES = {
    "/gates/request/": "{% if request.entitlements.premium_support %}",
    "/gates/block/": '{% entitled "premium_support" %}',
    "/gates/filter/": '{% if user|entitled_to:"premium_support" %}',
    "/gates/jinja/": '{% if "premium_support" in request.entitlements %}',
    "/support/": "def support(request: HttpRequest)",
    "/tokens/": "async def tokens(request: HttpRequest)",
    "/exports/": "class Exports(EntitlementRequiredMixin, TemplateView):",
    "/reports/": 'entitlement_required("advanced_reporting")(include(',
    "/gates/permission/": '@permission_required("entitlements.premium_support"',
    "/gates/api/": "permission_classes = [HasEntitlement]",
    "/gates/api-composed/": "permission_classes = [IsAuthenticated & HasEntitlement.of(",
    "/gates/code/": 'has_entitlement(request.user, "sso")',
}
FOR_ENTERPRISE = {"/exports/", "/reports/", "/gates/api-composed/", "/gates/code/"}
WAITING = ["/welcome/?plan=enterprise", "/welcome/?plan=enterprise&waiting_since=1"]
PAGES = ["/", "/catalogue/", *GATES, "/reports/2025/", *WAITING]


def test_a_customer_upgrades_looks_around_and_cancels(open_site: Open) -> None:
    page = open_site("/support/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Who are you?")
    sign_in(page, "free")
    expect(page).to_have_url(re.compile("/support/$"))
    _see(page, "closed")
    expect(page.locator("#why")).to_contain_text("No active entitlement says yes.")
    expect(page.locator("#why")).to_contain_text("It comes with Pro and Enterprise")
    beside = page.context.new_page()
    beside.goto("/gates/request/")
    _see(beside, "closed")
    beside.evaluate("window.loadedOnce = true")

    page.get_by_role("button", name="Switch to Pro").click()

    _see(page, "open")
    _see(beside, "open")
    assert beside.evaluate("window.loadedOnce"), "the page beside was to change without a reload"
    for path, code in GATES.items():
        page.goto(path)
        _see(page, "closed" if path in FOR_ENTERPRISE else "open")
        expect(page.locator("figure pre").filter(has_text=code)).to_have_count(1)
    page.goto("/support/")
    expect(page.locator("[data-proof]")).to_have_text(re.compile("^ent_"))

    page.goto("/gates/api/")
    page.get_by_role("link", name="/api/usage/").click()
    expect(page.locator("body")).to_contain_text('{"user":"free","requests_this_month":1284}')

    page.goto("/")
    row = page.locator("tr[data-user=free]", has=page.locator("[data-change='+premium_support']")).first
    expect(row).to_contain_text("+api_access")
    page.get_by_role("button", name="Cancel now, back to Free").click()
    _see(beside, "closed")
    expect(page.locator("[data-held]")).to_have_count(0)
    expect(page.locator("tr[data-user=free] [data-change='-premium_support']").first).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Who are you?")
    page.goto("/support/")
    expect(page).to_have_url(re.compile(r"/sign-in/\?next=/support/$"))


def test_a_lost_webhook_is_mended_by_asking_stripe(open_site: Open) -> None:
    page = open_site(user="pro")
    expect(page.locator("[data-held]")).to_have_count(2)

    page.get_by_role("button", name="Lose the next webhook").click()
    expect(page.get_by_text("Armed: the next one will be lost.")).to_be_visible()
    page.get_by_role("button", name="Switch to Enterprise").click()

    expect(page.get_by_text("Waiting for Stripe to confirm what your plan includes.")).to_be_visible()
    expect(page.locator("[data-held]")).to_have_count(4)  # the page that waited has asked
    row = page.locator("tr[data-row='Stripe was asked'][data-user=pro]").first
    expect(row).to_contain_text("+sso")

    page.get_by_role("button", name="Lose the next webhook").click()
    page.get_by_role("button", name="Switch to Pro").click()

    expect(page.get_by_text("Waiting for Stripe’s webhook…")).to_be_visible()
    page.get_by_role("button", name="Ask Stripe now").click()  # appears when it has not come for a while
    expect(page.get_by_text("Asked Stripe. Repaired.")).to_be_visible()
    expect(page.locator("[data-held]")).to_have_count(2)
    expect(row).to_contain_text("−sso")


def test_the_page_that_waits_does_not_fill_the_history(open_site: Open) -> None:
    page = open_site(user="admin")
    page.goto("/welcome/?plan=enterprise")
    expect(page.get_by_text("Waiting for Stripe to confirm what your plan includes.")).to_be_visible()
    before = page.evaluate("history.length")

    for _ in range(3):
        page.wait_for_event("load")

    assert page.evaluate("history.length") <= before + 1


def test_a_trial_is_cancelled_for_its_end_and_kept_after_all(open_site: Open) -> None:
    page = open_site(user="admin")
    terms = page.locator("[data-plan=pro] .terms")

    page.get_by_role("button", name="Try Pro for 14 days").click()
    expect(terms).to_have_text(re.compile(r"Trial until\s+\d+ \w+ \d{4}, then \$20 a month\."))
    expect(page.locator("[data-held]")).to_have_count(2)

    page.get_by_role("button", name="Cancel at the end of the period").click()
    expect(terms).to_have_text(re.compile(r"Ends on\s+\d+ \w+ \d{4}; until then it stays open\."))
    expect(page.locator("[data-held]")).to_have_count(2)

    page.get_by_role("button", name="Keep Pro").click()
    expect(terms).to_contain_text("Trial until")
    page.get_by_role("button", name="Cancel now, back to Free").click()
    expect(page.locator("[data-held]")).to_have_count(0)


def test_without_scripts_the_pages_renew_themselves(open_site: Open) -> None:
    page = open_site(user="admin", java_script_enabled=False)
    expect(page.get_by_role("link", name="Refresh")).to_be_visible()

    page.get_by_role("button", name="Switch to Pro").click()

    expect(page.locator("[data-held]")).to_have_count(2)


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_every_page_fits_and_can_be_read(open_site: Open, scheme: str, width: int) -> None:
    page = open_site("/sign-in/", color_scheme=scheme, viewport={"width": width, "height": 800})
    fits_and_can_be_read(page)
    for user in ("enterprise", "free"):
        page.goto("/sign-in/")
        sign_in(page, user)
        for path in PAGES:
            page.goto(path)
            fits_and_can_be_read(page)


def test_the_keyboard_reaches_the_content(open_site: Open) -> None:
    page = open_site(user="enterprise")

    page.keyboard.press("Tab")

    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def _see(page: Page, state: str) -> None:
    """What the gate does, and what is said of it, are the same."""
    expect(page.locator(f".gate.{state}")).to_have_count(1)
    expect(page.locator(f"[data-verdict={state}]")).to_have_count(1)
