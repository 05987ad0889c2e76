"""Reading JSON that others wrote, so that what was read can be stored, answered, and read again.

`json.loads` takes more than that: halves of surrogate pairs, which UTF-8 cannot hold; NUL, which
PostgreSQL's JSONB (and so LAP) cannot; numbers that no float holds, which come out as `Infinity` or as an
integer of any length; and any depth for which the stack suffices at that moment.

It also works on a decoded copy of the text, and lets no other thread run meanwhile: 100 ms for a text of
30 MB. What is large is therefore read with pydantic's parser, several times as fast and from the bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Any

from pydantic_core import from_json

MAX_DEPTH = 128
"""Arrays and objects inside each other. No real document is as deep; the stack holds several times this."""

_LARGE_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"

_TOO_MANY_DIGITS = "integer string conversion"
"""In Python's own words about an integer of more than 4300 digits."""
_LONGEST_INTEGER = 308
"""Digits that every double holds."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
"""What decides the depth of JSON: strings, whose brackets do not count, and brackets."""

_ANSWER_DEPTH = 2 * MAX_DEPTH
"""What was read is answered inside lists and events of ours."""

_HALF = re.compile(r"[\ud800-\udfff]")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_NUL_ESCAPE = "\\u0000"
_HIGH, _LOW = (rf"\\u[dD][{digits}][0-9a-fA-F]{{2}}" for digits in ("89abAB", "c-fC-F"))
_HALF_ESCAPE = re.compile(f"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")
_PAIR_CHARS = 12
_SEARCHED_CHARS = 1024 * 1024
"""Searched at once: the search of a whole document would hold the interpreter all the while."""
_REPLACEMENT = "\ufffd"
_CUT = "[nested too deeply]"


class UnstorableError(ValueError):
    """JSON that could not be answered again; `field` is where, at the top (empty: all of it)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


def read_strictly(raw: bytes | bytearray | str) -> Any:
    """Return what a client sent. Raises ValueError, as UnstorableError when it is JSON all the same.

    NUL is Unicode and stays: whether it is replaced or refused depends on the field.
    """
    if not isinstance(raw, str) and len(raw) > _LARGE_BYTES:
        return _read_large(raw)
    text = raw if isinstance(raw, str) else _decoded(raw)
    value = _loads(text, number=_finite, constant=_refuse_constant)
    if _is_suspect(text):
        fields = value.items() if isinstance(value, dict) else [("", value)]
        for name, item in fields:
            if _HALF.search(name):
                raise UnstorableError(ascii(name)[:80], "the name is not Unicode text")
            _check(name, item)
    return value


def read_leniently(raw: bytes | bytearray | str) -> Any:
    """Return what opencode, a gateway or a vendor sent, mended where it cannot be stored. Raises ValueError.

    NUL and halves of pairs become U+FFFD, numbers out of range null, and what is nested too deeply a
    remark: one odd value costs that value, never the document.
    """
    if not isinstance(raw, str) and len(raw) > _LARGE_BYTES:
        try:
            value = _read_large(raw)
        except ValueError:
            pass  # what is odd in it is mended below
        else:
            return _mended(value, MAX_DEPTH) if _NUL_ESCAPE.encode() in raw else value
    text = raw if isinstance(raw, str) else str(raw, "utf-8-sig", errors="replace")
    value = _loads_leniently(text)
    return _mended(value, MAX_DEPTH) if _is_suspect(text) else value


def read_with_nul(raw: bytes) -> tuple[Any, bool]:
    """Return what a client sent, and whether a text of it may hold NUL. Raises as `read_strictly`."""
    return read_strictly(raw), _NUL_ESCAPE.encode() in raw


def storable(text: str) -> str:
    """Return JSON text with NUL and halves of surrogate pairs as U+FFFD, in keys, too; ASCII if it was.

    Clients cannot store those. Earlier versions did, and a program may put them together.
    """
    if not has_unstorable_escape(text):
        return text
    return json.dumps(mended(json.loads(text)), separators=(",", ":"))


def storable_text(text: str) -> str:
    """Return the text itself, not JSON, with NUL and halves of surrogate pairs as U+FFFD."""
    if "\0" not in text and is_encodable(text):  # nearly always, and ten times faster
        return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def escaped(text: str) -> bytes:
    """Return JSON text, or frames of it, in ASCII: with escapes for all other characters.

    Python's encoder is fast, a function that is called for each character is not. It takes the text for a
    string; what it does to the text's own quotes, backslashes and newlines is undone. NUL is in no JSON text.
    """
    quoted = encode_basestring_ascii(text)[1:-1]
    for escape, character in (("\\\\", "\0"), ('\\"', '"'), ("\\n", "\n"), ("\0", "\\")):
        quoted = quoted.replace(escape, character)
    return quoted.encode("ascii")


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can hold the text: it has no half of a surrogate pair."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:  # half of a pair
        return False


def mended(value: Any) -> Any:
    """Return the JSON value with NUL and halves of surrogate pairs as U+FFFD, in keys, too."""
    return _mended(value, _ANSWER_DEPTH)


def has_unstorable_escape(text: str) -> bool:
    """Return whether JSON text may hold an escaped NUL or lone surrogate. Never wrong when it says no.

    It says yes to a text that quotes such an escape, which costs a reading and nothing else.
    """
    if _NUL_ESCAPE in text:
        return True
    return ("\\ud" in text or "\\uD" in text) and _holds_half(text)


def _holds_half(text: str) -> bool:
    for start in range(0, len(text), _SEARCHED_CHARS):
        end = start + _SEARCHED_CHARS
        half = _HALF_ESCAPE.search(text, start, end + _PAIR_CHARS)
        if half is not None and half.start() < end:
            return True
    return False


def _read_large(data: bytes | bytearray) -> Any:
    """Return what the bytes hold if all of it can be stored, but for NUL. Raises ValueError."""
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    # Refuses NaN, control characters and halves of surrogate pairs, and integers as Python does.
    value = from_json(data, allow_inf_nan=False, cache_strings=False)
    for depth, level in enumerate(_levels(value), start=1):
        if depth > MAX_DEPTH and any(isinstance(item, dict | list) for item in level):
            raise UnstorableError("", f"the JSON is nested more than {MAX_DEPTH} levels deep")
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            raise ValueError("a number is out of range")
    return value


def _decoded(raw: bytes | bytearray) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8, from byte {error.start} on") from None


def _loads(text: str, *, number: Callable[[str], Any], constant: Callable[[str], Any]) -> Any:
    try:
        return json.loads(text, parse_float=number, parse_constant=constant)
    except RecursionError as error:
        raise UnstorableError(
            "", f"the JSON is nested more than {MAX_DEPTH} levels deep"
        ) from error
    except ValueError as error:
        if _TOO_MANY_DIGITS not in str(error):
            raise
        raise ValueError("a number has too many digits") from None


def _loads_leniently(text: str) -> Any:
    def load(text: str) -> Any:
        return json.loads(
            text,
            parse_float=_finite_or_none,
            parse_int=_integer_or_none,
            parse_constant=_no_constant,
        )

    try:
        return load(text)
    except RecursionError:
        return load(_without_depths(text))


def _without_depths(text: str) -> str:
    """Return the JSON text with every array and object below MAX_DEPTH replaced by a remark."""
    kept: list[str] = []
    depth = copied = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += (text[copied : token.start()], json.dumps(_CUT))
        elif token[0] in "]}":
            if depth == MAX_DEPTH + 1:
                copied = token.end()
            depth -= 1
    if depth > MAX_DEPTH:
        raise ValueError("the JSON ends inside an array or object")
    return "".join(kept) + text[copied:]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _no_constant(_name: str) -> None:
    """`NaN` and `Infinity` count as absent."""


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _finite_or_none(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _integer_or_none(text: str) -> int | None:
    """An integer that no double holds counts as not sent, as a float does; Python itself refuses 4301
    digits with an error that would cost the whole document."""
    return int(text) if len(text) <= _LONGEST_INTEGER else None


def _is_suspect(text: str) -> bool:
    """Return, cheaply, whether there may be anything to find: nearly always there is not."""
    return has_unstorable_escape(text) or text.count("[") + text.count("{") > MAX_DEPTH


def _check(field: str, value: Any) -> None:
    for depth, level in enumerate(_levels(value), start=2):
        if depth > MAX_DEPTH and any(isinstance(item, dict | list) for item in level):
            raise UnstorableError(field, f"nested more than {MAX_DEPTH} levels deep")
        if any(isinstance(item, str) and _HALF.search(item) for item in level):
            raise UnstorableError(field, "holds a lone surrogate, which is not valid Unicode")


def _levels(value: Any) -> Iterator[list[Any]]:
    level = [value]
    while level:
        yield level
        level = [inner for item in level for inner in _inside(item)]


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return (*item.keys(), *item.values())
    return item if isinstance(item, list) else ()


def _mended(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return _CUT
    if isinstance(value, list):
        return [_mended(item, depth - 1) for item in value]
    return {storable_text(key): _mended(item, depth - 1) for key, item in value.items()}
