"""Identifiers: their form, their order, and what is none."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.ids import is_id, new_id


def test_ids_have_their_kinds_prefix_and_a_fixed_form() -> None:
    """Prefix, underscore, 26 characters without I, L, O and U."""
    for prefix in ("agent", "env", "sesn", "sevt", "sthr", "vlt", "vcrd", "req"):
        assert re.fullmatch(rf"{prefix}_[0-9A-HJKMNP-TV-Z]{{26}}", new_id(prefix))
        assert is_id(new_id(prefix), prefix)


def test_ids_are_unique_and_sort_by_creation() -> None:
    """Ten thousand differ, and their time parts never go back."""
    made = [new_id("sevt") for _ in range(10_000)]
    assert len(set(made)) == len(made)
    times = [id_[5:15] for id_ in made]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "change",
    [
        lambda id_: id_.lower(),
        lambda id_: id_ + "0",
        lambda id_: id_[:-1],
        lambda id_: id_ + "\n",
        lambda id_: id_ + "\0",
        lambda id_: f" {id_}",
        lambda id_: id_.replace("agent", "sesn"),
        lambda id_: id_[:-1] + "U",
        lambda id_: id_.removeprefix("agent_"),
    ],
)
def test_what_differs_is_no_id(change: object) -> None:
    """Other kinds, lengths, alphabets and trailing control characters are refused."""
    assert callable(change)
    assert not is_id(change(new_id("agent")), "agent")


@given(st.text())
def test_no_other_text_is_an_id(text: str) -> None:
    """Random text is never taken for an id of ours."""
    assert not is_id(text, "agent") or re.fullmatch(r"agent_[0-9A-Z]{26}", text)
