"""What Stripe refuses of a change of the catalogue, as far as it is known: refused here, before a call.

From the reference of Stripe's API, and its guide "Manage features" (https://docs.stripe.com/billing/entitlements).
Lengths are in characters. Whoever breaks a rule gets `StripeRefused` with the name of Stripe's parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

from .exceptions import StripeRefused
from .lookup_keys import check_key
from .models import Feature

LONGEST_KEY = 80
LONGEST_NAME = 80
METADATA_MOST = 50
METADATA_LONGEST_KEY = 40
METADATA_LONGEST_VALUE = 500

ARCHIVING_IS_FINAL = "which is final: an archived feature cannot be edited, attached to another product or unarchived"


def check_lookup_key(key: object) -> str:
    """The key as a plain text. Raises `TypeError` for what is no text that is not empty."""
    text = check_key(key)
    _check_text(text, "lookup_key", "A lookup key", LONGEST_KEY)
    return text


def check_name(name: object) -> str:
    """Raises `TypeError` for what is no text."""
    if not isinstance(name, str):
        raise TypeError(f"name is a text, not {name!r}.")
    _check_text(name, "name", "The name of a feature", LONGEST_NAME)
    return name


def check_metadata(metadata: object, *, held: Mapping[str, str] | None = None) -> dict[str, str]:
    """`held`: what a feature has already, of which an empty value removes a key. Raises `TypeError` for no texts."""
    if not isinstance(metadata, Mapping) or not all(
        isinstance(text, str) for pair in metadata.items() for text in pair
    ):
        raise TypeError("metadata is a mapping of texts to texts; write a number as a text.")
    for key, value in metadata.items():
        if not value and held is None:
            raise StripeRefused(f"The value of the metadata key {key!r} is empty: leave the key out.", param="metadata")
        if "[" in key or "]" in key:
            raise StripeRefused(f"A key of metadata has no square brackets, as {key!r} has.", param="metadata")
        _check_text(key, "metadata", "A key of metadata", METADATA_LONGEST_KEY)
        if value:
            _check_text(value, "metadata", f"The value of the metadata key {key!r}", METADATA_LONGEST_VALUE)
    merged = {key: value for key, value in {**(held or {}), **metadata}.items() if value}
    if len(merged) > METADATA_MOST:
        raise StripeRefused(
            f"A feature has at most {METADATA_MOST} keys of metadata; these would be {len(merged)}.", param="metadata"
        )
    return dict(metadata)


def check_not_archived(feature: Feature, doing: str) -> None:
    """`doing`: what is wanted of it, as "be edited"."""
    if not feature.active:
        raise StripeRefused(
            f"The feature {feature} cannot {doing}. It is archived, {ARCHIVING_IS_FINAL}. Its lookup key may be used "
            "again, by a new feature."
        )


def _check_text(text: str, param: str, what: str, longest: int) -> None:
    if not text.strip():
        raise StripeRefused(f"{what} must not be empty.", param=param)
    if len(text) > longest:
        raise StripeRefused(f"{what} has at most {longest} characters; this has {len(text)}.", param=param)
    if "\x00" in text or not _is_unicode(text):
        raise StripeRefused(f"{what} holds a character that cannot be sent.", param=param)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
