"""The page and its items: tolerant of what vendors send, strict in what they hand out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.sdk import BadAnswerError, Fetched, ModelInfo, ModelPage, make_page, walk
from sidecar.sdk.models import UNKNOWN_DATE
from sidecar.sdk.shapes import read_item
from tests.fakes.anthropic_api import anthropic_model

TEXTS = st.text("aé0 \x00\n😀", max_size=4)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def read(item: Any) -> ModelInfo | None:
    return read_item(item, runtime="test")


def test_a_full_anthropic_item_keeps_every_field() -> None:
    """Dumping an item gives back each field the API sent, with the same JSON value."""
    sent = anthropic_model("claude-x", allowed_fallback_models=["claude-y"])

    model = read(sent)

    assert model is not None
    dumped = model.model_dump(mode="json", exclude={"runtime", "raw"}, exclude_unset=True)
    assert dumped == sent
    assert model.raw == sent
    assert model.runtime == "test"


def test_an_item_with_only_an_id_gets_the_documented_defaults() -> None:
    """What is not given: the id as display name, the epoch, active, and None for numbers."""
    model = read({"id": "openai/gpt-4o"})

    assert model is not None
    assert (model.display_name, model.type, model.lifecycle) == ("openai/gpt-4o", "model", "active")
    assert model.created_at == UNKNOWN_DATE
    assert (model.max_input_tokens, model.max_tokens, model.capabilities) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("max_input_tokens", "many"),
        ("max_input_tokens", -1),
        ("max_tokens", True),
        ("max_tokens", {"value": 1}),
        ("created_at", "yesterday"),
        ("created_at", False),
        ("created_at", 10**30),
        ("display_name", 7),
        ("display_name", ""),
        ("lifecycle", "asleep"),
        ("line", "gpt"),
        ("type", "engine"),
        ("capabilities", {"batch": {"supported": True}}),
        ("capabilities", ["vision"]),
        ("retires_at", []),
    ],
)
def test_a_wrong_type_counts_as_not_told(field: str, wrong: object) -> None:
    """One odd field neither hides the model nor leaks out; `raw` still shows it."""
    plain = read({"id": "m"})
    model = read({"id": "m", field: wrong})

    assert plain is not None
    assert model is not None
    assert getattr(model, field) == getattr(plain, field)
    assert model.raw[field] == wrong


@pytest.mark.parametrize("item", [None, 3, "", [], {}, {"id": None}, {"id": ""}, {"id": 5}])
def test_an_item_without_a_usable_id_is_no_model(item: object) -> None:
    """Nothing can be sent back to the runtime for such an item."""
    assert read(item) is None


def test_openai_names_are_moved_to_anthropic_names() -> None:
    """`created` becomes `created_at` and `max_output_tokens` becomes `max_tokens`."""
    model = read({"id": "m", "created": 1_700_000_000, "max_output_tokens": 4096.0})

    assert model is not None
    assert model.created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert model.max_tokens == 4096


def test_litellm_s_placeholder_date_is_unknown() -> None:
    """The constant that LiteLLM sends for every model is not a release date."""
    model = read({"id": "m", "created": 1677610602})

    assert model is not None
    assert model.created_at == UNKNOWN_DATE


def test_a_date_without_a_zone_is_utc() -> None:
    """The dumped date always carries a zone, as RFC 3339 asks."""
    model = read({"id": "m", "created_at": "2026-01-02T03:04:05"})

    assert model is not None
    assert model.model_dump(mode="json")["created_at"] == "2026-01-02T03:04:05Z"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # 2 busy cores
@given(
    st.dictionaries(
        st.sampled_from([*anthropic_model("x"), "created", "max_output_tokens", "raw", "other"]),
        JSON_VALUES,
    )
)
def test_whatever_json_comes_a_model_dumps_to_json_and_reads_back(item: dict[str, Any]) -> None:
    """No JSON object breaks the reader, and what it makes survives a round trip."""
    model = read({**item, "id": "m"})

    assert model is not None
    text = json.dumps(model.model_dump(mode="json"))
    assert ModelInfo.model_validate(json.loads(text)) == model


def test_a_page_drops_repeated_ids_and_knows_its_edges() -> None:
    """The first of two items with one id stays; the order is the runtime's."""
    page = make_page("test", [{"id": "b"}, {"id": "a"}, {"id": "b", "line": "opus"}], read)

    assert [m.id for m in page] == ["b", "a"]
    assert (page.first_id, page.last_id, page.has_more, len(page)) == ("b", "a", False, 2)


def test_an_empty_list_is_an_empty_page() -> None:
    """No models is an answer, not a fault; the edges are null as in the Anthropic API."""
    page = make_page("test", [], read)

    assert page.model_dump(mode="json") == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
        "runtime": "test",
    }


def test_a_list_of_nothing_usable_is_a_bad_answer() -> None:
    """Items that are all unusable must not look like an empty, healthy list."""
    with pytest.raises(BadAnswerError, match="none of the 2 listed items"):
        make_page("test", [{"name": "x"}, 4], read)


def test_a_page_survives_a_round_trip_through_json() -> None:
    """A dumped page validates to an equal page, so it can be cached."""
    page = make_page("test", [anthropic_model("a"), {"id": "b"}], read)

    assert ModelPage.model_validate_json(page.model_dump_json()) == page


async def test_a_walk_ends_at_a_repeated_cursor() -> None:
    """A server that always names the same next page is asked twice, not again and again."""
    asked = []

    async def fetch(cursor: str | None) -> Fetched:
        asked.append(cursor)
        return Fetched([len(asked)], "same")

    walked = await walk(fetch, max_pages=100, runtime="test")

    assert asked == [None, "same"]
    assert (walked.items, walked.has_more) == ([1, 2], False)


async def test_a_walk_ends_at_the_bound_and_says_that_there_is_more() -> None:
    """A list without end is cut after `max_pages` pages."""
    count = 0

    async def fetch(_cursor: str | None) -> Fetched:
        nonlocal count
        count += 1
        return Fetched([count], f"page-{count}")

    walked = await walk(fetch, max_pages=3, runtime="test")

    assert (walked.items, walked.has_more) == ([1, 2, 3], True)
