"""The Chromium of this machine. `python -m example_project.browser.chromium` prints where it is, or how to get one."""

from __future__ import annotations

import os
import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_ONE = """There is no Chromium to look with. Get one:
    apt-get install chromium           Debian
    brew install --cask chromium       macOS
    CHROMIUM=/path/to/chrome make browser"""


def find() -> str | None:
    """What CHROMIUM names if it is set, else the first on PATH. `None` if it is not there."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


if __name__ == "__main__":
    path = find()
    if path is None:
        sys.exit(HOW_TO_GET_ONE)
    sys.stdout.write(f"{path}\n")
