"""Bring the events that reach dj-stripe's endpoint into the inbox."""

from __future__ import annotations


def connect() -> None:
    """Listen to dj-stripe, from now on."""
