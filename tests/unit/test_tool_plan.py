"""What agents may do, as the API shows it and as opencode enforces it."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import InvalidRequestError
from sidecar.managed.agents.toolsets import check_fit, expand, offered
from sidecar.managed.turns.tool_plan import CHILD_TOOLS, ToolPlan, sanitise
from sidecar.wire.agents import AgentCreate

TOOLSET = {"type": "agent_toolset_20260401"}
PLATFORM = {"type": "url", "name": "platform", "url": "http://platform/mcp"}
LOOKUP = {
    "type": "custom",
    "name": "look_up",
    "description": "Looks up.",
    "input_schema": {"type": "object"},
}


def expanded(tools: list[Any], servers: list[Any] | None = None) -> list[dict[str, Any]]:
    request = AgentCreate.model_validate(
        {"name": "a", "model": "m", "tools": tools, "mcp_servers": servers or []}
    )
    shown = expand(request.tools)
    check_fit(shown, servers or [])
    return shown


def plan(tools: list[Any], servers: list[Any] | None = None) -> ToolPlan:
    return ToolPlan(expanded(tools, servers), servers or [])


def decided(tool_plan: ToolPlan, permission: str) -> str:
    """Evaluate the rules as opencode does: the last match wins."""
    action = "ask"
    for rule in tool_plan.rules():
        if fnmatchcase(permission, rule["permission"]):
            action = rule["action"]
    return action


def test_a_toolset_is_answered_with_every_default_written_out() -> None:
    """Strict clients need `configs`, `default_config` and the policy in every entry."""
    config = {"name": "bash", "permission_policy": {"type": "always_ask"}}
    (shown,) = expanded([TOOLSET | {"configs": [config]}])
    assert shown == {
        "type": "agent_toolset_20260401",
        "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
        "configs": [
            {
                "name": "bash",
                "type": "bash",
                "enabled": True,
                "permission_policy": {"type": "always_ask"},
            }
        ],
    }


def test_tools_of_an_mcp_server_are_asked_about_unless_the_client_says_otherwise() -> None:
    """The default policy is always_ask there, and items carry no `type`."""
    tools = [{"type": "mcp_toolset", "mcp_server_name": "platform", "configs": [{"name": "x"}]}]
    (shown,) = expanded(tools, [PLATFORM])
    assert shown["default_config"]["permission_policy"] == {"type": "always_ask"}
    assert "type" not in shown["configs"][0]


def test_the_domains_of_web_tools_are_kept() -> None:
    """They come back as they were sent, and the plan has them for the tool."""
    config = {"name": "web_fetch", "allowed_domains": ["example.com"]}
    (shown,) = expanded([TOOLSET | {"configs": [config]}])
    assert shown["configs"][0]["allowed_domains"] == ["example.com"]
    web = plan([TOOLSET | {"configs": [config]}]).web
    assert web["web_fetch"]["allowed_domains"] == ["example.com"]
    assert web["web_search"] == {}


def test_web_tools_that_are_off_are_not_in_the_plan() -> None:
    """Neither without a toolset, nor when the client disabled them."""
    off = {
        "default_config": {"enabled": False},
        "configs": [{"name": "web_search", "enabled": True}],
    }
    assert plan([]).web == {}
    assert set(plan([TOOLSET | off]).web) == {"web_search"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"configs": [{"name": "web_search", "enabled": True, "allowed_domains": ["a.b"]}]},
        {"configs": [{"name": "bash"}, {"name": "web_search"}]},
    ],
)
def test_without_a_search_it_is_answered_as_disabled(given: Any) -> None:
    """Whatever the client asked for, in the toolset's own shape; the other tools stay as they are."""
    (shown,) = offered(expanded([TOOLSET | given]), has_search=False)
    (search,) = [c for c in shown["configs"] if c["name"] == "web_search"]
    assert (search["enabled"], search["type"]) == (False, "web_search")
    assert search["permission_policy"] == {"type": "always_allow"}
    others = [c for c in shown["configs"] if c["name"] != "web_search"]
    assert all(config["enabled"] for config in others)
    assert ToolPlan([shown], []).web == {"web_fetch": {}}


@pytest.mark.parametrize(
    ("tools", "servers", "says"),
    [
        ([TOOLSET | {"configs": [{"name": "bash"}, {"name": "bash"}]}], [], "more than once"),
        ([{"type": "mcp_toolset", "mcp_server_name": "gone"}], [], "gone"),
        ([], [PLATFORM], "platform"),
        (
            [{"type": "mcp_toolset", "mcp_server_name": "platform"}] * 2,
            [PLATFORM],
            "more than once",
        ),
        (
            [{"type": "mcp_toolset", "mcp_server_name": "platform"}],
            [PLATFORM] * 2,
            "more than once",
        ),
        ([LOOKUP, LOOKUP], [], "look_up"),
    ],
)
def test_tools_and_servers_that_do_not_fit_are_refused(
    tools: list[Any], servers: list[Any], says: str
) -> None:
    """The message names the tool or server in question."""
    with pytest.raises(InvalidRequestError, match=says):
        expanded(tools, servers)


def test_without_a_toolset_nothing_is_allowed() -> None:
    """An agent without tools may not even read."""
    for child_tool in {*CHILD_TOOLS.values(), "task", "todowrite", "question", "anything_else"}:
        assert decided(plan([]), child_tool) == "deny"


def test_the_plain_toolset_allows_the_eight_tools_and_no_others() -> None:
    """What the API has no name for, sub-agents and questions included, stays denied."""
    tool_plan = plan([TOOLSET])
    guarded = set(CHILD_TOOLS.values()) - {"write"}  # opencode asks for `edit` there
    assert {decided(tool_plan, child) for child in guarded} == {"allow"}
    own = ("task", "todowrite", "question", "skill", "webfetch", "websearch", "platform_approve")
    for child_tool in own:
        assert decided(tool_plan, child_tool) == "deny"


def test_writing_and_editing_share_the_stricter_policy() -> None:
    """opencode guards both by one permission, so the stricter of the two holds."""
    ask = {"name": "write", "permission_policy": {"type": "always_ask"}}
    off = {"name": "write", "enabled": False}
    assert decided(plan([TOOLSET | {"configs": [ask]}]), "edit") == "ask"
    assert decided(plan([TOOLSET | {"configs": [off]}]), "edit") == "deny"


def test_a_denied_server_grants_only_the_tools_it_names() -> None:
    """LAP's platform server: everything denied but the named tools."""
    toolset = {
        "type": "mcp_toolset",
        "mcp_server_name": "platform",
        "default_config": {"enabled": False, "permission_policy": {"type": "always_allow"}},
        "configs": [{"name": "request_approval", "enabled": True}],
    }
    tool_plan = plan([TOOLSET, toolset], [PLATFORM])
    assert decided(tool_plan, "platform_request_approval") == "allow"
    assert decided(tool_plan, "platform_create_managed_agent") == "deny"
    assert tool_plan.describe("platform_request_approval", {}).policy == "allow"
    assert tool_plan.describe("platform_create_managed_agent", {}).policy == "deny"


def test_auto_counts_as_ask() -> None:
    """We have no judge of our own, so what the server should decide is asked."""
    auto = {"permission_policy": {"type": "auto"}}
    assert decided(plan([TOOLSET | {"default_config": auto}]), "bash") == "ask"


@pytest.mark.parametrize(
    ("child_tool", "child_input", "name", "api_input"),
    [
        ("bash", {"command": "ls", "description": "x", "timeout": 5}, "bash",
         {"command": "ls", "timeout_ms": 5}),
        ("read", {"filePath": "/a"}, "read", {"file_path": "/a"}),
        ("read", {"filePath": "/a", "offset": 10, "limit": 5}, "read",
         {"file_path": "/a", "view_range": [10, 14]}),
        ("read", {"filePath": "/a", "offset": 3}, "read",
         {"file_path": "/a", "view_range": [3, -1]}),
        ("read", {"filePath": "/a", "limit": 2}, "read",
         {"file_path": "/a", "view_range": [1, 2]}),
        ("read", {"filePath": "/a", "offset": "ten"}, "read",
         {"file_path": "/a", "offset": "ten"}),
        ("read", {"filePath": "/a", "offset": None, "limit": [1]}, "read",
         {"file_path": "/a", "offset": None, "limit": [1]}),
        ("edit", {"filePath": "/a", "oldString": "x", "newString": "y", "replaceAll": True},
         "edit", {"file_path": "/a", "old_string": "x", "new_string": "y", "replace_all": True}),
        ("web_fetch", {"url": "http://x"}, "web_fetch", {"url": "http://x"}),
        ("web_search", {"query": "x"}, "web_search", {"query": "x"}),
        ("apply_patch", {"patch": "p"}, "edit", {"patch": "p"}),
    ],
)  # fmt: skip
def test_calls_of_opencodes_tools_are_named_as_the_api_names_them(
    child_tool: str, child_input: Any, name: str, api_input: Any
) -> None:
    """Names and input fields are the API's, whatever the model sent."""
    call = plan([TOOLSET]).describe(child_tool, child_input)
    assert (call.kind, call.name, call.input) == ("builtin", name, api_input)


def test_calls_of_mcp_tools_are_taken_apart_by_server() -> None:
    """Servers whose names begin alike are distinguished, and odd characters do no harm."""
    names = ["git", "git_hub", "my server!"]
    servers = [{"type": "url", "name": n, "url": "http://x"} for n in names]
    tools = [{"type": "mcp_toolset", "mcp_server_name": n} for n in names]
    tool_plan = plan(tools, servers)
    for name in names:
        call = tool_plan.describe(f"{tool_plan.server_keys[name]}_do_it", {"a": 1})
        assert (call.kind, call.server, call.name) == ("mcp", name, "do_it")


def test_a_clients_server_called_web_does_not_take_the_place_of_ours() -> None:
    """Its tools are MCP tools under its own name; ours stay built-in."""
    servers = [{"type": "url", "name": "web", "url": "http://x"}]
    tool_plan = plan([TOOLSET, {"type": "mcp_toolset", "mcp_server_name": "web"}], servers)
    assert tool_plan.server_keys["web"] == "2-web"
    assert tool_plan.describe("2-web_fetch", {}).server == "web"
    assert tool_plan.describe("web_fetch", {}).kind == "builtin"


def test_a_clients_own_tools_are_its_own_kind() -> None:
    """A custom tool is shown under its plain name; a server called `custom` does not take its place."""
    servers = [{"type": "url", "name": "custom", "url": "http://x"}]
    tools = [LOOKUP, {"type": "mcp_toolset", "mcp_server_name": "custom"}]
    tool_plan = plan(tools, servers)
    assert tool_plan.describe("custom_look_up", {}).kind == "custom"
    assert tool_plan.describe("custom_look_up", {}).name == "look_up"
    assert tool_plan.server_keys["custom"] != "custom"
    assert decided(tool_plan, "custom_look_up") == "allow"


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
def test_no_servers_key_hides_another(names: list[str]) -> None:
    """Whatever the names, a tool of one server is never taken for one of another."""
    servers = [{"name": name} for name in names]
    tools = [
        {
            "type": "mcp_toolset",
            "mcp_server_name": name,
            "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
            "configs": [],
        }
        for name in names
    ]
    tool_plan = ToolPlan(tools, servers)
    for name in names:
        call = tool_plan.describe(f"{tool_plan.server_keys[name]}_tool", {})
        assert call.server == name


def test_names_are_made_safe_for_opencode() -> None:
    """Everything but letters, digits, `_` and `-` becomes `_`."""
    assert sanitise("a.b/c d-é_1") == "a_b_c_d-__1"
