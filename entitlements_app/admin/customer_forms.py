"""Forms on the page of a customer. Each says whose the customer was when the page was shown."""

from __future__ import annotations

from datetime import MAXYEAR, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib.admin import AdminSite
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.db.models import Model
from django.forms.utils import from_current_timezone
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import ID_LENGTH, Customer, EntitlementOverride
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.who_is_meant import NobodyMeant, SeveralMeant, find_subscriber, get_name, get_ways

from .links import seen_admin

KNOWN_KEYS = "ent-known-keys"  # the id of the page's <datalist>


class CustomerForm(forms.Form):
    """About a customer. What was meant for one subscriber is not done to another that it was linked to meanwhile."""

    shown_subscriber = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, customer: Customer, data: Any = None, **options: Any) -> None:
        now = _spelled(customer.subscriber_id)
        initial = {"shown_subscriber": now, **options.pop("initial", {})}
        super().__init__(data, initial=initial, **options)
        self.customer = customer

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("shown_subscriber", "") != _spelled(self.customer.subscriber_id):
            raise forms.ValidationError(
                _("The customer was linked or unlinked since this page was shown to you. Nothing was changed.")
            )
        return cleaned

    def focus_on_error(self) -> None:
        """The browser goes to the first field that is to be corrected."""
        for bound in self:
            if bound.errors and not bound.is_hidden:
                bound.field.widget.attrs["autofocus"] = True
                return


def _spelled(subscriber_id: Any) -> str:
    return "" if subscriber_id is None else str(subscriber_id)


class LinkForm(CustomerForm):
    subscriber = forms.CharField(max_length=ID_LENGTH)
    move = forms.BooleanField(required=False)

    def __init__(self, customer: Customer, data: Any = None, *, site: AdminSite, request: HttpRequest) -> None:
        super().__init__(customer, data, auto_id="id_%s")  # as the script of the admin's look-up wants it
        model, field = get_subscriber_model(), self.fields["subscriber"]
        field.label = _("Link to which %(model)s?") % {"model": model._meta.verbose_name}
        field.help_text = _("One of: %(ways)s.") % {"ways": get_ways()}
        self.has_lookup = seen_admin(site, request, model) is not None
        if self.has_lookup:
            rel: Any = Customer._meta.get_field("subscriber").remote_field
            field.widget = ForeignKeyRawIdWidget(rel, site)
        if customer.subscriber_id is None:
            del self.fields["move"]
        else:
            self.fields["move"].label = _("Take it from %(subscriber)s") % {"subscriber": customer.subscriber}

    def clean_subscriber(self) -> Model:
        try:
            return find_subscriber(self.cleaned_data["subscriber"])
        except NobodyMeant as error:
            raise forms.ValidationError(str(error)) from error
        except SeveralMeant as error:
            named = ", ".join(f"{exact} – {get_name(row)}" for exact, row in error.candidates)
            raise forms.ValidationError(f"{error} {named}") from error


class UnlinkForm(CustomerForm):
    sure = forms.BooleanField(label=gettext_lazy("Yes, unlink it"))

    def __init__(self, customer: Customer, data: Any = None) -> None:
        super().__init__(customer, data, auto_id="unlink_%s")


class OverrideForm(CustomerForm):
    """A key that is granted or denied to the customer's subscriber. `until` is what date and time come to."""

    effect = forms.ChoiceField(
        label=gettext_lazy("Grant or deny"),
        choices=[
            (EntitlementOverride.Effect.GRANT, gettext_lazy("Grant")),
            (EntitlementOverride.Effect.DENY, gettext_lazy("Deny")),
        ],
    )
    lookup_key = forms.CharField(
        label=gettext_lazy("Lookup key"),
        max_length=ID_LENGTH,
        widget=forms.TextInput(attrs={"list": KNOWN_KEYS, "autocomplete": "off"}),
    )
    force = forms.BooleanField(
        label=gettext_lazy("The feature is still to come: take the key as it is"), required=False
    )
    until_date = forms.DateField(
        label=gettext_lazy("Until (date)"),
        required=False,
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
        help_text=gettext_lazy("Empty: for good."),
    )
    until_time = forms.TimeField(
        label=gettext_lazy("Time"),
        required=False,
        input_formats=["%H:%M", "%H:%M:%S"],
        widget=forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
        help_text=gettext_lazy("Empty: the end of that day."),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=1000, help_text=gettext_lazy("For those who ask why, later.")
    )

    def __init__(self, customer: Customer, data: Any = None) -> None:
        super().__init__(customer, data, auto_id="override_%s")
        self.until: datetime | None = None
        self.offers_force = bool(data and data.get("force"))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        day, at = cleaned.get("until_date"), cleaned.get("until_time")
        if day is None and at is not None and not self.errors.get("until_date"):
            self.add_error("until_date", _("Name the day as well."))
        elif day is not None and not self.errors.get("until_time"):
            try:
                self.until = _moment(day, at)
            except forms.ValidationError as error:
                self.add_error("until_date", error)
        return cleaned

    def refuse_unknown_key(self) -> None:
        """Say that no feature has the key, and let who is sure insist."""
        self.offers_force = True
        self.add_error(
            "lookup_key",
            _("No known feature has this key. Correct it, or say below that the feature is still to come."),
        )


def _moment(day: date, at: time | None) -> datetime:
    """In the current time zone; without a time the end of that day. Raises `ValidationError`."""
    if day.year >= MAXYEAR - 1:
        raise forms.ValidationError(_("For an override without an end, leave the date empty."))
    naive = datetime.combine(day + timedelta(days=1), time.min) if at is None else datetime.combine(day, at)
    until: datetime = from_current_timezone(naive)
    if until <= timezone.now():
        raise forms.ValidationError(_("This moment is over: the override would never count."))
    return until


class EndForm(CustomerForm):
    lookup_key = forms.CharField(max_length=ID_LENGTH, strip=False, widget=forms.HiddenInput)
