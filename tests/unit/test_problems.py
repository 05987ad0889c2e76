"""Refusals speak of JSON: no word of Python or pydantic, and the paths that the client sent."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from sidecar.errors import InvalidRequestError
from sidecar.http.queries import parse
from sidecar.wire.agents import AgentCreate, AgentUpdate
from sidecar.wire.environments import EnvironmentCreate, EnvironmentUpdate
from sidecar.wire.problems import kind_of
from sidecar.wire.sessions import EventsSend, ResourceUpdate, SessionCreate, SessionUpdate
from sidecar.wire.vaults import CredentialCreate, CredentialUpdate, VaultCreate, VaultUpdate

JARGON = re.compile(
    r"\b(None|NoneType|True|False|dict\w*|str|int|float|bool|tuple|list|set|literal|Literal|Input|"
    r"instance|pydantic|validator|model_type|attribute|keyword|callable|class|Field|Value)\b|<|function-"
)
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", "x" * 100_001, "None", [], [[]], [None], {}),
    *({"type": None}, {"type": 5}, {"type": []}, {"type": {}}, {"type": True}, {"type": "x"}),
]
TEXT = {"type": "text", "text": "x"}
BLOCKS = [
    TEXT,
    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
    {"type": "document", "source": {"type": "text", "data": "x"}, "title": "t"},
]
TOOLS = [
    {
        "type": "agent_toolset_20260401",
        "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
        "configs": [{"name": "bash", "enabled": False}],
    },
    {"type": "mcp_toolset", "mcp_server_name": "m"},
    {
        "type": "custom",
        "name": "t",
        "description": "d",
        "input_schema": {"type": "object", "properties": {}, "required": ["a"]},
    },
]
SERVERS = [{"type": "url", "name": "m", "url": "https://x.test/mcp"}]
AGENT = {
    "name": "a",
    "model": {"id": "m", "effort": {"type": "high"}, "speed": "standard"},
    "system": "s",
    "tools": TOOLS,
    "mcp_servers": SERVERS,
    "metadata": {"k": "v"},
}
ENVIRONMENT = {
    "name": "e",
    "config": {"type": "cloud", "networking": {"type": "unrestricted"}},
    "scope": "account",
}
AUTH = {"type": "environment_variable", "secret_name": "A", "secret_value": "v"}
BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (AgentCreate, AGENT),
    (AgentUpdate, AGENT),
    (EnvironmentCreate, ENVIRONMENT),
    (EnvironmentUpdate, ENVIRONMENT),
    (
        SessionCreate,
        {
            "agent": {"type": "agent", "id": "agent_1", "version": 1},
            "environment_id": "env_1",
            "title": "t",
            "initial_events": [{"type": "user.message", "content": BLOCKS}],
            "resources": [
                {
                    "type": "github_repository",
                    "url": "https://x.test/r",
                    "checkout": {"type": "branch", "name": "b"},
                }
            ],
            "vault_ids": ["vlt_1"],
        },
    ),
    (SessionUpdate, {"title": "t", "metadata": {"k": None}, "agent": {"tools": TOOLS}}),
    (
        EventsSend,
        {
            "events": [
                {"type": "user.message", "content": BLOCKS},
                {"type": "user.interrupt"},
                {"type": "user.tool_confirmation", "tool_use_id": "t", "result": "allow"},
                {"type": "user.custom_tool_result", "custom_tool_use_id": "t", "content": BLOCKS},
            ]
        },
    ),
    (ResourceUpdate, {"authorization_token": "t"}),
    (VaultCreate, {"display_name": "v", "metadata": {}}),
    (VaultUpdate, {"display_name": "v"}),
    (CredentialCreate, {"auth": AUTH, "display_name": "c"}),
    (CredentialUpdate, {"auth": {"type": "static_bearer", "token": "t"}}),
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in inner:
        yield (*path, step)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, step))


def changed(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Return the body with another value at a path."""
    body = copy.deepcopy(body)
    holder: Any = body
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return body


def has(body: Any, path: list[str]) -> bool:
    """Whether the body has a path; its last step may be a field that is missing."""
    for place, step in enumerate(path):
        if isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        elif isinstance(body, dict) and step in body:
            body = body[step]
        else:
            return place == len(path) - 1 and isinstance(body, dict)
    return True


def refusal(model: type[BaseModel], body: Any) -> str:
    """Return why a body is refused, nothing when it is not."""
    try:
        parse(model, body)
    except InvalidRequestError as error:
        return error.message
    return ""


@pytest.mark.parametrize(("model", "body"), BODIES, ids=lambda it: getattr(it, "__name__", ""))
def test_every_refusal_speaks_of_json(model: type[BaseModel], body: dict[str, Any]) -> None:
    """Every value of every body, replaced by each odd one, and every field left out."""
    parse(model, body)
    refused = 0
    for path in places(body):
        for value in ODD:
            odd = changed(body, path, value)
            message = refusal(model, odd)
            refused += bool(message)
            text = re.sub(r"'[^']*'", "", message)  # without what the client sent, or may send
            assert not JARGON.search(text), message
            where = re.match(r"([\w.]+): ", message)
            assert where is None or has(odd, where[1].split(".")), (message, odd)
    assert refused > 5


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "null"), (True, "true"), (5, "5"), ([], "[]"), ({}, "{}"), ("x", "'x'")],
)
def test_a_wrong_type_is_shown_as_json(value: Any, shown: str) -> None:
    """As the client sent it, and what it may be."""
    with pytest.raises(InvalidRequestError) as caught:
        parse(EnvironmentCreate, {"name": "e", "config": {"type": value}})
    assert caught.value.message == (
        f"config: type {shown} is not offered by this sidecar; it takes 'cloud'"
    )


@pytest.mark.parametrize("value", [[], "", 0, False])
@pytest.mark.parametrize("path", [("config",), ("config", "networking"), ("config", "packages")])
def test_only_null_and_an_empty_object_mean_that_it_was_left_out(
    path: tuple[str, ...], value: Any
) -> None:
    """Anything else that is empty is a mistake."""
    body: dict[str, Any] = {"name": "e", "config": {"type": "cloud"}}
    assert refusal(EnvironmentCreate, changed(body, path, value)).startswith(".".join(path))
    for empty in (None, {}):
        assert not refusal(EnvironmentCreate, changed(body, path, empty))


def test_a_path_has_no_tags_of_unions() -> None:
    """`events.0.text`, not `events.0.user.message.content.0.text.text`."""
    with pytest.raises(InvalidRequestError, match=r"^events\.0\.content\.0\.text: is required$"):
        parse(EventsSend, {"events": [{"type": "user.message", "content": [{"type": "text"}]}]})


def test_an_error_of_a_kind_that_is_not_known_is_not_in_pydantics_words() -> None:
    """No model here has a date; one that gets one does not show pydantic's sentence."""

    class Dated(BaseModel):
        at: date

    assert refusal(Dated, {"at": "x"}) == "at: is not valid"


@pytest.mark.parametrize(
    ("value", "name"),
    [({}, "an object"), ([], "an array"), ("", "a string"), (False, "a boolean"), (None, "null")],
)
def test_kinds_have_jsons_names(value: Any, name: str) -> None:
    """Not Python's."""
    assert kind_of(value) == name
    assert kind_of(1.5) == "a number"
