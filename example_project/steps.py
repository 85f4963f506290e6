"""A story told to a site over HTTP, step by step, and the browser without a screen that tells it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import BaseHandler, HTTPCookieProcessor, OpenerDirector, ProxyHandler, Request, build_opener


class StepFailed(Exception):
    """What was expected, and what was seen instead."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class Steps:
    """Each step is one line of output. `patience` is how many seconds a webhook may take to show its effect."""

    patience: float
    passed: int = 0
    current: str = "the demo starts"

    def see(self, title: str, look: Callable[[], object], expected: object, *, wait: bool = False) -> None:
        """Look until what is expected is seen, or patience ends; without `wait` once. Raises StepFailed."""
        self.current = title
        began = time.monotonic()
        while (seen := look()) != expected:
            if not wait or time.monotonic() - began > self.patience:
                raise StepFailed(f"expected {_shown(expected)}\n    seen     {_shown(seen)}")
            time.sleep(0.05)
        self.passed += 1
        after = f", {time.monotonic() - began:.2f} s later" if wait else ""
        say(f"ok {self.passed:2}  {title}: {_shown(seen)}{after}")


def _shown(value: object) -> str:
    return ", ".join(sorted(value)) or "nothing" if isinstance(value, set) else str(value)


@dataclass(frozen=True)
class Page:
    status: int
    text: str

    @property
    def heading(self) -> str:
        return "".join(re.findall(r"<h1>(.*?)</h1>", self.text))

    def marks(self, name: str) -> list[str]:
        """The values of a `data-` attribute, in order."""
        return re.findall(rf'data-{name}="([^"]*)"', self.text)


class _KeepErrors(BaseHandler):
    """An answer of 400 and above is an answer."""

    handler_order = 100

    def http_error_default(self, _request: Request, answer: HTTPResponse, *_: object) -> HTTPResponse:
        return answer


class Browser:
    """Keeps cookies, follows redirects, and posts forms with the token of the page they stand on."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._opener: OpenerDirector = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()), _KeepErrors)

    def get(self, path: str, **headers: str) -> Page:
        return self._open(Request(self._base + path, headers=headers))  # noqa: S310  (our own server)

    def post(self, path: str, body: bytes, **headers: str) -> Page:
        return self._open(Request(self._base + path, data=body, headers=headers))  # noqa: S310

    def delete(self, path: str) -> Page:
        return self._open(Request(self._base + path, method="DELETE"))  # noqa: S310

    def submit(self, page: str, action: str, **fields: str) -> Page:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(page).text)
        if token is None:
            raise StepFailed(f"expected a form on {page}\n    seen     none")
        return self.post(action, urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode())

    def wait_as_told(self, page: Page, *, at: str) -> Page:
        """Load the page again, when and where it says, until it leads elsewhere or stops."""
        while told := re.search(r'http-equiv="refresh" content="(\d+); url=([^"]*)"', page.text):
            time.sleep(int(told[1]))
            page = self.get(at + unescape(told[2]))
        return page

    def _open(self, request: Request) -> Page:
        with self._opener.open(request, timeout=10) as answer:
            return Page(answer.status, answer.read().decode())
