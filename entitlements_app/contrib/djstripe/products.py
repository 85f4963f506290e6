"""Take the names of products from dj-stripe."""

from __future__ import annotations


def connect() -> None:
    """Listen to dj-stripe, from now on."""
