"""The forms for a new feature, and for one that is edited. They are about a row that `catalog` writes, not they."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from entitlements_app.catalog_rules import LONGEST_KEY, LONGEST_NAME
from entitlements_app.database_checks import RESERVED_KEYS
from entitlements_app.models import Feature

from .attempts import Trouble
from .edits import Edit, State, get_edit
from .metadata import MetadataField

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Feature]
else:
    _ModelForm = forms.ModelForm  # generic for the type checker only

_WIDE = {"class": "vTextField", "autocomplete": "off"}


class FeatureForm(_ModelForm):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=LONGEST_NAME,
        widget=forms.TextInput(attrs=_WIDE),
        help_text=gettext_lazy("For you and your colleagues: Stripe does not show it to customers."),
    )
    metadata = MetadataField(
        help_text=gettext_lazy(
            "What code should know of the feature, such as limits: a key and its value in each row. It counts as soon "
            "as it is saved, also for who is entitled already. To remove a row, empty it. When the rows are used up, "
            "save: then there are more."
        )
    )

    class Meta:
        model = Feature
        fields: tuple[str, ...] = ()

    def _post_clean(self) -> None:
        """The row stays as it is until Stripe has agreed."""

    def takes(self, trouble: Trouble) -> bool:
        """Say it at the field that it is about, if it is one: Stripe's parameters are named like the fields."""
        field = re.split(r"[\[.]", trouble.param)[0]
        if field in self.fields:
            self.add_error(field, trouble.text)
        return field in self.fields


class AddForm(FeatureForm):
    """`force`: the key will do, though it cannot be asked for everywhere."""

    lookup_key = forms.CharField(
        label=gettext_lazy("Lookup key"),
        max_length=LONGEST_KEY,
        widget=forms.TextInput(attrs=_WIDE | {"spellcheck": "false", "autocapitalize": "none"}),
        help_text=gettext_lazy(
            "For good: it can never be changed. By it code and templates ask for the feature, as in "
            "{% if request.entitlements.premium_support %}. Best are lower-case letters, digits and underscores."
        ),
    )
    force = forms.BooleanField(label=gettext_lazy("Take this key all the same"), required=False)

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.offers_force = bool(data and data.get("force"))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        awkward = get_awkwardness(cleaned.get("lookup_key", ""))
        if awkward and not cleaned.get("force"):
            self.offers_force = True
            self.add_error("lookup_key", awkward)
        empty = [key for key, value in cleaned.get("metadata", {}).items() if not value]
        if empty:
            self.add_error("metadata", _("The key “%(key)s” has no value.") % {"key": empty[0]})
        return cleaned

    def get_fields(self) -> list[Any]:
        force = ["force"] if self.offers_force else []
        return ["name", "lookup_key", *force, "metadata"]


class EditForm(FeatureForm):
    """`opened`: how the feature was when the form was first shown."""

    def __init__(self, feature: Feature, opened: State, data: Any = None) -> None:
        super().__init__(data, instance=feature, initial={"name": opened.name, "metadata": opened.metadata})
        self.opened = opened

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        for key, value in cleaned.get("metadata", {}).items():
            if not value and key not in self.opened.metadata:
                self.add_error("metadata", _("The key “%(key)s” has no value.") % {"key": key})
        return cleaned

    def get_edit(self) -> Edit:
        """Of a valid form."""
        return get_edit(self.opened, name=self.cleaned_data["name"], metadata=self.cleaned_data["metadata"])


def get_awkwardness(key: str) -> str:
    """Why code will have trouble with a lookup key that Stripe takes. Empty if it will not."""
    if key in RESERVED_KEYS:
        text = _(
            "request.entitlements.%(key)s means something else. Code would have to ask for this feature by "
            'request.entitlements["%(key)s"] or has_entitlement.'
        )
        return text % {"key": key}
    if key and (not re.fullmatch(r"\w+", key) or key.startswith("_")):
        text = _(
            "Templates cannot write it after a dot, as in request.entitlements.%(better)s. They would have to ask by "
            '{%% entitled "%(key)s" %%}.'
        )
        return text % {"key": key, "better": re.sub(r"\W+", "_", key).strip("_") or "premium_support"}
    return ""
