from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import FieldError
from django.db import models


class Organisation(models.Model):
    """Stands for a site's own subscriber: not a user, and its key is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    members = models.ManyToManyField("auth.User", related_name="organisations")

    def __str__(self) -> str:
        return self.name

    @property
    def email(self) -> str:
        """dj-stripe wants one of whoever pays."""
        return f"{self.pk}@organisations.example"


class Staffer(User):
    """Inherits from the usual subscriber and counts for itself."""

    number = models.AutoField(primary_key=True)
    user_ptr = models.OneToOneField(User, models.CASCADE, parent_link=True)


class Member(User):
    """The usual subscriber under another name."""

    class Meta:
        proxy = True


class SealedField(models.CharField):
    """Stands for an encrypted field: the database compares none of its values, and one may not be read back."""

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise FieldError("A sealed field is compared with nothing.")
        return super().get_lookup(lookup_name)

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else value[::-1]

    def from_db_value(self, value: Any, *_: object) -> Any:
        return value if value is None else b"unreadable" if value.startswith("?") else value[::-1]


class Purse(models.Model):
    """Where a site keeps ids of Stripe customers beside whoever pays."""

    id = models.BigAutoField(primary_key=True)  # whatever the default of this Django is
    user = models.ForeignKey("auth.User", models.CASCADE, null=True, related_name="purses")
    organisation = models.ForeignKey(Organisation, models.CASCADE, null=True, related_name="purses")
    stripe_customer_id = models.CharField(max_length=300, blank=True, null=True)  # noqa: DJ001  (as sites have it)
    sealed_customer_id = SealedField(max_length=300, blank=True, null=True)
    pence = models.IntegerField(default=0)

    def __str__(self) -> str:
        return str(self.stripe_customer_id)
