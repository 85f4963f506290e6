"""What a lookup key is. Pure."""

from __future__ import annotations


def check_keys(keys: tuple[object, ...]) -> tuple[str, ...]:
    """These lookup keys as plain texts, where members of an `Enum` of texts were given.

    Raises `TypeError` unless all are keys, and there is at least one: all of nothing would be true.
    """
    if not keys:
        raise TypeError("Name at least one lookup key.")
    return tuple(map(check_key, keys))


def check_key(key: object) -> str:
    """The same for one key."""
    if type(key) is str and key:  # as nearly always
        return key
    if not isinstance(key, str) or not key:
        quotes = " Are its quotes missing?" if key is None or key == "" else ""
        raise TypeError(f"A lookup key is a text that is not empty, not {key!r}.{quotes}")
    # Not `str(key)`, which for a member of `class Key(str, Enum)` is "Key.MEMBER".
    return str.__str__(key)
