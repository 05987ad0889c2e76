"""Counts what a JSON text will become, before it is parsed and while it still arrives.

A text of 30 MB can hold one string or ten million values. Parsing the second takes seconds and a hundred
times the memory, in one call that lets nothing else run. Its size does not distinguish them; the commas and
brackets outside of strings do, and counting those costs little more than reading the bytes.
"""

from __future__ import annotations

_BRACKETS = b"[]{}"
_OPENING = frozenset(b"[{")
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))


class JsonTooComplexError(ValueError):
    """More values than allowed; the message says how many are."""


class JsonTooDeepError(JsonTooComplexError):
    """Arrays and objects inside each other, more than allowed."""


class JsonShape:
    """Fed with the pieces of one JSON text, raises JsonTooComplexError as soon as a bound is passed.

    Every comma and bracket outside of a string counts as a value, so the number is one too high for each
    array and object. Text that is not JSON is counted somehow and left to the parser.
    """

    def __init__(self, *, max_values: int, max_depth: int) -> None:
        self._max_values = max_values
        self._max_depth = max_depth
        self._is_in_string = False
        self._is_escaped = False
        self._values = 0
        self._depth = 0

    def feed(self, piece: bytes) -> None:
        """Count one more piece, cut anywhere."""
        if self._is_escaped and piece:
            piece, self._is_escaped = piece[1:], False
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        self._is_escaped |= backslashes % 2 == 1
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[self._is_in_string :: 2])
        if len(parts) % 2 == 0:
            self._is_in_string = not self._is_in_string
        brackets = outside.translate(None, _NO_BRACKETS)
        for bracket in brackets:
            self._depth += 1 if bracket in _OPENING else -1
            if self._depth > self._max_depth:
                raise JsonTooDeepError(
                    f"the JSON is nested more than {self._max_depth} levels deep"
                )
        self._values += outside.count(b",") + len(brackets)
        if self._values > self._max_values:
            raise JsonTooComplexError(f"the JSON has more than {self._max_values} values")
