"""What a site connects its receivers to. `docs/provisioning.md` says what to write in one.

A receiver is called for each change of a subscriber's answer: after its commit, at least once, again until it does not
raise, in the order of `change.pk` for one subscriber. Its arguments are `subscriber` (whose answer changed), `customer`
(through which, `None` for an override), `lookup_key` and `change` (the `EntitlementChange`, whose class is the sender).
"""

from __future__ import annotations

from django.dispatch import Signal

entitlement_granted = Signal()
entitlement_revoked = Signal()
