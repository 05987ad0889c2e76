"""Numbers and flags in every form that gateways write them in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.scalars import read_flag, read_number, read_whole


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (128000, 128000),
        (128000.0, 128000),
        ("128000", 128000),
        (" 128000\n", 128000),
        ("128000.0", 128000),
        ("1.28e5", 128000),
        ("-7", -7),
        ("0.000003", 0.000003),
        (".5", 0.5),
        (0, 0),
    ],
)
def test_numbers(value: object, number: float) -> None:
    """Numbers, and texts of them."""
    assert read_number(value) == number
    assert not isinstance(read_number(value), bool)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            False,
            [],
            {},
            "",
            " ",
            "many",
            "1_000",
            "1,000",
            "0x10",
            "12k",
            "١٢",
            "true",
        ),
        *("NaN", "Infinity", "-inf", "1e400", math.inf, math.nan, 10**320, "9" * 320, "9" * 5000),
    ],
)
def test_what_is_no_number(value: object) -> None:
    """Nothing that a reader of JSON would not take for a finite number."""
    assert read_number(value) is None
    assert read_whole(value) is None


@pytest.mark.parametrize(
    ("value", "whole"), [(3.0, 3), ("3", 3), ("3.0", 3), (3.5, None), ("3.5", None), (-1, -1)]
)
def test_whole_numbers(value: object, whole: int | None) -> None:
    """A fraction of zero is none."""
    assert read_whole(value) == whole
    assert not isinstance(read_whole(value), float)


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *((v, True) for v in (True, "true", "True", " TRUE ", 1, 1.0, "1")),
        *((v, False) for v in (False, "false", "False", 0, 0.0, "0")),
        *((v, None) for v in (None, "", "yes", 2, "2", [], {}, "many")),
    ],
)
def test_flags(value: object, flag: bool | None) -> None:
    """True and false, as texts and as numbers."""
    assert read_flag(value) is flag


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_any_value_is_read_without_an_error(value: object) -> None:
    """What comes out is finite, or nothing."""
    number = read_number(value)
    assert number is None or math.isfinite(number)
    assert read_whole(value) is None or read_whole(value) == number
    assert read_flag(value) in {True, False, None}
