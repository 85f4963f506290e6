"""Another name for a gate."""

from entitlements_app.access import has_entitlement
from entitlements_app.decorators import entitlement_required as paid

__all__ = ["has_entitlement", "paid"]
