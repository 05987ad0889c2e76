"""Wrong bodies: the status, the envelope, a message that helps, and nothing written."""

import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.ids import new_id
from tests.harness import user_message
from tests.integration.bad_input.server import AGENT, CREATORS, Server, speak

BASH_OFF = {
    "type": "agent_toolset_20260401",
    "configs": [{"name": "bash", "enabled": False}],
}


@pytest.mark.parametrize("path", CREATORS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"name=x", "not JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "an array"),
        (b'"text"', "a string"),
        (b"null", "null"),
        (b'{"name": NaN}', "not JSON"),
        (b'{"name": ' + b"1" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 100_000, "JSON"),
    ],
    ids=[
        *("empty", "cut", "form", "utf-16", "array", "string", "null"),
        *("nan", "long", "deep", "deeper"),
    ],
)
async def test_a_body_that_is_no_json_object(
    server: Server, path: str, body: bytes, says: str
) -> None:
    """Anything but a JSON object is a 400 that says what came."""
    await server.refused("POST", path, 400, "invalid_request_error", says, data=body)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"model": {}}, "model"),
        ({"model": {"id": ["a"]}}, "model"),
        ({"model": {"id": "openai/gpt-4o", "effort": "extreme"}}, "effort"),
        ({"system": {}}, "system"),
        ({"system": "x" * 100_001}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "browser"}]}, "agent_toolset_20260401"),
        ({"tools": [{"type": "agent_toolset_20260401", "configs": [{"name": "rm"}]}]}, "rm"),
        ({"tools": [{"type": "agent_toolset_20260401", "default_confg": {}}]}, "default_confg"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "gone"}]}, "gone"),
        ({"tools": [{"type": "custom", "name": "a b"}]}, "name"),
        ({"tools": [{"type": "agent_toolset_20260401"}, BASH_OFF]}, "more than once"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "ftp://x"}]}, "url"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "http://x"}]}, "mcp_toolset"),
        ({"mcp_servers": [{"name": "x", "url": "https://u:pw@x/"}]}, "a user or password"),
        ({"mcp_servers": [{"name": "x", "url": "https://x/?apiKey=1"}]}, "parameter 'apiKey'"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"k": None}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "16"),
        ({"metadata": {"k" * 65: "v"}}, "64"),
        ({"metadata": {"k": "v" * 513}}, "512"),
        ({"multiagent": {"type": "coordinator"}}, "multiagent: agents of several agents"),
        ({"execution_identity": {"type": "user"}}, "execution_identity"),
        ({"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}, "skills: are not offered"),
        ({"model": {"id": "openai/gpt-4o", "speed": "fast"}}, "model.speed: is not offered"),
        ({"model": {"id": "openai/gpt-4o", "inference_geo": "us"}}, "model.inference_geo: is not"),
    ],
)
async def test_agents_with_wrong_fields(server: Server, change: Any, says: str) -> None:
    """A field of the wrong type or out of bounds is a 400 that names it."""
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", says, json=AGENT | change
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": "web_fetch", "allowed_domain": ["a.b"]}, "allowed_domain: is not an option"),
        ({"name": "web_fetch", "allowed_domains": ["https://a.b"]}, "plain hostname"),
        ({"name": "web_fetch", "allowed_domains": ["a.b/c"]}, "plain hostname"),
        ({"name": "web_fetch", "blocked_domains": []}, "blocked_domains"),
        ({"name": "web_fetch", "blocked_domains": ["a.b"] * 65}, "blocked_domains"),
        (
            {"name": "web_fetch", "allowed_domains": ["a.b"], "blocked_domains": ["c.d"]},
            "cannot be combined",
        ),
        ({"name": "web_fetch", "max_content_tokens": 5}, "max_content_tokens: is not offered"),
        (
            {"name": "web_fetch", "url_sources": {"user_input": "all"}},
            "url_sources: is not offered",
        ),
        (
            {"name": "web_search", "user_location": {"type": "approximate", "city": "x"}},
            "city: is not offered",
        ),
        ({"name": "bash", "allowed_domains": ["a.b"]}, "allowed_domains: is not an option"),
        ({"name": "bash", "permission_policy": {"type": "always_ask", "x": 1}}, "x: is not an"),
        ({"name": "bash", "type": "read"}, "type"),
    ],
)
async def test_tools_with_wrong_options(server: Server, config: Any, says: str) -> None:
    """An option that would do nothing is a 400: most of them restrict the agent."""
    tools = [{"type": "agent_toolset_20260401", "configs": [config]}]
    body = AGENT | {"tools": tools}
    await server.refused("POST", "/v1/agents", 400, "invalid_request_error", says, json=body)


@pytest.mark.parametrize("missing", ["name", "model"])
async def test_an_agent_without_a_required_field(server: Server, missing: str) -> None:
    """A missing field is a 400 that names it."""
    body = {key: value for key, value in AGENT.items() if key != missing}
    await server.refused("POST", "/v1/agents", 400, "invalid_request_error", missing, json=body)


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("openai/gpt-4oo", "openai/gpt-4o"),
        ("litellm/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("gpt-4o", "openai/gpt-4o"),
    ],
)
async def test_an_unknown_model_is_answered_with_near_matches(
    server: Server, typed: str, near: str
) -> None:
    """A name that is not offered is a 400 that names the field and what may have been meant."""
    body = AGENT | {"model": typed}
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", "model", typed, near, json=body
    )


async def test_a_text_that_is_no_unicode_is_refused_before_it_is_stored(server: Server) -> None:
    """Half of a surrogate pair cannot be answered as UTF-8, so it must not get in."""
    custom = '{"type": "custom", "name": "t", "description": "d", "input_schema": %s}'
    schema = '{"type": "object", "x": "\\udfff"}'
    for body in (
        '{"name": "\\ud800", "model": "openai/gpt-4o"}',
        '{"name": "a", "model": "openai/gpt-4o", "tools": [%s]}' % (custom % schema),
    ):
        await server.refused("POST", "/v1/agents", 400, "invalid_request_error", data=body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "e", "config": {"type": "moon"}}, "config"),
        ({"name": "e", "config": {"type": "cloud", "networking": {"type": "open"}}}, "networking"),
        ({"name": "e", "config": {"type": "cloud", "packages": {"pip": "x"}}}, "packages"),
        ({"config": {"type": "cloud"}}, "name"),
        ({"name": "e", "config": {"type": "self_hosted"}}, "'self_hosted' is not offered"),
        (
            {"name": "e", "config": {"type": "cloud", "networking": {"type": "limited"}}},
            "limited is not offered",
        ),
        ({"name": "e", "config": {"type": "cloud", "packages": {"apt": ["x"]}}}, "apt packages"),
        (
            {"name": "e", "config": {"type": "cloud", "packages": {"cargo": ["x"]}}},
            "cargo packages",
        ),
        ({"name": "e", "config": {"type": "cloud", "packages": {"gem": ["x"]}}}, "gem packages"),
        ({"name": "e", "config": {"type": "cloud", "packages": {"go": ["x"]}}}, "go packages"),
        (
            {"name": "e", "config": {"type": "cloud", "packages": {"pip": ["-r x"]}}},
            "package's name",
        ),
        (
            {"name": "e", "config": {"type": "cloud", "packages": {"npm": ["../x"]}}},
            "package's name",
        ),
    ],
)
async def test_environments_with_wrong_fields(server: Server, body: Any, says: str) -> None:
    """A wrong environment is a 400 that names the field."""
    await server.refused("POST", "/v1/environments", 400, "invalid_request_error", says, json=body)


async def test_sessions_with_wrong_fields(server: Server, agent: str, place: str) -> None:
    """A session that cannot be made is refused with the field's name; unknown ids are 404."""
    good = {"agent": agent, "environment_id": place}
    bad = [
        ({"environment_id": place}, "agent"),
        ({"agent": agent}, "environment_id"),
        (good | {"agent": 7}, "agent"),
        (good | {"agent": {"type": "agent"}}, "id"),
        (good | {"agent": "nonsense"}, "agent"),
        (good | {"environment_id": "../x"}, "environment_id"),
        (good | {"initial_events": [{"type": "user.interrupt"}]}, "initial_events"),
        (good | {"initial_events": [user_message("x")] * 51}, "initial_events"),
        (good | {"budget": {"type": "limit"}}, "budget: is not offered"),
        (good | {"title": ["x"]}, "title"),
        (
            good | {"resources": [{"type": "file", "file_id": "file_x"}]},
            "resources.0.type: is not offered by this sidecar; it takes 'github_repository'",
        ),
        (
            good | {"initial_events": [{"type": "user.define_outcome"}]},
            "initial_events.0.type: is not offered by this sidecar; it takes 'user.message'",
        ),
        (
            good | {"agent": {"type": "agent_with_overrides", "id": agent, "model": None}},
            "model",
        ),
        (
            good | {"agent": {"type": "agent_with_overrides", "id": agent, "model": "gpt-5o"}},
            "model",
        ),
    ]
    for body, says in bad:
        await server.refused("POST", "/v1/sessions", 400, "invalid_request_error", says, json=body)
    for body in (
        good | {"agent": new_id("agent")},
        good | {"environment_id": new_id("env")},
        good | {"agent": {"type": "agent", "id": agent, "version": 9}},
    ):
        await server.refused("POST", "/v1/sessions", 404, "not_found_error", json=body)


@pytest.mark.parametrize(
    "metadata",
    [{"k": 1}, {"k": "v" * 513}, {"k" * 65: "v"}, ["k"], {str(n): "v" for n in range(17)}],
)
async def test_wrong_metadata_has_its_code(
    server: Server, agent: str, place: str, metadata: Any
) -> None:
    """The SDKs have an exception of its own for it, on create and on update."""
    environment = {"name": "e", "metadata": metadata}
    session = {"agent": agent, "environment_id": place, "metadata": metadata}
    for path, body in (
        ("/v1/agents", AGENT | {"metadata": metadata}),
        (f"/v1/agents/{agent}", {"metadata": metadata}),
        ("/v1/environments", environment),
        (f"/v1/environments/{place}", environment),
        ("/v1/sessions", session),
    ):
        told = await server.refused(
            "POST", path, 400, "invalid_request_error", "metadata", json=body
        )
        assert told["error"]["details"] == {"error_code": "invalid_metadata"}


async def test_an_override_that_takes_the_model_away(
    server: Server, agent: str, place: str
) -> None:
    """The documented code says which it is."""
    override = {"type": "agent_with_overrides", "id": agent, "model": None}
    body = {"agent": override, "environment_id": place}
    told = await server.refused(
        "POST", "/v1/sessions", 400, "invalid_request_error", "model: cannot be cleared", json=body
    )
    assert told["error"]["details"] == {"error_code": "agent_model_required"}


async def test_what_a_session_cannot_change(server: Server, session: str) -> None:
    """The message says what to do instead."""
    for body, says in (
        ({"vault_ids": ["vlt_x"]}, "vault_ids: cannot be changed; create another session"),
        ({"environment_id": "env_x"}, "environment_id: cannot be changed; create another session"),
        ({"resources": []}, "resources: cannot be changed; create another session"),
        ({"initial_events": [user_message("x")]}, "send events to POST /v1/sessions/{id}/events"),
        ({"agent": {"model": "openai/gpt-4o"}}, "agent.model: cannot be changed"),
        ({"agent": {"system": "x"}}, "agent.system: cannot be changed"),
        ({"agent": {"tool": []}}, "agent.tool: is not an option"),
        ({"budget": {"type": "limit"}}, "budget: is not offered"),
    ):
        path = f"/v1/sessions/{session}"
        await server.refused("POST", path, 400, "invalid_request_error", says, json=body)


async def test_packages_whose_manager_is_missing(
    server: Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no npm on the PATH that agents' shells get, an environment cannot have npm packages, and
    nothing is installed at its first turn only to fail."""
    (tmp_path / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    npm = {"config": {"type": "cloud", "packages": {"npm": ["left-pad"]}}}
    says = "config.packages.npm: there is no npm on this server"
    for path, body in (
        ("/v1/environments", {"name": "e", **npm}),
        (f"/v1/environments/{place}", npm),
    ):
        await server.refused("POST", path, 400, "invalid_request_error", says, json=body)
    pip = {"name": "e", "config": {"type": "cloud", "packages": {"pip": ["greet"]}}}
    assert (await server.raw.call("POST", "/v1/environments", pip))["config"]["packages"]["pip"]


@pytest.mark.parametrize("empty", [{}, None])
async def test_an_empty_config_is_one_that_was_left_out(server: Server, empty: Any) -> None:
    """LAP's own smoke test sends `{}`; networking inside is the same kind."""
    whole = await server.raw.call("POST", "/v1/environments", {"name": "e"})
    made = await server.raw.call("POST", "/v1/environments", {"name": "e", "config": empty})
    assert made["config"] == whole["config"]
    config = {"type": "cloud", "networking": empty, "packages": empty}
    made = await server.raw.call("POST", "/v1/environments", {"name": "e", "config": config})
    assert made["config"] == whole["config"]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        (
            "/v1/environments",
            {"config": {"type": "vm"}},
            "config: type 'vm' is not offered",
        ),
        ("/v1/environments", {"config": {"a": 1}}, "config: must be an object with a 'type'"),
        ("/v1/environments", {"config": "cloud"}, "config: must be an object"),
        (
            "/v1/agents",
            {"model": "openai/gpt-4o", "tools": [{}]},
            "tools.0: must be an object with",
        ),
        ("/v1/agents", {"model": "openai/gpt-4o", "tools": [{"type": "x"}]}, "type 'x' is not"),
    ],
)
async def test_a_wrong_type_is_told_in_the_words_of_the_api(
    server: Server, path: str, body: dict[str, Any], says: str
) -> None:
    """Which types there are, and not how a validator distinguishes them."""
    body = {"name": "n", **body}
    await server.refused("POST", path, 400, "invalid_request_error", says, json=body)


async def test_an_mcp_server_without_a_type_is_one_by_url(server: Server) -> None:
    """There is no other kind."""
    toolset = {"type": "mcp_toolset", "mcp_server_name": "hub"}
    body = {
        "name": "a",
        "model": "openai/gpt-4o",
        "tools": [toolset],
        "mcp_servers": [{"name": "hub", "url": "http://mcp.test/"}],
    }
    made = await server.raw.call("POST", "/v1/agents", body)
    assert made["mcp_servers"] == [{"type": "url", "name": "hub", "url": "http://mcp.test/"}]


async def test_a_base_url_that_ends_in_v1_is_named(server: Server) -> None:
    """LAP keeps an address as it was typed, and adds `/v1/...` to it."""
    says = "must not end in /v1"
    await server.refused("POST", "/v1/v1/agents", 404, "not_found_error", says, json={})
    await server.refused("GET", "/v1/v1/models", 404, "not_found_error", says)


@pytest.mark.parametrize("path", ["//v1/models", "///v1/models", "//v1/v1/agents"])
async def test_a_base_url_that_ends_in_a_slash_is_named(server: Server, path: str) -> None:
    """For clients that do not take it away."""
    status, _, body = await speak(server, "GET", path)
    assert status == 404
    assert "must not end in a slash" in body["error"]["message"]
