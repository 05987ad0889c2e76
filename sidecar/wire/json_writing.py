"""Writing JSON of any size without keeping other threads from running.

Python's encoder works on a string in one call: 20 MB take 70 ms and more, in which no other thread of the
process runs, the event loop's included. Long strings are therefore written in pieces, and large values in
a thread (`sidecar.aiokit.aside`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from sidecar.wire.json_text import has_unstorable_escape, is_encodable, storable_text

_PIECE_CHARS = 128 * 1024
_write_ascii = json.JSONEncoder(separators=(",", ":")).encode
_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_OTHER_SIZE = 8
"""What a number, a bracket or a name counts for, about."""


def json_size(value: Any) -> int:
    """Return about how many characters the value's JSON has; cheap: no text is looked at."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(json_size, value.values())) + _OTHER_SIZE * len(value)
    if isinstance(value, list | tuple):
        return sum(map(json_size, value))
    return _OTHER_SIZE


def write_json(value: Any, *, is_ascii: bool = True) -> str:
    """Return one line of compact JSON that every client can store, see `json_text.storable`."""
    if json_size(value) <= _PIECE_CHARS:
        text = (_write_ascii if is_ascii else _write)(value)
        if not has_unstorable_escape(text) and is_encodable(text):
            return text
    return "".join(_pieces(value, encode_basestring_ascii if is_ascii else encode_basestring))


def _pieces(value: Any, quote: Callable[[str], str]) -> Iterator[str]:
    if isinstance(value, str):
        yield from _string_pieces(value, quote)
    elif isinstance(value, dict):
        opening = "{"
        for name, item in value.items():
            yield opening
            yield from _string_pieces(name, quote)
            yield ":"
            yield from _pieces(item, quote)
            opening = ","
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        opening = "["
        for item in value:
            yield opening
            yield from _pieces(item, quote)
            opening = ","
        yield "]" if value else "[]"
    else:
        yield json.dumps(value)


def _string_pieces(text: str, quote: Callable[[str], str]) -> Iterator[str]:
    if len(text) <= _PIECE_CHARS:
        yield quote(storable_text(text))
        return
    yield '"'
    for start in range(0, len(text), _PIECE_CHARS):
        yield quote(storable_text(text[start : start + _PIECE_CHARS]))[1:-1]
    yield '"'
