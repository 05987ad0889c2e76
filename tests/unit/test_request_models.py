"""The models of request bodies: what holds for all of them, whatever fields they have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from sidecar.wire import agents, environments, sessions, tools, vaults
from sidecar.wire.fields import Body

MANY_PAIRS = dict.fromkeys(map(str, range(50_000)), 1)
MODELS = sorted(
    {
        value
        for module in (agents, environments, sessions, tools, vaults)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Body)
    }
    - {Body},
    key=lambda model: model.__name__,
)


def schemas_of(model: type[Body]) -> Iterator[dict[str, Any]]:
    """Yield every pydantic-core schema of the model."""
    model.model_rebuild(force=True)  # they are built at the first use
    yield from schemas_inside(model.__pydantic_core_schema__)


def schemas_inside(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every pydantic-core schema in `schema`, however deep."""
    if isinstance(schema, dict):
        if "type" in schema:
            yield schema
        for inner in schema.values():
            yield from schemas_inside(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from schemas_inside(inner)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_ends_at_its_first_wrong_item(model: type[Body]) -> None:
    """A million wrong items are one error, not a million of which three are shown."""
    lists = [
        schema
        for schema in schemas_of(model)
        if schema["type"] == "list" and "items_schema" in schema
    ]
    assert all(schema.get("fail_fast") for schema in lists), lists


def test_the_lists_are_found() -> None:
    """The test above looks at something: an event's content is a list of blocks."""
    found = [schema["type"] for schema in schemas_of(sessions.EventsSend)]
    assert found.count("list") > 3


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (
            sessions.EventsSend,
            {"events": [{"type": "user.message", "content": [{}] * 10_000}] * 900},
        ),
        (agents.AgentCreate, {"name": "a", "model": "m", "metadata": MANY_PAIRS}),
        (agents.AgentUpdate, {"metadata": MANY_PAIRS}),
        (sessions.SessionCreate, {"agent": "a", "environment_id": "e", "vault_ids": [0] * 50_000}),
    ],
)
def test_errors_are_few_however_much_is_wrong(model: type[Body], body: Any) -> None:
    """Numbers are checked before values, and values only to the first that is wrong."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert caught.value.error_count() <= 3


@pytest.mark.parametrize(
    ("text", "is_base64"),
    [
        ("QUJD" * 600_000, True),
        ("QUJD" * 600_000 + "QQ==", True),
        ("QUJD" * 262_143 + "QQ==", True),
        ("QUJD" * 262_143 + "QQ==" + "QUJD", False),
        ("QUJD" * 600_000 + "Q", False),
        ("QUJD" * 600_000 + "-___", False),
    ],
    ids=["three steps", "padded", "one step, padded", "after the padding", "a rest", "url-safe"],
)
def test_base64_is_checked_in_steps(text: str, is_base64: bool) -> None:
    """A document is checked a megabyte at a time, with the same result as at once."""
    source = {"type": "base64", "media_type": "image/png", "data": text}
    if is_base64:
        assert sessions.Base64Source.model_validate(source).data == text
    else:
        with pytest.raises(ValidationError, match="must be base64"):
            sessions.Base64Source.model_validate(source)
