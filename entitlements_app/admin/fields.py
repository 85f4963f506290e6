"""Fields of the admin's own forms: a moment, and a subscriber by whatever names it."""

from __future__ import annotations

from datetime import MAXYEAR, datetime, time, timedelta
from typing import Any, cast

from django import forms
from django.contrib.admin import AdminSite
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.db.models import ForeignKey, Model
from django.forms.utils import from_current_timezone
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.models import ID_LENGTH
from entitlements_app.subscribers import get_subscriber_model
from entitlements_app.who_is_meant import NobodyMeant, SeveralMeant, find_subscriber, get_name, get_ways

from .links import seen_admin


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


class SubscriberField(forms.CharField):
    """Whoever a text means. In it stands what was typed, and its value is the subscriber."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=ID_LENGTH, **options)
        self.has_lookup = False

    def open_for(self, site: AdminSite, request: HttpRequest, rel: ForeignKey[Any, Any]) -> None:
        """Say how a subscriber can be named, and offer the admin's look-up to who may see subscribers."""
        self.help_text = _("One of: %(ways)s.") % {"ways": get_ways()}
        self.has_lookup = seen_admin(site, request, get_subscriber_model()) is not None
        if self.has_lookup:
            self.widget = ForeignKeyRawIdWidget(rel.remote_field, site)

    def clean(self, value: Any) -> Model | None:
        text = super().clean(value)
        try:
            return find_subscriber(text) if text else None
        except NobodyMeant as error:
            raise forms.ValidationError(str(error)) from error
        except SeveralMeant as error:
            named = ", ".join(f"{exact} – {get_name(row)}" for exact, row in error.candidates)
            raise forms.ValidationError(f"{error} {named}") from error
