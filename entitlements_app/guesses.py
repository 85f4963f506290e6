"""What may have been meant by a word that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST = 20_000  # comparisons, about a second
LONGEST = 200  # characters of a word that is compared at all


class Guesses:
    """Each word is compared with all known ones: where both are many, only the first words get a guess."""

    def __init__(self, known: Iterable[str], *, cutoff: float = 0.6) -> None:
        self._known, self._cutoff = list(known), cutoff
        self._left = MOST

    def most_similar(self, word: str) -> str:
        """The one that may have been meant; empty if none is similar, or nobody has the time to look."""
        self._left -= len(self._known)
        if self._left < 0 or len(word) > LONGEST:
            return ""
        return next(iter(get_close_matches(word, self._known, n=1, cutoff=self._cutoff)), "")
