"""The documentation, taken apart: pages, headings, links, blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the heading of level two that it stands under."""

    language: str
    text: str
    heading: str


def blocks(page: Path) -> Iterator[Block]:
    heading, fence, lines = "", "", []
    for line in page.read_text().splitlines():
        if fence and line == "```":
            yield Block(fence[3:], "\n".join(lines) + "\n", heading)
            fence, lines = "", []
        elif fence:
            lines.append(line)
        elif line.startswith("```"):
            fence = line
        elif line.startswith("## "):
            heading = line[3:]
    assert not fence, f"{page.name} has a block without an end"


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
