"""Tie dj-stripe's customers to its subscribers here, as soon as it does."""

from __future__ import annotations


def connect() -> None:
    """Listen to dj-stripe, from now on."""
