"""Receivers connected for the length of a test, and what they were told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from entitlements_app.models import EntitlementChange
from entitlements_app.signals import entitlement_granted, entitlement_revoked

Receiver = Callable[..., Any]


@contextmanager
def connected(*receivers: Receiver) -> Iterator[None]:
    """To both signals."""
    signals = (entitlement_granted, entitlement_revoked)
    for signal in signals:
        for receiver in receivers:
            signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        for signal in signals:
            for receiver in receivers:
                signal.disconnect(receiver)


class Listener:
    """A receiver that remembers, and that fails as often as it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fails = 0

    def __call__(self, **kwargs: Any) -> None:
        self.calls.append(kwargs)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the other service is down")

    @property
    def changes(self) -> list[EntitlementChange]:
        return [call["change"] for call in self.calls]

    @property
    def heard(self) -> list[str]:
        """As +key and -key."""
        return [("+" if change.kind == "granted" else "-") + change.lookup_key for change in self.changes]

    def of(self, subscriber: Any) -> list[int]:
        """The numbers of what it was told about one subscriber."""
        return [change.pk for change in self.changes if change.subscriber_id == subscriber.pk]
