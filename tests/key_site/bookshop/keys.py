from __future__ import annotations

from enum import Enum
from typing import Any

from django.utils.functional import SimpleLazyObject

IMPORTED = "from_imported_constant"


class Key(str, Enum):  # noqa: UP042  (as sites have it)
    OF_ENUM = "from_imported_enum"


class Plan:
    def __init__(self, lookup_key: str) -> None:
        self.lookup_key = lookup_key


GOLD = Plan("from_attribute_of_imported")


def query() -> Any:
    raise AssertionError("Who reads the code does not run it.")


LAZY: Any = SimpleLazyObject(query)
