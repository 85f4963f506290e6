"""A Chromium that is driven, and what is done with it on any page of the demo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from . import chromium

LOOK = (Path(__file__).parent / "look.js").read_text()
PATIENCE = 30_000  # milliseconds: machines are slow at times


class NoChromium(Exception):
    """There is none on this machine."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Raises `NoChromium`, which says how to get one."""
    path = chromium.find()
    if path is None:
        raise NoChromium(chromium.HOW_TO_GET_ONE)
    # Chromium's sandbox refuses to run for root, which one is in most containers.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        arguments += ["--disable-dev-shm-usage", "--disable-gpu", "--disable-software-rasterizer"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def sign_in(page: Page, user: str) -> None:
    """From the page that asks who you are. Waits for the next one: what is done too early is done to this one."""
    page.locator("main").get_by_role("button", name=f"Sign in as {user}").click()
    expect(page.locator("nav [aria-current]")).to_have_text(user)


def fits_and_can_be_read(page: Page, *, within: str = "body") -> None:
    """It is no wider than the window, and all text in what the selector names stands out."""
    overflow, faint = page.evaluate(LOOK, within)
    assert overflow <= 0, f"{page.url} is {overflow} px too wide"
    assert faint == [], page.url
