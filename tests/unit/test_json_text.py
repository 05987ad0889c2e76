"""JSON that others wrote: what a client sends is refused, what a model wrote is mended."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.responses import encode
from sidecar.managed.events.event import from_row, to_json
from sidecar.wire import json_text
from sidecar.wire.json_text import (
    MAX_DEPTH,
    UnstorableError,
    has_unstorable_escape,
    read_leniently,
    read_strictly,
    read_with_nul,
)

HALF = "\ud83d"


def nested(depth: int) -> bytes:
    return b'{"field": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts | st.just("[{" * MAX_DEPTH),  # looks deep
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)  # fmt: skip


@given(values, st.booleans())
def test_ordinary_json_is_read_as_it_is(value: Any, is_ascii: bool) -> None:
    """Both readers agree with the standard one on everything that can be answered again."""
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert read_strictly(raw) == read_leniently(raw) == value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_LARGE_BYTES", 0)
        assert read_strictly(raw) == read_leniently(raw) == value
        assert read_with_nul(raw) == (value, b"\\u0000" in raw)


@pytest.mark.parametrize(
    "raw",
    [
        *(
            rb'"\ud83d"',
            rb'{"\udc00":1}',
            rb'["\ude00\ud83d"]',
            b"[1e400]",
            b"NaN",
            b"-Infinity",
            b"",
        ),
        *(
            b"{} {}",
            b"[1,]",
            b'"\xff"',
            b'"a\nb"',
            b"\xff\xfe1",
            b"9" * 5000,
            nested(MAX_DEPTH + 2),
        ),
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_refused_is_refused_at_any_size(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large documents are read by another parser, which refuses the same."""
    with pytest.raises(ValueError, match=r".+"):
        read_strictly(raw)
    monkeypatch.setattr(json_text, "_LARGE_BYTES", -1)
    with pytest.raises(ValueError, match=r".+"):
        read_strictly(raw)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (rb'["\ud83d", "\u0000"]', ["\ufffd", "\ufffd"]),
        (b"[1e400, NaN, 5]", [None, None, 5]),
        (b'["\xff"]', ["\ufffd"]),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"9" * 5000, None),
    ],
)
def test_what_is_mended_is_mended_at_any_size(
    raw: bytes, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One odd value costs that value, in a large document, too."""
    assert read_leniently(raw) == wanted
    monkeypatch.setattr(json_text, "_LARGE_BYTES", 0)
    assert read_leniently(raw) == wanted


@given(st.text(r"\ud8aDc0e "), st.integers(1, 13))
def test_halves_of_pairs_are_found_in_pieces(text: str, piece: int) -> None:
    """Searched in pieces or as a whole, an escaped half is found or not."""
    text = text.replace("\\", r"\ud83d").replace("e", r"\ude00")
    whole = has_unstorable_escape(text)
    pairs = re.sub(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..", "", text)
    assert whole == ("\\ud" in pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_SEARCHED_CHARS", piece)
        assert has_unstorable_escape(text) == whole


@pytest.mark.parametrize("escaped", [r"\ud83d", r"\uD83D", r"a\udc00b", r"\ude00\ud83d"])
@pytest.mark.parametrize(
    "shape",
    [
        '{"field": "%s"}',
        '{"field": {"%s": 1}}',
        '{"field": [[{"deep": "%s"}]]}',
    ],
)
def test_half_a_pair_is_refused_with_its_field(escaped: str, shape: str) -> None:
    """In values and keys at any depth; the message names the field."""
    with pytest.raises(UnstorableError, match=r"^field: ") as caught:
        read_strictly((shape % escaped).encode())
    assert caught.value.field == "field"


def test_half_a_pair_as_the_name_of_a_field() -> None:
    """The name is shown in ASCII, so that the refusal itself can be sent."""
    with pytest.raises(UnstorableError) as caught:
        read_strictly(b'{"\\ud83d": 1}')
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    "raw", [b'{"\xed\xa0\xbd": 1}', b'"\xff"', '{"a": "é"}'.encode("utf-16"), b'"\xed\xa0\x80"']
)
def test_only_utf_8_is_read(raw: bytes) -> None:
    """Neither surrogates as bytes nor UTF-16."""
    with pytest.raises(ValueError, match="not UTF-8"):
        read_strictly(raw)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_no_float_holds(number: str) -> None:
    """It would be answered as `Infinity`, which is no JSON."""
    with pytest.raises(ValueError, match=r"JSON|range"):
        read_strictly(b"[%s]" % number.encode())


def test_the_depth_has_a_bound() -> None:
    """The deepest that is read can be written; one more is refused with its field."""
    assert json.dumps(read_strictly(nested(MAX_DEPTH)))
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(UnstorableError, match=str(MAX_DEPTH)):
            read_strictly(nested(depth))


def test_what_a_model_wrote_is_mended() -> None:
    """Halves become the replacement character, whole pairs stay, too deep values become a remark."""
    assert read_leniently(rb'{"\ud83d": ["a\udc00", "\ud83d\ude00"]}') == {"�": ["a�", "😀"]}
    assert read_leniently(b'"\xed\xa0\xbd!"') == "���!"
    assert read_leniently(b"[1e999, NaN, -Infinity, 1.5]") == [None, None, None, 1.5]
    cut = json.dumps(read_leniently(nested(500)))
    assert cut.count("[") == MAX_DEPTH
    assert "too deeply" in cut


def test_one_odd_value_costs_that_value() -> None:
    """Integers that no double holds and what is nested beyond the stack leave the rest of the document."""
    deep = nested(100_000).decode()
    document = f'{{"a": {deep}, "b": {"9" * 5000}, "c": [1, -{"9" * 320}, {2**63}], "d": "[[{{"}}'
    read = read_leniently(document)
    assert json.dumps(read.pop("a")).count("[") < MAX_DEPTH
    assert read == {"b": None, "c": [1, None, 2**63], "d": "[[{"}
    with pytest.raises(ValueError, match="ends inside"):
        read_leniently("[" * 100_000)


def test_nul_is_mended_in_values_and_keys_and_left_where_it_is_quoted() -> None:
    """PostgreSQL's JSONB has no NUL; the six characters that quote its escape are ordinary text."""
    assert read_leniently(rb'{"\u0000a": ["b\u0000", {"c": "\u0000"}]}') == {
        "\ufffda": ["b\ufffd", {"c": "\ufffd"}]
    }
    quoted = json.dumps({"text": r"\u0000 and \ud83d"})
    assert read_leniently(quoted) == json.loads(quoted)
    assert has_unstorable_escape(quoted), "looks like one, and costs a reading only"


odd = st.text(st.characters(exclude_categories=[]) | st.sampled_from("\0\ud83d\ude00\\u0"))


@given(st.recursive(odd, lambda inner: st.lists(inner) | st.dictionaries(odd, inner)))
def test_what_is_written_can_be_stored(value: Any) -> None:
    """Events, rows of earlier versions, and answers: neither NUL nor half of a pair in any text or key."""
    old_row = from_row(1, "sevt_1", "agent.message", 0, json.dumps([value])).text
    for written in (to_json({"value": value}), old_row, encode(value)):
        read = json.loads(written)
        texts = json.dumps(read, ensure_ascii=False)
        assert "\\u0000" not in texts.replace("\\\\", "")
        texts.encode()
    plain = json.dumps(value, ensure_ascii=False)
    if plain.isascii() and "\\u0000" not in plain:
        assert json.loads(encode(value)) == value
