"""The quick start, done as it is written, in a project that `startproject` made."""

from __future__ import annotations

import http.cookiejar
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_project.free_ports import free_port
from tests.documents import ROOT, blocks

PAGE = ROOT / "docs" / "quick-start.md"
PATIENCE = 60.0  # seconds, for a slow machine


class Reader:
    """Someone who follows the page: keeps files, types commands, opens pages in a browser."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.stripe = free_port(), free_port()
        self.servers: list[subprocess.Popen[bytes]] = []
        clean = {
            name: value for name, value in os.environ.items() if not re.match("DJANGO_|TEST_|STRIPE_|PYTHON", name)
        }
        self.environment = {**clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_PROXY": "*"}
        self.browser = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def with_our_ports(self, text: str) -> str:
        return text.replace("8000", str(self.site)).replace("12111", str(self.stripe))

    def keep(self, text: str) -> None:
        """The first line says where: `# FILE` or `# FILE, at the end`."""
        match = re.match(r"# (\S+?)(, at the end)?\n", text)
        assert match, text
        file = self.folder / match[1]
        file.write_text((file.read_text() if match[2] else "") + text)

    def type(self, line: str) -> None:
        if line.startswith("pip install"):
            return  # the tests run where it is installed
        command = ["sh", "-c", f"exec {line}" if "=" not in line.split()[0] else line]
        if "runserver" in line or "entitlements_simulator" in line:
            quiet = subprocess.DEVNULL
            self.servers.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=self.environment, stdout=quiet, stderr=quiet, start_new_session=True
                )
            )
            _wait_for(self.site if "runserver" in line else self.stripe)
            return
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "WARNINGS" not in done.stderr + done.stdout, done.stderr

    def open(self, path: str, **form: str) -> tuple[int, str]:
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self.browser.open(f"http://127.0.0.1:{self.site}{path}", data, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def sign_in(self) -> None:
        _, page = self.open("/admin/login/?next=/admin/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token
        status, page = self.open(
            "/admin/login/?next=/admin/", csrfmiddlewaretoken=token[1], username="ada", password="demo"
        )
        assert status == 200
        assert "Site administration" in page

    def leave(self) -> None:
        for server in self.servers:
            os.killpg(server.pid, signal.SIGKILL)  # runserver has a child
            server.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with socket.socket() as door:
            if door.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"Nothing listens on {port}.")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    try:
        yield reader
    finally:
        reader.leave()


def test_the_quick_start_works_as_written(reader: Reader) -> None:
    steps = [block for block in blocks(PAGE) if block.heading != "With a Stripe account"]
    assert len(steps) > 6
    for step in steps:
        text = reader.with_our_ports(step.text)
        if step.language == "python":
            if "sell.py" in text:
                reader.sign_in()
                assert reader.open("/reports/")[0] == 403, "Ada has not paid"
            reader.keep(text)
        else:
            for line in text.splitlines():
                reader.type(line.removeprefix("$ "))
    end = time.monotonic() + PATIENCE
    while reader.open("/reports/")[0] == 403 and time.monotonic() < end:
        time.sleep(0.1)
    assert reader.open("/reports/") == (200, "Here are your reports.")
    status, page = reader.open("/admin/entitlements_app/customer/")
    assert (status, "1 customer" in page) == (200, True)
