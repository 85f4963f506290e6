"""Forms on the page of a customer. Each says whose the customer was when the page was shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import ID_LENGTH, Customer
from entitlements_app.subscribers import get_subscriber_model

from .decisions import DecisionForm
from .fields import SubscriberField

MOVED = gettext_lazy("The customer was linked or unlinked since this page was shown to you. Nothing was changed.")


class CustomerForm(forms.Form):
    """About a customer. What was meant for one subscriber is not done to another that it was linked to meanwhile."""

    shown_subscriber = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, customer: Customer, data: Any = None, *, auto_id: str = "id_%s") -> None:
        initial = {"shown_subscriber": _spelled(customer.subscriber_id)}
        super().__init__(data, initial=initial, auto_id=auto_id)
        self.customer = customer

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        now = _spelled(self.customer.subscriber_id)
        if cleaned.get("shown_subscriber", "") != now:
            self.data = {**dict(self.data.items()), "shown_subscriber": now}  # the page is shown anew
            raise forms.ValidationError(MOVED)
        return cleaned

    def focus_on_error(self) -> None:
        """The browser goes to the first field that is to be corrected."""
        wrong = next((bound.field.widget for bound in self if bound.errors and not bound.is_hidden), None)
        if wrong is not None:
            first = wrong.widgets[0] if isinstance(wrong, forms.MultiWidget) else wrong
            first.attrs["autofocus"] = True


def _spelled(subscriber_id: Any) -> str:
    return "" if subscriber_id is None else str(subscriber_id)


class LinkForm(CustomerForm):
    subscriber = SubscriberField()
    move = forms.BooleanField(required=False)

    def __init__(self, customer: Customer, data: Any = None, *, site: AdminSite, request: HttpRequest) -> None:
        super().__init__(customer, data)
        field: Any = self.fields["subscriber"]
        field.label = _("Link to which %(model)s?") % {"model": get_subscriber_model()._meta.verbose_name}
        field.open_for(site, request, Customer._meta.get_field("subscriber"))
        self.has_lookup: bool = field.has_lookup
        if customer.subscriber_id is None:
            del self.fields["move"]
        else:
            self.fields["move"].label = _("Take it from %(subscriber)s") % {"subscriber": customer.subscriber}


class UnlinkForm(CustomerForm):
    sure = forms.BooleanField(label=gettext_lazy("Yes, unlink it"))

    def __init__(self, customer: Customer, data: Any = None) -> None:
        super().__init__(customer, data, auto_id="unlink_%s")


class CustomerDecisionForm(CustomerForm, DecisionForm):
    """A key that is granted or denied to the customer's subscriber."""

    def __init__(self, customer: Customer, data: Any = None) -> None:
        super().__init__(customer, data, auto_id="override_%s")


class EndForm(CustomerForm):
    lookup_key = forms.CharField(max_length=ID_LENGTH, strip=False, widget=forms.HiddenInput)
