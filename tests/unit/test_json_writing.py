"""JSON is written as Python's encoder writes it, storable, and in pieces where it is long."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire import json_writing
from sidecar.wire.json_text import escaped, mended
from sidecar.wire.json_writing import (
    is_shorter_in_utf8,
    json_bytes,
    json_chunks,
    json_size,
    write_json,
)

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES, st.booleans(), st.integers(1, 8))
def test_pieces_are_what_the_encoder_writes(
    value: Any, is_ascii: bool, piece: int
) -> None:  # drawn
    """Cut anywhere, the text is that of `json.dumps` on the same value, once it is storable."""
    wanted = json.dumps(mended(value), separators=(",", ":"), ensure_ascii=is_ascii)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_SMALL_CHARS", "_PIECE_CHARS", "_CHUNK_CHARS"):
            patch.setattr(json_writing, name, piece)
        assert write_json(value, is_ascii=is_ascii) == wanted
        in_utf8 = write_json(value, is_ascii=False).encode()
        assert b"".join(json_chunks(value)) == in_utf8
        assert json.loads(escaped(in_utf8.decode())) == mended(value)
        before, after = "event: e\ndata: ", "\n\n"
        frame = escaped(before + in_utf8.decode() + after).decode()
        assert json.loads(frame.removeprefix(before).removesuffix(after)) == mended(value)
        written = json_bytes(value, before=b"[", after=b"]")
        assert json.loads(written) == [mended(value)]
    assert write_json(value, is_ascii=is_ascii) == wanted


@pytest.mark.parametrize("text", ["\0", "a\ud83d", "\udc00b", "\\u0000"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_what_no_client_can_store_is_replaced(text: str, *, is_ascii: bool) -> None:
    """NUL and halves of pairs become U+FFFD, in names, too; a text that quotes an escape stays."""
    written = write_json({text: [text]}, is_ascii=is_ascii)
    shown = text if text.startswith("\\") else text.replace("\0", "\ufffd")
    shown = shown.replace("\ud83d", "\ufffd").replace("\udc00", "\ufffd")
    assert json.loads(written.encode()) == {shown: [shown]}


def test_a_long_text_is_written_as_any_other() -> None:
    """Megabytes with quotes, newlines, and characters beyond U+FFFF at every cut."""
    text = 'é"\n😀' * 500_000
    assert json.loads(write_json({"text": text})) == {"text": text}
    assert write_json({"text": text}).isascii()
    assert json.loads(write_json([text], is_ascii=False)) == [text]


def test_chunks_are_small() -> None:
    """However long the text: what is sent is never there as a whole."""
    text = 'é"\n😀' * 500_000
    chunks = list(json_chunks({"text": text, "more": [1, 2]}))
    assert json.loads(b"".join(chunks)) == {"text": text, "more": [1, 2]}
    assert max(map(len, chunks)) < 1_000_000


def test_the_size_counts_texts_and_values() -> None:
    """About the characters of the JSON."""
    assert json_size("x" * 1000) == 1000
    value = {"content": [{"type": "text", "text": "x" * 5000}] * 3}
    assert json_size(value) == pytest.approx(len(json.dumps(value)), rel=0.05)


@pytest.mark.parametrize(
    ("text", "is_shorter"),
    [
        ("x" * 100, False),
        ("é" * 100, True),
        ("words, and é now and then" * 10, True),
        ("漢字" * 100, True),
        ("漢字" * 100 + "😀", True),
        ("😀" * 100, True),
        ("x" * 100 + "😀", False),
        ("x" * 100 + "漢", False),
    ],
)
def test_long_texts_are_written_in_what_takes_less_memory(text: str, *, is_shorter: bool) -> None:
    """UTF-8 where an escape is longer, but not for a text that one wide character makes a wide string."""
    assert is_shorter_in_utf8({"content": [text, 1, None]}) == is_shorter
    assert json_bytes([text]).isascii() != is_shorter
