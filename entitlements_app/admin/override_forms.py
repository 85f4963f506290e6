"""The form that grants or denies a key to a subscriber."""

from __future__ import annotations

from datetime import MAXYEAR, datetime, time, timedelta
from typing import Any, cast

from django import forms
from django.contrib.admin import AdminSite
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.db.models import Model
from django.forms.utils import from_current_timezone
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import ID_LENGTH, EntitlementOverride
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.who_is_meant import NobodyMeant, SeveralMeant, find_subscriber, get_name

from .links import seen_admin

KNOWN_KEYS = "ent-known-keys"  # the id of the page's <datalist>

Effect = EntitlementOverride.Effect


class DayAndTime(forms.SplitDateTimeField):
    """A moment in the current time zone. Without a time it is the day's begin or, if it `ends` something, its end.

    Not one field for both: a browser sends an empty text if half of it is filled in.
    """

    def __init__(self, *, ends: bool, **options: Any) -> None:
        widget = forms.SplitDateTimeWidget(
            date_format="%Y-%m-%d",
            time_format="%H:%M",
            date_attrs={"type": "date", "aria-label": cast(str, gettext_lazy("day"))},
            time_attrs={"type": "time", "aria-label": cast(str, gettext_lazy("time"))},
        )
        super().__init__(
            required=False,
            require_all_fields=False,
            widget=widget,
            input_date_formats=["%Y-%m-%d"],
            input_time_formats=["%H:%M", "%H:%M:%S"],
            **options,
        )
        for field in self.fields:
            field.required = False
        self.ends = ends

    def compress(self, data_list: Any) -> datetime | None:
        day, at = data_list or (None, None)
        if day is None:
            if at is not None:
                raise forms.ValidationError(_("Name the day as well."))
            return None
        if day.year >= MAXYEAR - 1:
            raise forms.ValidationError(_("That is too far away. For an override without an end, leave it empty."))
        if at is None:
            day, at = (day + timedelta(days=1) if self.ends else day), time.min
        moment: datetime = from_current_timezone(datetime.combine(day, at))
        return moment


class OverrideForm(forms.Form):
    """`offers_force`: nobody knows the key, and who is sure may insist."""

    effect = forms.ChoiceField(
        label=gettext_lazy("Grant or deny"),
        choices=[(Effect.GRANT, gettext_lazy("Grant")), (Effect.DENY, gettext_lazy("Deny"))],
        help_text=gettext_lazy("A denial wins over all grants, and over Stripe."),
    )
    subscriber = forms.CharField(label=gettext_lazy("Subscriber"), max_length=ID_LENGTH)
    lookup_key = forms.CharField(
        label=gettext_lazy("Lookup key"),
        max_length=ID_LENGTH,
        widget=forms.TextInput(attrs={"list": KNOWN_KEYS, "autocomplete": "off", "class": "vTextField"}),
    )
    force = forms.BooleanField(
        label=gettext_lazy("The feature is still to come: take the key as it is"), required=False
    )
    starts = DayAndTime(label=gettext_lazy("Starts"), ends=False)
    until = DayAndTime(label=gettext_lazy("Until"), ends=True)
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=1000,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text=gettext_lazy("For those who ask why, later."),
    )

    def __init__(self, data: Any = None, *, site: AdminSite, request: HttpRequest, initial: Any = None) -> None:
        super().__init__(data, initial=initial)
        self.offers_force = bool(data and data.get("force"))
        model, field = get_subscriber_model(), self.fields["subscriber"]
        field.help_text = _("A primary key, a name, an e-mail address or a Stripe customer (cus_…).")
        field.label = str(model._meta.verbose_name).capitalize()
        if seen_admin(site, request, model) is not None:
            rel: Any = EntitlementOverride._meta.get_field("subscriber").remote_field
            field.widget = ForeignKeyRawIdWidget(rel, site)
        zone = {"zone": timezone.get_current_timezone_name()}
        self.fields["starts"].help_text = (
            _("Empty: now. Without a time: when the day begins. Time zone: %(zone)s.") % zone
        )
        self.fields["until"].help_text = (
            _("Empty: for good. Without a time: when the day ends. Time zone: %(zone)s.") % zone
        )

    def clean_subscriber(self) -> Model:
        try:
            return find_subscriber(self.cleaned_data["subscriber"])
        except NobodyMeant as error:
            raise forms.ValidationError(str(error)) from error
        except SeveralMeant as error:
            named = ", ".join(f"{exact} – {get_name(row)}" for exact, row in error.candidates)
            raise forms.ValidationError(f"{error} {named}") from error

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        starts, until = cleaned.get("starts"), cleaned.get("until")
        if until is not None and until <= timezone.now():
            self.add_error("until", _("This moment is over: the override would never count."))
        elif until is not None and starts is not None and until <= starts:
            self.add_error("until", _("It would end before it starts."))
        return cleaned

    def refuse_unknown_key(self) -> None:
        """Say that no feature has the key, and let who is sure insist."""
        self.offers_force = True
        self.add_error(
            "lookup_key",
            _("No known feature has this key. Correct it, or say below that the feature is still to come."),
        )

    def get_fieldsets(self) -> list[Any]:
        """As the admin renders them."""
        force = ["force"] if self.offers_force else []
        return [(None, {"fields": ["effect", "subscriber", "lookup_key", *force, "starts", "until", "reason"]})]
