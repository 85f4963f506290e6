"""Which keys a Django template asks for: told from its tokens, so that nothing needs to be loaded to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.template.base import Lexer, Token, TokenType

from .findings import OF_REQUEST, PERMISSION_PREFIX, PUBLIC, Asked, Found, Place, Undecided

_WORD = re.compile(r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [\w.]+ | \S """, re.VERBOSE)


def read_django_template(file: str, source: str) -> Found:
    """What one template asks for. Comments and verbatim blocks do not count."""
    reader = _Reader(file)
    for token in _live_tokens(source):
        reader.read(token)
    return reader.found


def _live_tokens(source: str) -> Iterator[Token]:
    in_comment = False
    for token in Lexer(source).tokenize():
        if token.token_type is TokenType.BLOCK:
            tag = token.contents.split(maxsplit=1)[0]
            in_comment = tag == "comment" or (in_comment and tag != "endcomment")
        if token.token_type in (TokenType.BLOCK, TokenType.VAR) and not in_comment:
            yield token


class _Reader:
    """Goes through the tokens of one template, and knows the other names that `with` gives to the entitlements."""

    def __init__(self, file: str) -> None:
        self.found = Found()
        self._file = file
        self._aliases: set[str] = set()

    def read(self, token: Token) -> None:
        if not self._aliases and "entitle" not in token.contents:  # as most
            return
        words, line = _WORD.findall(token.contents), token.lineno or 0
        if token.token_type is TokenType.BLOCK and words[:1] == ["entitled"]:
            self._read_block(token, line)
            return
        for position, word in enumerate(words):
            self._read_word(words, position, word, line)

    def _read_block(self, token: Token, line: int) -> None:
        """`{% entitled "a" "b" any=True %}`"""
        for argument in token.split_contents()[1:]:
            if not argument.startswith("any="):
                self._ask(argument, line, "{% entitled %}")

    def _read_word(self, words: list[str], position: int, word: str, line: int) -> None:
        before, after = words[:position], words[position + 1 :]
        if word == "entitled_to" and before[-1:] == ["|"] and after[:1] == [":"]:
            self._ask(after[1] if len(after) > 1 else "", line, "|entitled_to")
        elif word.startswith("perms.entitlements."):
            self._ask(f'"{word.split(".")[2]}"', line, "perms.entitlements")
        elif word == "perms" and before[-1:] == ["in"]:
            permission = _text(_left_of_in(before))
            if permission.startswith(PERMISSION_PREFIX):
                self._ask(f'"{permission.removeprefix(PERMISSION_PREFIX)}"', line, "in perms")
        else:
            self._read_path(before, word, after, line)

    def _read_path(self, before: list[str], word: str, after: list[str], line: int) -> None:
        key = self._key_in(word)
        if key is None:
            return
        if key and key not in PUBLIC:
            self._ask(f'"{key}"', line, OF_REQUEST)
        elif before[-1:] == ["in"] and before[0] != "for":
            self._ask(_left_of_in(before), line, f"in {OF_REQUEST}")
        elif before[-1:] == ["="] and len(before) > 1:  # {% with mine=request.entitlements %}
            self._aliases.add(before[-2])
        elif after[:1] == ["as"] and len(after) > 1:
            self._aliases.add(after[1])

    def _key_in(self, path: str) -> str | None:
        """What follows the entitlements in a path of names: `""` if nothing does, `None` if they are not in it."""
        first, _, rest = path.partition(".")
        if first not in self._aliases:
            _, found, rest = f".{path}.".partition(".request.entitlements.")
            if not found:
                return None
        return rest.partition(".")[0]

    def _ask(self, word: str, line: int, gate: str) -> None:
        place = Place(self._file, line, gate)
        text = _text(word)
        if text:
            self.found.asked.add(Asked(text, place))
        else:
            self.found.undecided.add(Undecided(place))


def _left_of_in(before: list[str]) -> str:
    """What stands left of `in`, or of `not in`; nothing if a filter changes it."""
    words = before[:-2] if before[-2:-1] == ["not"] else before[:-1]
    return words[-1] if words and words[-2:-1] not in (["|"], [":"]) else ""


def _text(word: str) -> str:
    """What a word in quotes says; `""` for any other."""
    is_text = len(word) > 1 and word[0] in "\"'" and _WORD.fullmatch(word)
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if is_text else ""
