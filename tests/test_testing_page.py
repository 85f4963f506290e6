"""The examples of docs/testing.md, run as the tests of a site: the example project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks

for needed in ("rest_framework", "jinja2"):
    pytest.importorskip(needed, reason="the example needs the extra demo")


def test_each_example_of_the_page_passes(tmp_path: Path) -> None:
    page = ROOT / "docs" / "testing.md"
    code = "\n".join(block.text for block in blocks(page) if block.language == "python")
    (tmp_path / "test_page.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "DJANGO_"))}

    done = subprocess.run(
        [*command, "--ds=example_project.settings", f"--rootdir={tmp_path}", "--no-migrations", tmp_path],
        cwd=ROOT,
        env=outside,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    tests = code.count("def test_")
    assert tests > 10
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr
