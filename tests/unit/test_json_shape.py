"""Counting the values of a JSON text before it is parsed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.json_shape import JsonShape, JsonTooComplexError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(['"', "\\", '\\"', "[,]"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def count_of(value: object) -> int:
    """Return commas and brackets."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 2 + max(0, len(value) - 1) + sum(map(count_of, inner))


def is_taken(pieces: list[bytes], *, max_values: int, max_depth: int) -> bool:
    shape = JsonShape(max_values=max_values, max_depth=max_depth)
    try:
        for piece in pieces:
            shape.feed(piece)
    except JsonTooComplexError:
        return False
    return True


@given(JSON, st.integers(1, 7), st.booleans())
def test_the_bounds_are_exact_wherever_the_text_is_cut(
    value: object, size: int, is_ascii: bool
) -> None:
    """Strings with quotes, backslashes, commas and brackets do not count, whatever the pieces are."""
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    count, depth = count_of(value), depth_of(value)
    assert is_taken(pieces, max_values=count, max_depth=depth)
    if count:
        assert not is_taken(pieces, max_values=count - 1, max_depth=depth)
        assert not is_taken(pieces, max_values=count, max_depth=depth - 1)


@pytest.mark.parametrize("piece", [b"[],", b"]", b'{"a":1},', b'\\",', b'"a":"b",'])
def test_what_is_no_json_ends_too(piece: bytes) -> None:
    """Closing brackets alone, backslashes outside of strings, no top: the count is bounded all the same."""
    assert not is_taken([piece * 1000] * 100, max_values=10_000, max_depth=128)
