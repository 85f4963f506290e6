"""The example project through its own front door: the commands behind `make demo` and `make demo-check`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python at the root of the project, as the Makefile does, in another process than the tests' Django."""
    outside = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
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


def test_demo_check_tells_the_whole_story():
    check = run("-m", "example_project.demo_check")

    assert check.returncode == 0, check.stdout
    *steps, last = check.stdout.splitlines()
    assert last == f"demo-check: all {len(steps)} steps passed"


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
