"""What was edited in a form, against what it was opened with: what somebody else changes meanwhile is not undone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from entitlements_app.models import Feature

from .metadata import one_newline

OPENED = "opened_with"  # the name of the hidden input


@dataclass(frozen=True)
class State:
    """What of a feature can be edited."""

    name: str
    metadata: dict[str, str]

    def __str__(self) -> str:
        return json.dumps({"name": self.name, "metadata": self.metadata})


@dataclass(frozen=True)
class Edit:
    """As `catalog.update_feature` takes it: an empty value removes a key of metadata."""

    name: str | None
    metadata: dict[str, str]

    def __bool__(self) -> bool:
        return self.name is not None or bool(self.metadata)

    def is_done(self, state: State) -> bool:
        return self.name in (None, state.name) and all(
            state.metadata.get(key, "") == value for key, value in self.metadata.items()
        )


def get_state(feature: Feature) -> State:
    return State(feature.name, feature.metadata)


def parse_state(text: str) -> State | None:
    """`None` for what no form of ours has brought."""
    try:
        read = json.loads(text)
        state = State(read["name"], dict(read["metadata"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = [state.name, *state.metadata, *state.metadata.values()]
    return state if all(isinstance(each, str) for each in texts) else None


def get_edit(opened: State, *, name: str, metadata: dict[str, str]) -> Edit:
    """From what it was to what was typed. What only a form changes, as blanks around it, is no change."""
    kept = {key.strip(): key for key in opened.metadata}
    typed = {kept.get(key, key): value for key, value in metadata.items()}
    changed = {key: value for key, value in typed.items() if value != one_newline(opened.metadata.get(key, "")).strip()}
    removed = {key: "" for key in opened.metadata if key not in typed}
    return Edit(None if name == opened.name.strip() else name, changed | removed)


@dataclass(frozen=True)
class Conflicts:
    """What somebody else has changed as well, in words, by field; and what the form now counts as opened with."""

    words: dict[str, list[str]]
    opened: State


def get_conflicts(edit: Edit, opened: State, now: State) -> Conflicts:
    words: dict[str, list[str]] = {}
    if edit.name not in (None, now.name) and now.name != opened.name:
        words["name"] = [_("It was changed to “%(name)s” meanwhile. Save again to replace that.") % {"name": now.name}]
        opened = replace(opened, name=now.name)
    metadata = dict(opened.metadata)
    for key, value in edit.metadata.items():
        held, before = now.metadata.get(key, ""), opened.metadata.get(key, "")
        if held not in (before, value):
            text = _("“%(key)s” was changed to “%(value)s” meanwhile. Save again to replace that.")
            if not held:
                text = _("“%(key)s” was removed meanwhile. Save again to have it all the same.")
            words.setdefault("metadata", []).append(text % {"key": key, "value": held})
            metadata[key] = held
    return Conflicts(words, replace(opened, metadata={key: value for key, value in metadata.items() if value}))


def in_the_log(edit: Edit, before: State) -> str:
    """What it changes, for the history of the feature."""
    said = []
    if edit.name is not None:
        said.append(_("Name: “%(old)s” → “%(new)s”.") % {"old": before.name, "new": edit.name})
    for key, value in sorted(edit.metadata.items()):
        said.append(_metadata_in_the_log(key, before.metadata.get(key, ""), value))
    return " ".join(said)


def _metadata_in_the_log(key: str, old: str, new: str) -> str:
    names: dict[str, Any] = {"key": key, "old": old, "new": new}
    if not new:
        return _("Metadata “%(key)s” removed, was “%(old)s”.") % names
    if not old:
        return _("Metadata “%(key)s” added: “%(new)s”.") % names
    return _("Metadata “%(key)s”: “%(old)s” → “%(new)s”.") % names
