"""What a look through the site finds."""

from __future__ import annotations

from dataclasses import dataclass, field

# Names of `Entitlements` that are no keys.
PUBLIC = frozenset({"has_all", "has_any", "as_of", "metadata"})

# How places name the gates that are found in several ways.
DECORATOR = "@entitlement_required"
ON_CLASS = "entitlement_required ="
API_PERMISSION = "HasEntitlement.of"
DECIDES = "get_entitlement_required()"
OF_REQUEST = "request.entitlements"
PERMISSION = "permission"
PERMISSION_PREFIX = "entitlements."  # and the key


@dataclass(frozen=True, order=True)
class Place:
    """Where a gate stands. `file` is an absolute path, or a dotted name where there is none; line 0 is not known."""

    file: str
    line: int
    gate: str


@dataclass(frozen=True, order=True)
class Asked:
    """A gate asks for this key."""

    key: str
    place: Place


@dataclass(frozen=True, order=True)
class Undecided:
    """A gate asks for what only the running site knows. `lines`, from and to: the definition that it belongs to."""

    place: Place
    lines: tuple[int, int] = (0, 0)


@dataclass(frozen=True, order=True)
class Unread:
    """Something that might ask, and could not be read. Line 0 is not known."""

    file: str
    line: int
    error: str


@dataclass
class Found:
    """All that was found in one part of the site, and the files, or views, that were looked through."""

    asked: set[Asked] = field(default_factory=set)
    undecided: set[Undecided] = field(default_factory=set)
    unread: set[Unread] = field(default_factory=set)
    looked_through: set[str] = field(default_factory=set)

    def add(self, other: Found) -> None:
        """All of it, but for what the other has looked through."""
        self.asked |= other.asked
        self.undecided |= other.undecided
        self.unread |= other.unread
