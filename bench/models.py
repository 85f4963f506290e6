"""An active entitlement as one would write it without a thought for its size."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from entitlements_app.models import Customer, Feature


class StockEntitlement(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    feature = models.ForeignKey(Feature, on_delete=models.PROTECT, related_name="+")
    stripe_id = models.CharField(max_length=255, unique=True)
    lookup_key = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=timezone.now)
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        unique_together = (("customer", "feature"),)

    def __str__(self) -> str:
        return self.stripe_id
