"""Metadata in a form: rows of a key and a value, a few of them empty. A value may have several lines."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

EMPTY_ROWS = 3

Pair = tuple[str, str]


class MetadataRows(forms.Widget):
    """Its value is a list of pairs as they were typed, or a mapping to begin with."""

    template_name = "admin/entitlements_app/catalogue/metadata_rows.html"
    use_fieldset = True

    def format_value(self, value: Any) -> Any:
        return [*_pairs(value), *[("", "")] * EMPTY_ROWS]

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Pair]:
        keys, values = data.getlist(f"{name}_key"), data.getlist(f"{name}_value")
        return [pair for pair in zip(keys, values, strict=False) if any(map(str.strip, pair))]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}_key" not in data

    def id_for_label(self, id_: str | None) -> str:
        return f"{id_}_key_1" if id_ else ""


class MetadataField(forms.Field):
    """Its value is a mapping. A value may be empty: what that means is up to the form."""

    widget = MetadataRows

    def __init__(self, **options: Any) -> None:
        super().__init__(label=gettext_lazy("Metadata"), required=False, **options)

    def clean(self, value: Any) -> dict[str, str]:
        metadata: dict[str, str] = {}
        for typed, text in _pairs(value):
            key = typed.strip()
            if not key:
                raise forms.ValidationError(_("Name a key for the value “%(value)s”.") % {"value": text})
            if key in metadata:
                raise forms.ValidationError(_("The key “%(key)s” is there twice.") % {"key": key})
            if "\0" in key + text:
                raise forms.ValidationError(_("The character NUL cannot be sent."))
            metadata[key] = one_newline(text).strip()
        return metadata


def one_newline(text: str) -> str:
    """A browser sends another end of a line than it was given."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _pairs(value: Any) -> list[Pair]:
    return sorted(value.items()) if isinstance(value, dict) else list(value or ())
