"""The form that grants or denies a key to any subscriber."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import EntitlementOverride
from entitlements_app.subscribers import get_subscriber_model

from .decisions import DecisionForm
from .fields import DayAndTime, SubscriberField


class OverrideForm(DecisionForm):
    subscriber = SubscriberField()
    starts = DayAndTime(label=gettext_lazy("Starts"), ends=False)

    def __init__(self, data: Any = None, *, site: AdminSite, request: HttpRequest, initial: Any = None) -> None:
        super().__init__(data, initial=initial)
        subscriber: Any = self.fields["subscriber"]
        subscriber.label = str(get_subscriber_model()._meta.verbose_name).capitalize()
        subscriber.open_for(site, request, EntitlementOverride._meta.get_field("subscriber"))
        self.fields["starts"].help_text = _("Empty: now. Without a time: when the day begins. Time zone: %(zone)s.") % {
            "zone": timezone.get_current_timezone_name()
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        starts, until = cleaned.get("starts"), cleaned.get("until")
        if until is not None and starts is not None and until <= starts:
            self.add_error("until", _("It would end before it starts."))
        return cleaned

    def get_fieldsets(self) -> list[Any]:
        """As the admin renders them."""
        force = ["force"] if self.offers_force else []
        return [(None, {"fields": ["effect", "subscriber", "lookup_key", *force, "starts", "until", "reason"]})]
