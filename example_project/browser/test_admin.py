"""Django admin as support, product and operations use it, in a real browser: `make browser`.

Each test leaves the people of the demo as it found them, as the others meet them, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import stripe
from playwright.sync_api import Page, expect

from example_project.demo_check import Demo
from example_project.shop.catalogue import find_prices
from example_project.shop.plans import PRO
from example_project.shop.stripe_faults import send_unreadable_event
from example_project.steps import Browser
from example_project.stripe_account import NO_KEY

from .conftest import Open
from .launch import fits_and_can_be_read, sign_in
from .screenshots import ADMIN, CUSTOMERS, LISTS_AND_ROWS, OF_SUPPORT, STORIES, Shot

API_KEY = f"sk_test_{NO_KEY}"
OURS = "#content"  # the frame around it is Django's
CAN_BE_SEEN = """() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== "none" || style.boxShadow !== "none" || style.borderStyle !== "none";
}"""


def test_support_finds_out_why_and_mends_it(open_site: Open, demo: Demo) -> None:
    page = _open_admin(open_site)
    page.get_by_role("link", name="Customers", exact=True).first.click()
    page.locator("#searchbar").fill("Edsger.Dijkstra@example.com")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q="))
    page.locator("#result_list tbody th a").click()
    _explain(page, "premium_support")
    expect(page.locator(".ent-verdict")).to_contain_text("No")
    expect(page.locator(OURS)).to_contain_text("edsger")

    subscription = _buy_without_a_webhook(demo, "edsger.dijkstra@example.com")
    page.reload()
    expect(page.locator(".ent-verdict")).to_contain_text("No")
    page.get_by_role("link", name=re.compile("^The page of cus_")).click()
    page.get_by_role("button", name="Confirm now").click()

    expect(page.locator(".messagelist")).to_contain_text("premium_support")
    _explain(page, "premium_support")
    expect(page.locator(".ent-verdict")).to_contain_text("Yes")

    _stripe(demo).v1.subscriptions.cancel(subscription)


def test_a_key_is_granted_until_a_date_and_the_shop_opens(open_site: Open) -> None:
    page = _open_admin(open_site)
    _open_customer(page, "free@example.com")
    page.get_by_label("Grant or deny", exact=True).select_option(label="Grant")
    form = page.locator("section", has=page.get_by_role("heading", name=re.compile("^Grant or deny a key")))
    form.get_by_label("Lookup key").fill("advanced_reporting")
    form.locator("[type=date]").fill(f"{datetime.now(UTC) + timedelta(days=7):%Y-%m-%d}")
    form.get_by_label("Reason").fill("A week to look around")
    form.get_by_role("button", name="Save override").click()
    expect(page.locator(".messagelist .success")).to_contain_text("advanced_reporting")
    expect(page.locator(OURS)).to_contain_text("A week to look around")

    shop = open_site("/reports/")
    sign_in(shop, "free")
    expect(shop.locator(".gate.open")).to_have_count(1)

    page.get_by_role("button", name="End override advanced_reporting").click()
    expect(page.locator(".messagelist .success")).to_contain_text("advanced_reporting")
    shop.reload()
    expect(shop.locator(".gate.closed")).to_have_count(1)


def test_a_customer_of_nobody_is_linked_and_unlinked(open_site: Open) -> None:
    page = _open_admin(open_site)
    _open_customer(page, "margaret.hamilton@example.com")
    expect(page.locator(OURS)).to_contain_text("linked to nobody")

    page.get_by_label("Link to which user?").fill("admin@example.com")
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.locator(".messagelist .success")).to_contain_text("is linked to admin")

    page.get_by_label("Yes, unlink it").check()
    page.get_by_role("button", name="Unlink", exact=True).click()
    expect(page.locator(".messagelist .success")).to_contain_text("no longer linked")
    expect(page.locator(OURS)).to_contain_text("linked to nobody")


def test_a_failed_event_is_tried_again(open_site: Open, demo: Demo) -> None:
    customer = _stripe(demo).v1.customers.list({"email": "alan.turing@example.com"}).data[0]
    send_unreadable_event(customer.id, site=demo.site)
    page = _open_admin(open_site)
    page.goto(f"{ADMIN}/webhookevent/?status__exact=failed")
    page.locator("#result_list tbody th a").first.click()
    expect(page.locator(OURS)).to_contain_text("entitlements: expected an object")

    page.get_by_role("button", name="Try again").click()

    expect(page.locator(".messagelist .success")).to_contain_text("is processed")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_who_has_a_feature_arrives_as_a_file(open_site: Open, tmp_path: Path) -> None:
    page = _open_admin(open_site)
    page.goto(f"{ADMIN}/activeentitlement/?q=sso")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()

    download.value.save_as(tmp_path / "who.csv")
    head, *rows = (tmp_path / "who.csv").read_text().splitlines()
    assert "lookup_key" in head
    assert rows
    assert all("sso" in row for row in rows)


def test_a_feature_is_made_sold_and_archived(open_site: Open) -> None:
    page = _open_admin(open_site)
    page.goto(f"{ADMIN}/feature/")
    page.get_by_role("link", name="Add feature").click()
    page.get_by_label("Name:").fill("Priority phone")
    page.get_by_label("Lookup key:").fill("priority_phone")
    page.get_by_label("Key 1", exact=True).fill("minutes")
    page.get_by_label("Value 1", exact=True).fill("120")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist .success")).to_contain_text("“priority_phone” is created")

    page.get_by_label("Attach another product").select_option(index=1)
    page.get_by_role("button", name="Attach…", exact=True).click()
    expect(page.locator(OURS)).to_contain_text("Nobody gains or loses anything here and now")
    page.get_by_role("button", name="Attach it").dblclick()
    expect(page.locator(".messagelist")).to_contain_text("priority_phone")

    page.get_by_label("Value 1", exact=True).fill("240")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist .success")).to_contain_text("is changed")
    expect(page.get_by_label("Value 1", exact=True)).to_have_value("240")

    page.get_by_role("button", name=re.compile("^Detach ")).click()
    page.get_by_role("button", name="Detach it").click()
    expect(page.locator(".messagelist .success")).to_contain_text("is detached")
    page.get_by_role("button", name="Archive…").click()
    page.get_by_role("button", name="Archive it for good").click()
    expect(page.locator(OURS)).to_contain_text("It is archived, which is final")
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


def test_the_overview_s_numbers_lead_to_their_rows(open_site: Open) -> None:
    page = _open_admin(open_site)
    page.get_by_role("link", name="Overview", exact=True).first.click()
    expect(page.get_by_role("img", name="Grants and revocations per day")).to_be_visible()
    addresses = [link.get_attribute("href") or "" for link in page.locator(f"{OURS} a").all()]
    for address in {urlsplit(address).path: address for address in addresses}.values():  # one of each list
        page.goto(address)
        expect(page.locator(OURS)).to_be_visible()


def test_who_may_only_look_sees_no_buttons(open_site: Open) -> None:
    page = _open_admin(open_site, user="support", java_script_enabled=False)
    for shot in [*LISTS_AND_ROWS, *OF_SUPPORT]:
        shot.go(page)
        expect(page.locator(OURS)).to_be_visible()
        assert page.locator(f"{OURS} form[method=post] :is(button, [type=submit])").count() == 0, page.url


def test_all_of_it_works_by_keyboard(open_site: Open) -> None:
    page = _open_admin(open_site)
    page.goto(f"{CUSTOMERS}?q=ada.lovelace@example.com")
    _press_tab_until(page, "#result_list tbody th a")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    _press_tab_until(page, "[value='Confirm now']")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("nothing has changed")


@pytest.mark.parametrize(
    ("scheme", "width", "scripts", "shots"),
    [("light", 360, True, [*LISTS_AND_ROWS, *STORIES]), ("dark", 1280, False, STORIES)],
)
def test_every_page_of_the_admin_fits_and_can_be_read(
    open_site: Open, scheme: str, width: int, scripts: bool, shots: Sequence[Shot]
) -> None:
    page = _open_admin(
        open_site, color_scheme=scheme, viewport={"width": width, "height": 800}, java_script_enabled=scripts
    )
    for shot in shots:
        shot.go(page)
        fits_and_can_be_read(page, within=OURS)


def _open_admin(open_site: Open, *, user: str = "admin", **options: object) -> Page:
    page = open_site("/sign-in/?next=/admin/", **options)
    page.locator("main").get_by_role("button", name=f"Sign in as {user}").click()
    expect(page.locator("#user-tools strong")).to_have_text(user)
    return page


def _open_customer(page: Page, term: str) -> None:
    page.goto(f"{CUSTOMERS}?q={term}")
    page.locator("#result_list tbody th a").first.click()


def _explain(page: Page, key: str) -> None:
    """From a page that asks for a key."""
    form = page.locator("form", has=page.get_by_role("button", name="Explain")).first
    form.get_by_label("Lookup key").fill(key)
    form.get_by_role("button", name="Explain").click()


def _press_tab_until(page: Page, selector: str) -> None:
    """Each stop on the way can be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        assert page.evaluate(CAN_BE_SEEN), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab did not reach {selector}")


def _stripe(demo: Demo) -> stripe.StripeClient:
    return stripe.StripeClient(API_KEY, base_addresses={"api": demo.stripe})


def _buy_without_a_webhook(demo: Demo, email: str) -> str:
    """Pro, for the customer of that address. Returns the id of the subscription."""
    client, control = _stripe(demo), Browser(demo.stripe)
    customer = client.v1.customers.list({"email": email}).data[0]
    price = find_prices(client)[PRO.price_lookup_key]
    control.post("/_simulator/faults", json.dumps({"drop_webhooks": 9}).encode())
    subscription = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    control.post("/_simulator/wait", b'{"timeout": 10}')
    control.post("/_simulator/faults", json.dumps({"drop_webhooks": 0}).encode())
    return subscription.id
