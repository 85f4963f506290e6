"""All the words for a plan: a line for each difference, beginning with its sign, and the same as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from entitlements_app.catalog_file import path, quoted
from entitlements_app.catalog_plan import (
    Archive,
    Attach,
    ChangeFeature,
    Conflict,
    CreateFeature,
    Detach,
    Obstacle,
    Plan,
    Step,
)
from entitlements_app.stripe_objects import CatalogProduct

FOOTER = (
    "Nobody gains or loses access at once: a new subscription grants what its product then has; existing ones follow "
    "at their next billing period, or later."
)
ARCHIVING = "An archived feature keeps granting where it is attached, and cannot be unarchived."
ATTACHED = (
    "A file never detaches an archived feature, as it could not be attached again: "
    "entitlements_app.catalog.detach_feature does."
)

Customers = Mapping[str, int]


def get_keys(plan: Plan) -> set[str]:
    """The lookup keys whose customers the lines tell."""
    return {item.lookup_key for item in (*plan.steps, *plan.conflicts) if item.lookup_key}


def as_lines(plan: Plan, customers: Customers, mode: str) -> Iterator[str]:
    """The differences; then, where there are any, an empty line, how many, and when they take effect."""
    for step in plan.steps:
        yield from step_lines(step, customers)
    for obstacle, conflicts in groupby(sorted(plan.conflicts, key=_order), key=lambda conflict: conflict.obstacle):
        for conflict in conflicts:
            yield f"! {_problem(conflict, mode)}{_held(conflict.lookup_key, customers)}"
        yield f"    {REMEDIES[obstacle]}"
    yield from (f"  {line}" for line in _notes(plan))
    if plan.steps or plan.conflicts or plan.archived or plan.left_alone:
        yield ""
    yield summary(plan)
    if plan.steps:
        yield FOOTER
    if any(isinstance(step, Archive) for step in plan.steps) or plan.archived:
        yield ARCHIVING
    if plan.archived:
        yield ATTACHED


def step_lines(step: Step, customers: Customers | None = None) -> list[str]:
    """A change of a feature has a line for each thing that changes."""
    held = "" if customers is None else _held(step.lookup_key, customers)
    key = plain(step.lookup_key)
    match step:
        case CreateFeature():
            metadata = f", {_pairs(step.metadata)}" if step.metadata else ""
            said = [f"+ feature {key} {shown(step.name)}{metadata}"]
        case ChangeFeature():
            said = [f"~ feature {key} {change}" for change in _changes(step)]
        case Attach():
            said = [f"+ product {labelled(step.product)}: {key}"]
        case Detach():
            said = [f"- product {labelled(step.product)}: {key}"]
        case Archive():
            said = [f"- feature {key} {shown(step.feature.details.name)}: archive"]
    return [f"{line}{held}" for line in said]


def summary(plan: Plan) -> str:
    """How much there is to do, and how much will remain."""
    if plan.is_same:
        return "Nothing differs."
    numbers = {word: sum(isinstance(step, kind) for step in plan.steps) for word, kind in _WORDS.items()}
    to_do = ", ".join(f"{word} {number}" for word, number in numbers.items() if number)
    said = f"To do: {to_do}." if to_do else "There is nothing to do."
    if plan.conflicts:
        said += f" {remaining(plan)}"
    return said


def remaining(plan: Plan) -> str:
    """How much differs when all is done."""
    return f"Remains different, marked with !: {len(plan.conflicts)}."


_WORDS: dict[str, type] = {
    "create": CreateFeature,
    "change": ChangeFeature,
    "attach": Attach,
    "detach": Detach,
    "archive": Archive,
}


def as_data(plan: Plan, customers: Customers, mode: str) -> dict[str, Any]:
    """For scripts. A feature that is created by the plan has no ID yet."""
    return {
        "same": plan.is_same,
        "steps": [_step_data(step) | {"customers": customers.get(step.lookup_key, 0)} for step in plan.steps],
        "conflicts": [
            {
                "conflict": conflict.obstacle.value,
                "lookup_key": conflict.lookup_key or None,
                "product": conflict.product or None,
                "ids": list(conflict.ids),
                "problem": _problem(conflict, mode),
                "remedy": REMEDIES[conflict.obstacle],
                "customers": customers.get(conflict.lookup_key, 0) if conflict.lookup_key else None,
            }
            for conflict in sorted(plan.conflicts, key=_order)
        ],
        "archived_and_attached": [
            {"product": product.id, "feature": feature.id, "lookup_key": feature.lookup_key}
            for product, feature in plan.archived
        ],
        "left_alone": plan.left_alone,
    }


def _step_data(step: Step) -> dict[str, Any]:
    match step:
        case CreateFeature():
            new = {"name": step.name, "metadata": dict(step.metadata)}
            return {"step": "create", "lookup_key": step.lookup_key, "feature": None, "new": new}
        case ChangeFeature():
            old = {"name": step.feature.details.name, "metadata": step.feature.details.metadata}
            new = {"name": step.name, "metadata": dict(step.metadata)}
            return {
                "step": "change",
                "lookup_key": step.lookup_key,
                "feature": step.feature.id,
                "old": old,
                "new": new,
            }
        case Attach():
            feature = step.feature_id or None
            return {"step": "attach", "lookup_key": step.lookup_key, "feature": feature} | _product_data(step.product)
        case Detach():
            data = {"step": "detach", "lookup_key": step.lookup_key, "feature": step.feature.id}
            return data | _product_data(step.product)
        case Archive():
            return {"step": "archive", "lookup_key": step.lookup_key, "feature": step.feature.id}


def _product_data(product: CatalogProduct) -> dict[str, Any]:
    return {"product": product.id, "product_name": product.name}


REMEDIES = {
    Obstacle.ARCHIVED_FEATURE: (
        "Archiving is final. --recreate makes a new feature for each such key that has a [features.…] of its own in "
        "the file, and attaches it. Or choose another key, or take it out of the file."
    ),
    Obstacle.FEATURE_NOT_IN_FILE: (
        "Write such features into the file, or archive them, which is final, with --archive. With complete = false in "
        "its first line the file leaves them alone."
    ),
    Obstacle.NO_FEATURE: "Correct the key, or write a [features.…] for it.",
    Obstacle.NO_PRODUCT: (
        "Correct it, or create the product in Stripe first, or make it active again. An ID is of one mode: in a "
        "file for both, a product stands under its name."
    ),
    Obstacle.AMBIGUOUS_PRODUCT: "Write the ID of the one that is meant, or give them different names in Stripe.",
    Obstacle.ID_AND_NAME: (
        "Write the ID of the one that is meant. For the one that has this ID, write its name into the table as well: "
        'name = "…". Or give them different names in Stripe.'
    ),
    Obstacle.ARCHIVED_PRODUCT: "Make it active again in Stripe's Dashboard, or take it out of the file.",
    Obstacle.PRODUCT_TWICE: "Keep one of the two.",
}


def _problem(conflict: Conflict, mode: str) -> str:
    return _what(conflict, mode) + (f": did you mean {plain(conflict.similar)}?" if conflict.similar else "")


def _what(conflict: Conflict, mode: str) -> str:
    key, named, ids = plain(conflict.lookup_key), plain(conflict.product), ", ".join(conflict.ids)
    match conflict.obstacle:
        case Obstacle.ARCHIVED_FEATURE:
            whose = f"product {named}: {key}" if conflict.product else f"feature {key}"
            return f"{whose}: only an archived feature has this key ({ids}); it can be neither edited nor attached"
        case Obstacle.FEATURE_NOT_IN_FILE:
            return f"feature {key} {shown(conflict.name)} is in Stripe ({ids}) and not in the file"
        case Obstacle.NO_FEATURE:
            return f"product {named}: no feature has the key {key}, neither in the file nor in Stripe"
        case Obstacle.NO_PRODUCT:
            return f"product {named}: no product has this ID in {mode} mode, and no active one this name"
        case Obstacle.AMBIGUOUS_PRODUCT:
            return f"product {named}: {len(conflict.ids)} active products have this name: {ids}"
        case Obstacle.ID_AND_NAME:
            others = ", ".join(conflict.ids[1:])
            return f"product {named}: this is the ID of the product {shown(conflict.name)}, and the name of {others}"
        case Obstacle.ARCHIVED_PRODUCT:
            return f"product {named} is archived, so that nobody can subscribe to it"
        case Obstacle.PRODUCT_TWICE:
            return f"product {named}: the file names it twice, by this name and by its ID {ids}"


def _notes(plan: Plan) -> Iterator[str]:
    for product, feature in plan.archived:
        key = plain(feature.lookup_key)
        yield f"product {labelled(product)}: the archived feature {key} ({feature.id}) is still attached"
    if plan.left_alone:
        yield (
            f"{plan.left_alone} further attached feature(s) left alone: the file is not complete, and has no "
            "[features.…] for them"
        )


def _order(conflict: Conflict) -> tuple[int, str, str]:
    return list(Obstacle).index(conflict.obstacle), conflict.lookup_key, conflict.product


def _changes(step: ChangeFeature) -> Iterator[str]:
    details = step.feature.details
    if details.name != step.name:
        yield f"name: {shown(details.name)} → {shown(step.name)}"
    for key in sorted({*details.metadata, *step.metadata}):
        old, new = details.metadata.get(key), step.metadata.get(key)
        if old != new:
            yield f"{printable(path('metadata', key))}: {_value(old)} → {_value(new)}"


def _value(text: str | None) -> str:
    return "nothing" if text is None else shown(text)


def _pairs(metadata: Mapping[str, str]) -> str:
    pairs = [f"{printable(path(key))} = {shown(metadata[key])}" for key in sorted(metadata)]
    return f"metadata {{ {', '.join(pairs)} }}"


def _held(lookup_key: str, customers: Customers) -> str:
    if not lookup_key:
        return ""
    number = customers.get(lookup_key, 0)
    return {0: "  (no customer holds it)", 1: "  (1 customer holds it)"}.get(
        number, f"  ({number:,} customers hold it)"
    )


def labelled(product: CatalogProduct) -> str:
    """Its name and its ID."""
    return f"{plain(product.name)} ({product.id})" if product.name else product.id


def shown(text: str) -> str:
    """A text in quotes that a terminal shows as it is: nothing in it moves the cursor or turns the line around."""
    return printable(quoted(text))


def plain(text: str) -> str:
    """The same without quotes where it needs none."""
    return text if text and text.isprintable() and text == text.strip() and '"' not in text else shown(text)


def printable(text: str) -> str:
    """Without the characters that are no picture."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
