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

_PIECE_CHARS = 1024 * 1024
"""Written at once: 5 ms. Smaller ones would stay in the thread's arena, see `sidecar.memory`."""
_CHUNK_CHARS = 128 * 1024
_SMALL_CHARS = 128 * 1024
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
    if json_size(value) <= _SMALL_CHARS:
        text = (_write_ascii if is_ascii else _write)(value)
        if not has_unstorable_escape(text) and is_encodable(text):
            return text
    quote = encode_basestring_ascii if is_ascii else encode_basestring
    return "".join(_pieces(value, quote, _PIECE_CHARS))


def json_chunks(value: Any) -> Iterator[bytes]:
    """Yield what `write_json` returns without `is_ascii`, in UTF-8, in chunks of about 128 KiB.

    Each takes a millisecond at most, and the whole is never in memory.
    """
    pieces: list[str] = []
    size = 0
    for piece in _pieces(value, encode_basestring, _CHUNK_CHARS):
        pieces.append(piece)
        size += len(piece)
        if size >= _CHUNK_CHARS:
            yield "".join(pieces).encode()
            pieces, size = [], 0
    if pieces:
        yield "".join(pieces).encode()


def _pieces(value: Any, quote: Callable[[str], str], size: int) -> Iterator[str]:
    if isinstance(value, str):
        yield from _string_pieces(value, quote, size)
    elif isinstance(value, dict):
        opening = "{"
        for name, item in value.items():
            yield opening
            yield from _string_pieces(name, quote, size)
            yield ":"
            yield from _pieces(item, quote, size)
            opening = ","
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        opening = "["
        for item in value:
            yield opening
            yield from _pieces(item, quote, size)
            opening = ","
        yield "]" if value else "[]"
    else:
        yield json.dumps(value)


def _string_pieces(text: str, quote: Callable[[str], str], size: int) -> Iterator[str]:
    if len(text) <= size:
        yield quote(storable_text(text))
        return
    yield '"'
    for start in range(0, len(text), size):
        yield quote(storable_text(text[start : start + size]))[1:-1]
    yield '"'
