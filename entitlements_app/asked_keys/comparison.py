"""What is asked for and what there is, compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from entitlements_app import conf
from entitlements_app.guesses import Guesses
from entitlements_app.models import EntitlementOverride, Feature

from .declarations import read_declarations
from .findings import Found, Place, Undecided, Unread
from .python_code import read_python_code
from .templates import read_templates

_ALIKE = 0.65  # of 1: two texts that are the same


@dataclass(frozen=True)
class AskedKey:
    """A key, and all places that ask for it. `similar`: a key that some feature has, and that may be meant."""

    key: str
    places: tuple[Place, ...]
    similar: str = ""


@dataclass(frozen=True)
class UnusedFeature:
    key: str
    name: str


@dataclass(frozen=True)
class Comparison:
    """`missing`: no feature and no override has the key. `archived`: only archived features have it."""

    livemode: bool
    is_empty: bool  # no feature is known here
    missing: tuple[AskedKey, ...]
    archived: tuple[AskedKey, ...]
    unused: tuple[UnusedFeature, ...]
    undecided: tuple[Undecided, ...]
    unread: tuple[Unread, ...]
    views: int
    templates: int
    python_files: int


def compare(*, ignore: Collection[str] = ()) -> Comparison:
    """Look through the site, and compare with the features of the configured mode. Stripe is not asked.

    Keys in `ignore` are left out on both sides. Raises `ImproperlyConfigured` if the URLconf cannot be imported.
    """
    declared = read_declarations()  # first: it imports what the code's constants are looked up in
    code, templates = read_python_code(), read_templates()
    found = _together(declared, code, templates)
    livemode = conf.livemode()
    features = Feature.objects.filter(account="", livemode=livemode).order_by("lookup_key", "active")
    rows = {key: (name, active) for key, name, active in features.values_list("lookup_key", "name", "active")}
    overrides = set(EntitlementOverride.objects.values_list("lookup_key", flat=True).distinct())
    similar = _Similar(rows)
    places = {key: places for key, places in _places(found).items() if key not in ignore}
    return Comparison(
        livemode=livemode,
        is_empty=not rows,
        missing=tuple(
            AskedKey(key, places[key], similar.get(key)) for key in places if key not in rows and key not in overrides
        ),
        archived=tuple(AskedKey(key, places[key]) for key in places if key in rows and not rows[key][1]),
        unused=tuple(
            UnusedFeature(key, name)
            for key, (name, active) in rows.items()
            if active and key not in places and key not in ignore
        ),
        undecided=tuple(sorted(found.undecided)),
        unread=tuple(sorted(found.unread)),
        views=len(declared.looked_through),
        templates=len(templates.looked_through),
        python_files=len(code.looked_through),
    )


def _together(declared: Found, code: Found, templates: Found) -> Found:
    """All that was found. What is both in the code and declared is told by its line in the code."""
    seen_in_code = {(asked.key, asked.place.gate) for asked in code.asked}
    found = Found()
    found.asked = {asked for asked in declared.asked if (asked.key, asked.place.gate) not in seen_in_code}
    found.undecided = {each for each in declared.undecided if each.place.file not in code.looked_through}
    found.add(_without_decided(code, declared))
    found.add(templates)
    return found


def _without_decided(code: Found, declared: Found) -> Found:
    """The loaded site knows some of what the text of its code does not tell."""
    lines: dict[tuple[str, str], set[int]] = {}
    for asked in declared.asked:
        lines.setdefault((asked.place.file, asked.place.gate), set()).add(asked.place.line)
    undecided = {
        each
        for each in code.undecided
        if not any(each.lines[0] <= line <= each.lines[1] for line in lines.get((each.place.file, each.place.gate), ()))
    }
    return Found(code.asked, undecided, code.unread)


def _places(found: Found) -> dict[str, tuple[Place, ...]]:
    places: dict[str, set[Place]] = {}
    for asked in sorted(found.asked):
        places.setdefault(asked.key, set()).add(asked.place)
    return {key: tuple(sorted(of_key)) for key, of_key in places.items()}


class _Similar:
    """Keys of features that differ from another one in case, hyphens or a few letters."""

    def __init__(self, features: Collection[str]) -> None:
        self._alike = {_plain(known): known for known in features}
        self._guesses = Guesses(self._alike, cutoff=_ALIKE)

    def get(self, key: str) -> str:
        """`""` if there is none."""
        return self._alike.get(self._guesses.most_similar(_plain(key)), "")


def _plain(key: str) -> str:
    return key.lower().replace("-", "_").replace(".", "_")
