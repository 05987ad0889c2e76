"""Answers in pieces: where they are cut, and what is escaped."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http import streaming
from sidecar.http.streaming import pieces_of
from sidecar.wire.json_text import storable_text
from sidecar.wire.json_writing import write_json


@given(st.text(), st.integers(1, 8))
def test_a_long_frame_is_cut_between_characters(text: str, piece: int) -> None:  # drawn
    """Cut anywhere, each piece is text of its own, and ASCII where that is asked for; nothing is lost."""
    frame = b" " * 8 + write_json(text, is_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "PIECE_BYTES", piece)
        pieces = [bytes(piece) for piece in pieces_of([frame])]
        escaped = [bytes(piece) for piece in pieces_of([frame], is_ascii=True)]
    assert b"".join(pieces) == frame
    assert all(piece.decode() for piece in pieces)
    assert all(piece.isascii() for piece in escaped)
    assert json.loads(b"".join(escaped)) == storable_text(text)


def test_short_frames_are_written_together() -> None:
    """One write for those of one moment; what is long is not copied."""
    long = b"x" * 100_000
    together, *rest = pieces_of([b"a", b"b", long])
    assert together == b"ab"
    assert all(isinstance(piece, memoryview) and piece.obj is long for piece in rest)
