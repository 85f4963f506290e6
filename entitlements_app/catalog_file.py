"""The catalogue as a TOML file: features by lookup key, and products, each with the keys of its features.

A file is read whole or not at all. What is wrong in it is told all at once, each mistake with its place and what to
write. What Stripe would refuse of it (`catalog_rules`) is a mistake, too. Nothing here asks anybody.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import catalog_rules
from .exceptions import EntitlementsError, StripeRefused
from .guesses import Guesses

WIDTH = 100  # a list or a table that is longer is broken into lines
MODES = ("live", "test")
LARGEST = 1024 * 1024  # bytes
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class FileFeature:
    """A feature as it should be. `metadata` is all that it has."""

    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FileProduct:
    """The lookup keys of the features that a product should have. `name` is for readers only."""

    features: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class CatalogFile:
    """Features by lookup key; products by their Stripe ID or name, which the file does not tell apart.

    `complete`: there should be no features beside these. Products that are not named are nobody's business. `mode`:
    the one that the file is for, `live` or `test`; empty for both.
    """

    features: Mapping[str, FileFeature] = field(default_factory=dict)
    products: Mapping[str, FileProduct] = field(default_factory=dict)
    complete: bool = True
    mode: str = ""


class Mistakes(EntitlementsError):
    """The file cannot be used. `mistakes` are lines, each with its place and with what to write."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


def parse(content: bytes) -> CatalogFile:
    """Read a file. Raises `Mistakes`."""
    data = _load(content)
    mistakes = list(_mistakes(data))
    if mistakes:
        raise Mistakes(mistakes)
    features = {
        key: FileFeature(table["name"], table.get("metadata", {})) for key, table in data.get("features", {}).items()
    }
    products = {
        key: FileProduct(tuple(table["features"]), table.get("name", ""))
        for key, table in data.get("products", {}).items()
    }
    return CatalogFile(features, products, data.get("complete", True), data.get("mode", ""))


def serialise(
    file: CatalogFile, *, head: Iterable[str] = (), remarks: Mapping[str, Iterable[str]] | None = None
) -> str:
    """The file as TOML, sorted, of which `parse` makes the same again.

    `head` and `remarks`, which stand with a product, are comments of one line each.
    """
    blocks = [[f"# {line}" for line in head]] if head else []
    top = [f"mode = {quoted(file.mode)}"] if file.mode else []
    top += [] if file.complete else ["complete = false"]
    if top:
        blocks.append(top)
    if not file.features:
        blocks.append(["[features]"])
    blocks += [_feature_lines(key, file.features[key]) for key in sorted(file.features)]
    for key in sorted(file.products):
        comments = [f"# {line}" for line in (remarks or {}).get(key, ())]
        blocks.append(_product_lines(key, file.products[key]) + comments)
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def quoted(text: str) -> str:
    """A text as TOML writes it."""
    # JSON escapes all that TOML wants escaped but this.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def path(*names: str) -> str:
    """The place of a key, as TOML writes it."""
    return ".".join(name if _BARE.fullmatch(name) else quoted(name) for name in names)


def _did_you_mean(word: str, guesses: Guesses) -> str:
    """A sentence that names the most similar of the known ones; empty if none is."""
    found = guesses.most_similar(word)
    return f" Did you mean {quoted(found)}?" if found else ""


def _feature_lines(key: str, feature: FileFeature) -> list[str]:
    lines = [f"[{path('features', key)}]", f"name = {quoted(feature.name)}"]
    pairs = [f"{path(name)} = {quoted(feature.metadata[name])}" for name in sorted(feature.metadata)]
    line = f"metadata = {{ {', '.join(pairs)} }}"
    if len(line) > WIDTH:
        return [*lines, "", f"[{path('features', key, 'metadata')}]", *pairs]
    return [*lines, line] if pairs else lines


def _product_lines(key: str, product: FileProduct) -> list[str]:
    lines = [f"[{path('products', key)}]"]
    if product.name:
        lines.append(f"name = {quoted(product.name)}")
    keys = [quoted(feature) for feature in product.features]
    line = f"features = [{', '.join(keys)}]"
    if len(line) > WIDTH:
        return [*lines, "features = [", *(f"    {key}," for key in keys), "]"]
    return [*lines, line]


def _load(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST:
        raise Mistakes(["it has more than 1 MiB, which no catalogue needs. Is it the right file?"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Mistakes([f"line {line}: this is not UTF-8. Save the file as UTF-8."]) from None
    try:
        return tomllib.loads(f"{text}\n")  # without a last line's end it would not tell that line
    except RecursionError:
        raise Mistakes(["this is no TOML that can be read: it is nested too deeply."]) from None
    except ValueError as error:  # `TOMLDecodeError` is one; numbers of thousands of digits are another
        raise Mistakes([f"this is no TOML: {error}"]) from None


def _mistakes(data: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(data, ("complete", "mode", "features", "products"), "")
    complete = data.get("complete", True)
    if not isinstance(complete, bool):
        yield f"complete: true or false is expected, not {_shown(complete)}. Write complete = false."
    if "mode" in data and data["mode"] not in MODES:
        yield f'mode: "live" or "test" is expected, not {_shown(data["mode"])}. Leave it out in a file for both.'
    features, products = data.get("features", {}), data.get("products", {})
    if complete is True and "features" not in data:
        yield (
            "[features] is missing. Begin with complete = false if the file leaves features alone; if there are to be "
            "none, write [features]."
        )
    yield from _each(features, "features", _feature_mistakes)
    keys = features if complete is True and isinstance(features, dict) else None

    guesses = Guesses(keys or ())

    def of_product(place: str, key: str, table: dict[str, Any]) -> Iterator[str]:
        return _product_mistakes(place, key, table, keys, guesses)

    yield from _each(products, "products", of_product)


def _each(tables: Any, of: str, mistakes: Callable[[str, str, dict[str, Any]], Iterator[str]]) -> Iterator[str]:
    example = "premium_support" if of == "features" else "prod_NxYz"
    if not isinstance(tables, dict):
        yield f"{of}: a table is expected, not {_shown(tables)}. Write [{of}.{example}]."
        return
    for key, table in tables.items():
        place = f"[{path(of, key)}]"
        if isinstance(table, dict):
            yield from mistakes(place, key, table)
        else:
            yield f"{path(of, key)}: a table is expected, not {_shown(table)}. Write {place}, and below it what it has."


def _feature_mistakes(place: str, key: str, table: dict[str, Any]) -> Iterator[str]:
    if not key:
        yield f"{place} needs a lookup key in the place of this empty text."
    else:
        yield from _refused(f"{place} ", catalog_rules.check_lookup_key, key)
    if split := list(_split("features", key, table, ("name", "metadata"))):
        yield from split
        return
    yield from _unknown(table, ("name", "metadata"), f"{place} ")
    if "name" not in table:
        yield f'{place} name is missing. Write name = "…".'
    elif not isinstance(table["name"], str):
        yield _no_text(f"{place} name", "name", table["name"])
    else:
        yield from _refused(f"{place} name: ", catalog_rules.check_name, table["name"])
    yield from _metadata_mistakes(f"{place} metadata", table.get("metadata", {}))


def _metadata_mistakes(place: str, metadata: Any) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield f'{place}: a table is expected, not {_shown(metadata)}. Write metadata = {{ key = "value" }}.'
        return
    for key, value in metadata.items():
        if isinstance(value, str):
            yield from _refused(f"{place}: ", catalog_rules.check_metadata, {key: value})
        else:
            yield _no_text(f"{place}.{path(key)}", path(key), value)
    most = catalog_rules.METADATA_MOST
    if len(metadata) > most:
        yield f"{place}: a feature has at most {most} keys of metadata; these are {len(metadata)}."


def _product_mistakes(
    place: str, key: str, table: dict[str, Any], keys: Mapping[str, Any] | None, guesses: Guesses
) -> Iterator[str]:
    """`keys`: those that there are; `None` if there may be others."""
    if not key.strip():
        yield f"{place} needs the Stripe ID of a product, or its name, in the place of this empty text."
    if split := list(_split("products", key, table, ("name", "features"))):
        yield from split
        return
    yield from _unknown(table, ("name", "features"), f"{place} ")
    if not isinstance(table.get("name", ""), str):
        yield _no_text(f"{place} name", "name", table["name"])
    if "features" not in table:
        yield f"{place} features is missing. Write features = [] if the product has none."
        return
    listed = table["features"]
    if not isinstance(listed, list):
        yield f'{place} features: a list is expected, not {_shown(listed)}. Write features = ["lookup_key"].'
        return
    yield from _listed_mistakes(f"{place} features", listed, keys, guesses)


def _listed_mistakes(place: str, listed: list[Any], keys: Mapping[str, Any] | None, guesses: Guesses) -> Iterator[str]:
    times = Counter(feature for feature in listed if isinstance(feature, str))
    for feature in listed:
        if not isinstance(feature, str) or not feature:
            yield f"{place}: a lookup key in quotes is expected, not {_shown(feature)}."
        elif times[feature] > 1:
            yield f"{place}: {quoted(feature)} stands there twice. Once is enough."
            times[feature] = 0
        elif times[feature] and keys is not None and feature not in keys:
            advice = _did_you_mean(feature, guesses) or f" Write [{path('features', feature)}], or take it out."
            yield f"{place}: no feature of this file has the lookup key {quoted(feature)}.{advice}"


def _split(of: str, key: str, table: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[str]:
    """A key with a dot and without quotes: to TOML this is a table in a table."""
    if not table or any(name in known or not isinstance(value, dict) for name, value in table.items()):
        return
    for name in table:
        whole = path(of, f"{key}.{name}")
        yield f"[{path(of, key, name)}] is a table in a table. If the dot belongs to the key, write [{whole}]."


def _unknown(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> Iterator[str]:
    for key in table:
        if key not in known:
            similar = _did_you_mean(key, Guesses(known)) or f" There may be {', '.join(known[:-1])} and {known[-1]}."
            yield f"{place}{path(key)} is not known here.{similar}"


def _refused(place: str, check: Callable[[Any], object], value: object) -> Iterator[str]:
    try:
        check(value)
    except (StripeRefused, TypeError) as error:
        yield f"{place}{error}"


def _no_text(place: str, key: str, value: object) -> str:
    # A number or a date, as it was meant.
    meant = _written(value)
    is_text = not isinstance(value, dict | list) and len(meant) <= WIDTH
    advice = f" Write {key} = {quoted(meant)}." if is_text else ""
    return f"{place}: a text is expected, not {_shown(value)}.{advice}"


def _shown(value: object) -> str:
    """What was found, in TOML's words, cut to what a line has room for."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = quoted(value) if isinstance(value, str) else _written(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # Python writes no number of thousands of digits, but for this way.
    return hex(value) if isinstance(value, int) and value.bit_length() > 256 else str(value)
