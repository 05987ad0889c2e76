"""Writing JSON of any size without keeping other threads from running.

Python's encoder works on a string in one call: 20 MB take 70 ms and more, in which no other thread of the
process runs, the event loop's included. Long strings are therefore written in pieces, and large values in
a thread (`sidecar.aiokit.aside`).
"""

from __future__ import annotations

import io
import json
import re
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
_MOST_HELD = 1.5
_BEYOND_LATIN = re.compile("[^\x00-\xff]")
_BEYOND_BMP = re.compile("[^\x00-\uffff]")
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


def json_bytes(value: Any, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return what `write_json` returns between `before` and `after`; it is in memory once meanwhile.

    It is ASCII, or UTF-8 where that is `is_shorter_in_utf8`.
    """
    quote = encode_basestring if is_shorter_in_utf8(value) else encode_basestring_ascii
    written = io.BytesIO()  # grows in place, and what it returns is not a copy
    written.write(before)
    for piece in _pieces(value, quote, _PIECE_CHARS):
        written.write(piece.encode())
    written.write(after)
    return written.getvalue()


def is_shorter_in_utf8(value: Any) -> bool:
    """Return whether the value's JSON takes less memory in UTF-8 than in ASCII, as bytes and as a string.

    An escape has six characters, twelve beyond U+FFFF. But Python gives each character of a string as many
    bytes as the widest one needs: one emoji makes a text in ASCII four times as large, its escape does not.
    """
    held = encoded = characters = 0
    for text in _texts(value):
        width = 1
        for start in range(0, len(text), _PIECE_CHARS):
            piece = text[start : start + _PIECE_CHARS]
            encoded += len(piece.encode("utf-8", "replace"))
            if not piece.isascii():
                width = max(width, _width(piece))
        held += width * len(text)
        characters += len(text)
    return encoded > characters and held <= _MOST_HELD * encoded


def _width(text: str) -> int:
    """Return how many bytes Python needs for each character of a text that is not ASCII."""
    if _BEYOND_BMP.search(text):
        return 4
    return 2 if _BEYOND_LATIN.search(text) else 1


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


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
