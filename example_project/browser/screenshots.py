"""`make screenshots`: each page that this app has in Django admin, light and dark, wide and narrow.

A demo with two weeks behind it is started, and pictures of its pages are left in a folder: that of the argument, or
`.demo/screenshots`. With `--docs` those that the documentation shows are made anew in `docs/images`, and no others.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page

from example_project.demo_check import Demo, running_demo
from example_project.steps import StepFailed

from .launch import PATIENCE, NoChromium, launched, sign_in

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
Scheme = Literal["light", "dark"]
MOST_BYTES = 150_000  # of one that is committed
ADMIN = "/admin/entitlements_app"
CUSTOMERS = f"{ADMIN}/customer/"
MODELS = (
    *("activeentitlement", "customer", "entitlementchange", "entitlementoverride"),
    *("feature", "product", "productfeature", "syncrun", "webhookevent"),
)
WIDTH_IN_DOCS = 1040
WIDTHS = {"wide": 1280, "narrow": 390}
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

Go = Callable[[Page], object]


@dataclass(frozen=True)
class Shot:
    """A page, and the way that leads to it."""

    name: str
    go: Go


def main() -> int:
    parser = ArgumentParser(description="Make pictures of the pages in Django admin.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".demo" / "screenshots")
    parser.add_argument("--docs", action="store_true", help="make those of the documentation anew")
    options = parser.parse_args()
    folder, began = IMAGES if options.docs else options.folder, time.monotonic()
    try:
        made = _take(folder, of_docs=options.docs)
    except (StepFailed, NoChromium) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{made} pictures in {folder}, in {time.monotonic() - began:.0f} s\n")
    return 0


def _take(folder: Path, *, of_docs: bool) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    command = ("-m", "example_project.browser.fortnight")
    with (
        tempfile.TemporaryDirectory(prefix="entitlements-screenshots-") as name,
        running_demo(Path(name), command=command) as demo,
        launched() as browser,
    ):
        if of_docs:
            return _take_for_docs(demo, browser, folder)
        return sum(_take_all(demo, browser, folder, width, scheme) for width in WIDTHS for scheme in SCHEMES)


def _take_all(demo: Demo, browser: Browser, folder: Path, width: str, scheme: Scheme) -> int:
    page = _visit(demo, browser, width, scheme)
    for user, shots in (("admin", [*LISTS_AND_ROWS, *STORIES, CONFIRMED]), ("support", OF_SUPPORT)):
        page.goto("/sign-in/")
        sign_in(page, user)
        for shot in shots:
            shot.go(page)
            page.screenshot(path=folder / f"{shot.name}-{width}-{scheme}.png", full_page=True)
    page.context.close()
    return len(LISTS_AND_ROWS) + len(STORIES) + len(OF_SUPPORT) + 1


def _take_for_docs(demo: Demo, browser: Browser, folder: Path) -> int:
    """Raises StepFailed for one that is too big for a repository."""
    page = _visit(demo, browser, "wide", "light")
    sign_in(page, "admin")
    page.goto(CUSTOMERS)
    page.get_by_role("button", name="Toggle navigation").click()  # the list of all pages at the left: it stays hidden
    for shot, height in FOR_DOCS:
        page.set_viewport_size({"width": WIDTH_IN_DOCS, "height": height})
        shot.go(page)
        path = folder / f"{shot.name}.png"
        page.screenshot(path=path)
        if (size := path.stat().st_size) > MOST_BYTES:
            raise StepFailed(f"expected {path.name} to have at most {MOST_BYTES} bytes\n    seen     {size}")
    return len(FOR_DOCS)


def _visit(demo: Demo, browser: Browser, width: str, scheme: Scheme) -> Page:
    context = browser.new_context(
        base_url=demo.site,
        color_scheme=scheme,
        viewport={"width": WIDTHS[width], "height": 800},
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto("/sign-in/")
    return page


# The ways


def _to(path: str) -> Go:
    return lambda page: page.goto(path)


def _to_first_row(model: str, query: str = "") -> Go:
    def go(page: Page) -> None:
        page.goto(f"{ADMIN}/{model}/{query}")
        with page.expect_navigation():
            page.locator("#result_list tbody th a").first.click()

    return go


def _to_customer(name: str) -> Go:
    return _to_first_row("customer", f"?q={name.lower().replace(' ', '.')}@example.com")


def _to_explanation(who: str, key: str) -> Go:
    return _to(f"{CUSTOMERS}explain/?who={who}&key={key}")


def _confirm(page: Page) -> None:
    _to_customer("Ada Lovelace")(page)
    with page.expect_navigation():
        page.get_by_role("button", name="Confirm now").click()


def _to_feature(key: str) -> Go:
    return _to_first_row("feature", f"?q={key}")


def _ask(go: Go, button: str) -> Go:
    """To the page that asks whether to do it, from one with that button."""

    def ask(page: Page) -> None:
        go(page)
        if button == "Attach…":
            page.locator("#ent-attach").select_option(index=1)
        with page.expect_navigation():
            page.get_by_role("button", name=button).first.click()

    return ask


def _refuse_key(page: Page) -> None:
    page.goto(f"{ADMIN}/feature/add/")
    page.get_by_label("Name:").fill("Priority phone")
    page.get_by_label("Lookup key:").fill("priority-phone")
    page.get_by_label("Key 1", exact=True).fill("minutes")
    page.get_by_label("Value 1", exact=True).fill("120")
    with page.expect_navigation():
        page.get_by_role("button", name="Save").click()


def _choose_all(page: Page) -> None:
    page.goto(f"{ADMIN}/feature/")
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("archive_chosen")
    with page.expect_navigation():
        page.get_by_role("button", name="Go", exact=True).click()


LISTS_AND_ROWS = [
    *(Shot(f"{model}-list", _to(f"{ADMIN}/{model}/")) for model in MODELS),
    *(Shot(f"{model}-row", _to_first_row(model)) for model in MODELS),
]
STORIES = [
    Shot("index", _to("/admin/")),
    Shot("overview", _to(f"{ADMIN}/overview/")),
    Shot("customer-found", _to(f"{CUSTOMERS}?q=ada.lovelace@example.com")),
    Shot("customer-not-found", _to(f"{CUSTOMERS}?q=nobody@example.com")),
    Shot("customer-granted", _to_customer("Ada Lovelace")),
    Shot("customer-denied", _to_customer("Katherine Johnson")),
    Shot("customer-lost", _to_customer("Edsger Dijkstra")),
    Shot("customer-unlinked", _to_customer("Margaret Hamilton")),
    Shot("explain-empty", _to(f"{CUSTOMERS}explain/")),
    Shot("explain-yes", _to_explanation("ada", "premium_support")),
    Shot("explain-no", _to_explanation("edsger", "premium_support")),
    Shot("explain-denied", _to_explanation("katherine", "sso")),
    Shot("explain-nobody", _to_explanation("nobody", "sso")),
    Shot("override-add", _to(f"{ADMIN}/entitlementoverride/add/")),
    Shot("feature-add", _to(f"{ADMIN}/feature/add/")),
    Shot("feature-add-warned", _refuse_key),
    Shot("feature-attach", _ask(_to_feature("sso"), "Attach…")),
    Shot("feature-detach", _ask(_to_feature("api_access"), "Detach ")),
    Shot("feature-archive", _ask(_to_feature("api_access"), "Archive…")),
    Shot("features-archive", _choose_all),
    Shot("product-detach", _ask(_to_first_row("product"), "Detach ")),
    Shot("inbox-failed", _to(f"{ADMIN}/webhookevent/?status__exact=failed")),
    Shot("inbox-failed-row", _to_first_row("webhookevent", "?status__exact=failed")),
]
CONFIRMED = Shot("customer-confirmed", _confirm)
OF_SUPPORT = [
    Shot("index-support", _to("/admin/")),
    Shot("overview-support", _to(f"{ADMIN}/overview/")),
    Shot("customer-support", _to_customer("Ada Lovelace")),
    Shot("inbox-support", _to_first_row("webhookevent", "?status__exact=failed")),
]
FOR_DOCS = [
    (Shot("admin-overview", _to(f"{ADMIN}/overview/")), 1004),
    (Shot("admin-customer", _to_customer("Katherine Johnson")), 1000),
    (Shot("admin-explain", _to_explanation("edsger", "premium_support")), 640),
]


if __name__ == "__main__":
    sys.exit(main())
