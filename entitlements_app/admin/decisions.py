"""Granting and denying a key by hand: what every form for it asks, the call, and what is said of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app import overrides
from entitlements_app.exceptions import UnknownFeature
from entitlements_app.explain import explain
from entitlements_app.models import ID_LENGTH, EntitlementOverride

from .fields import DayAndTime

KNOWN_KEYS = "ent-known-keys"  # the id of the page's <datalist>

Effect = EntitlementOverride.Effect


class DecisionForm(forms.Form):
    """`offers_force`: nobody knows the key, and who is sure may insist."""

    effect = forms.ChoiceField(
        label=gettext_lazy("Grant or deny"),
        choices=[(Effect.GRANT, gettext_lazy("Grant")), (Effect.DENY, gettext_lazy("Deny"))],
        help_text=gettext_lazy("A denial wins over all grants, and over Stripe."),
    )
    lookup_key = forms.CharField(
        label=gettext_lazy("Lookup key"),
        max_length=ID_LENGTH,
        widget=forms.TextInput(attrs={"list": KNOWN_KEYS, "autocomplete": "off", "class": "vTextField"}),
    )
    force = forms.BooleanField(
        label=gettext_lazy("The feature is still to come: take the key as it is"), required=False
    )
    until = DayAndTime(label=gettext_lazy("Until"), ends=True)
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=1000,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text=gettext_lazy("For those who ask why, later."),
    )

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.offers_force = bool(data and data.get("force"))
        self.fields["until"].help_text = _(
            "Empty: for good. Without a time: when the day ends. Time zone: %(zone)s."
        ) % {"zone": timezone.get_current_timezone_name()}

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        until = cleaned.get("until")
        if until is not None and until <= timezone.now():
            self.add_error("until", _("This moment is over: the override would never count."))
        return cleaned

    def decide(
        self, request: HttpRequest, subscriber: Model, *, starts: datetime | None = None
    ) -> EntitlementOverride | None:
        """Do what a valid form says. `None` if it was refused, and the form says why."""
        asked = self.cleaned_data
        decide = overrides.grant if asked["effect"] == Effect.GRANT else overrides.deny
        try:
            return decide(
                subscriber,
                asked["lookup_key"],
                starts=starts,
                until=asked["until"],
                reason=asked["reason"],
                by=cast(AbstractBaseUser, request.user),
                force=asked["force"],
            )
        except UnknownFeature:
            self.offers_force = True
            self.add_error(
                "lookup_key",
                _("No known feature has this key. Correct it, or say below that the feature is still to come."),
            )
        except ValueError as error:  # the end was reached while the form was on its way
            self.add_error(None, str(error))
        return None


def what_was_decided(made: EntitlementOverride) -> str:
    """With the answer as it now is: a grant does not help against a denial."""
    text = _("“%(key)s” is granted to %(subscriber)s. Is it entitled now? %(reason)s")
    if made.effect == Effect.DENY:
        text = _("“%(key)s” is denied to %(subscriber)s. Is it entitled now? %(reason)s")
    return text % answer_about(made)


def in_the_log(override: EntitlementOverride) -> str:
    """How the admin's log names it."""
    names = {"effect": override.get_effect_display(), "key": override.lookup_key, "reason": override.reason}
    return (_("%(effect)s “%(key)s”: %(reason)s") if override.reason else _("%(effect)s “%(key)s”")) % names


def answer_about(override: EntitlementOverride) -> dict[str, Any]:
    """Whose key it is about, and yes or no with the reason, as words for a message."""
    reason = explain(override.subscriber, override.lookup_key).reason
    return {"subscriber": override.subscriber, "key": override.lookup_key, "reason": reason}
