"""A running demo, and a Chromium that looks at it. A page that complains in its console fails its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from example_project.browser.launch import PATIENCE, NoChromium, launched, sign_in
from example_project.demo_check import Demo, running_demo

Open = Callable[..., Page]

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    settings = {"DJANGO_SETTINGS_MODULE": "example_project.settings"}  # pytest's are those of the tests
    with running_demo(tmp_path_factory.mktemp("demo"), **settings) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with launched() as browser:
            yield browser
    except NoChromium as error:
        pytest.fail(str(error))


@pytest.fixture
def open_site(browser: Browser, demo: Demo) -> Iterator[Open]:
    """Open a page as someone who was never here, with options of Playwright's `new_context`; `user` signs in."""
    complaints: list[str] = []
    contexts = []

    def open_site(path: str = "/", *, user: str = "", **options: Any) -> Page:
        context = browser.new_context(base_url=demo.site, reduced_motion="reduce", **options)
        context.set_default_timeout(PATIENCE)
        context.on("console", lambda message: complaints.extend(_complaints_of(message)))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("requestfailed", lambda request: complaints.extend(_failures_of(request)))
        contexts.append(context)
        page = context.new_page()
        page.goto(path)
        if user:
            sign_in(page, user)
        return page

    yield open_site
    for context in contexts:
        context.close()
    assert complaints == []


def _complaints_of(message: ConsoleMessage) -> list[str]:
    """A closed gate is no error of the page's, though Chromium notes each 403."""
    if message.type not in ("error", "warning") or "status of 403" in message.text:
        return []
    return [f"{message.text} ({message.location['url']})"]


def _failures_of(request: Request) -> list[str]:
    """A question that was under way when the visitor went on is broken off."""
    if request.failure == "net::ERR_ABORTED":
        return []
    return [f"{urlsplit(request.url).path}: {request.failure}"]
