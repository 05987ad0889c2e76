"""`web_fetch` and `web_search` of an agent, with the real opencode and the official SDK."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.fakes.web_site import Site, web_site
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient, plain

TOOLSET = "agent_toolset_20260401"


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    async with web_site() as running:
        yield running


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="module")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("web"),
        gateway.url,
        web={"private_networks": ("127.0.0.0/8",), "search_tool": "the tool"},
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture
async def raw(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(sidecar.url) as http:
        yield RawClient(http)


def tools(*configs: dict[str, Any], **default: Any) -> list[dict[str, Any]]:
    return [{"type": TOOLSET, "configs": list(configs), "default_config": default or None}]


def offered(gateway: DemoGateway) -> list[str]:
    """Return the names of the tools that the newest model request offers."""
    names = [tool["function"]["name"] for tool in gateway.requests[-1].body["tools"]]
    return sorted(names)


async def test_a_page_is_fetched_as_a_built_in_tool(
    raw: RawClient, gateway: DemoGateway, site: Site
) -> None:
    """The model is offered our two tools and none of opencode's; clients see the API's name and input."""
    session = await raw.new_session()
    url = site.url("/page")
    turn = await raw.turn(session, f'[[tool: web_fetch {{"url": "{url}"}}]]')
    assert {name for name in offered(gateway) if "web" in name} == {"web_fetch", "web_search"}
    (use,) = plain(turn, "agent.tool_use")
    assert (use["name"], use["input"]) == ("web_fetch", {"url": url})
    assert (use["evaluated_permission"], use["evaluation"]) == ("allow", {"type": "always_allow"})
    (result,) = plain(turn, "agent.tool_result")
    assert (result["tool_use_id"], result["is_error"]) == (use["id"], False)
    assert "Some **bold** text" in result["content"][0]["text"]
    check_events(turn)


async def test_a_blocked_domain_is_not_reached_by_any_way(raw: RawClient, site: Site) -> None:
    """The agent reads why; nothing arrives at the other host, redirects included."""
    site.asked.clear()
    config = {"name": "web_fetch", "blocked_domains": ["127.0.0.2"]}
    session = await raw.new_session(tools=tools(config))
    other = site.url("/page", host="127.0.0.2")
    for url in (other, f"{site.url('/to')}?url={other}"):
        turn = await raw.turn(session, f'[[tool: web_fetch {{"url": "{url}"}}]]')
        (result,) = plain(turn, "agent.tool_result")
        assert result["is_error"] is True
        assert "the domain 127.0.0.2 is not one" in result["error"]
        check_events(turn)
    assert site.asked == ["localhost/to"]


async def test_an_image_is_a_result_with_an_image(raw: RawClient, site: Site) -> None:
    """As opencode's own tool brings it."""
    session = await raw.new_session()
    turn = await raw.turn(session, f'[[tool: web_fetch {{"url": "{site.url("/image")}"}}]]')
    (result,) = plain(turn, "agent.tool_result")
    (image,) = [block for block in result["content"] if block["type"] == "image"]
    assert image["source"]["media_type"] == "image/png"


async def test_a_fetch_that_asks_waits_for_the_client(raw: RawClient, site: Site) -> None:
    """The policy of the tool holds: nothing is fetched before the confirmation, and never after a denial."""
    site.asked.clear()
    ask = {"name": "web_fetch", "permission_policy": {"type": "always_ask"}}
    session = await raw.new_session(tools=tools(ask))
    call = f'[[tool: web_fetch {{"url": "{site.url("/page")}"}}]]'
    for answer, expected in (("deny", 0), ("allow", 1)):
        async with raw.stream(session) as reader:
            await raw.send(session, call)
            (use,) = plain(await reader.until("session.status_idle"), "agent.tool_use")
            assert (use["name"], use["evaluated_permission"]) == ("web_fetch", "ask")
            assert site.asked == []
            confirmation = {"type": "user.tool_confirmation", "tool_use_id": use["id"]}
            await raw.send_events(session, {**confirmation, "result": answer})
            rest = await reader.until("session.status_idle")
        (result,) = plain(rest, "agent.tool_result")
        assert (result["tool_use_id"], result["is_error"]) == (use["id"], answer == "deny")
        assert len(site.asked) == expected


async def test_tools_that_are_off_are_not_offered(raw: RawClient, gateway: DemoGateway) -> None:
    """One, or both."""
    session = await raw.new_session(tools=tools({"name": "web_fetch", "enabled": False}))
    await raw.turn(session, "hello")
    assert {name for name in offered(gateway) if "web" in name} == {"web_search"}
    session = await raw.new_session(tools=tools({"name": "bash", "enabled": True}, enabled=False))
    await raw.turn(session, "hello")
    assert offered(gateway) == ["bash"]


async def test_a_search_goes_through_the_gateway(raw: RawClient, gateway: DemoGateway) -> None:
    """With its key, the domains and the country; what is found outside of the domains is dropped."""
    config = {
        "name": "web_search",
        "allowed_domains": ["example.com", "example.org/2025"],
        "user_location": {"type": "approximate", "country": "DE"},
    }
    session = await raw.new_session(tools=tools(config))
    turn = await raw.turn(session, '[[tool: web_search {"query": "otters"}]]')
    (use,) = plain(turn, "agent.tool_use")
    assert (use["name"], use["input"]) == ("web_search", {"query": "otters"})
    (result,) = plain(turn, "agent.tool_result")
    expected = "1. otters, part 1\nhttps://docs.example.com/guide\nAbout otters."
    assert (result["is_error"], result["output"]) == (False, expected)
    (asked,) = [r for r in gateway.requests if r.path.startswith("/v1/search")]
    assert asked.path == "/v1/search/the tool"
    assert asked.headers["authorization"] == f"Bearer {GATEWAY_KEY}"
    domains = ["example.com", "example.org"]
    assert asked.body == {"query": "otters", "search_domain_filter": domains, "country": "DE"}
    check_events(turn)


async def test_the_sdk_reads_agents_with_web_tools(sidecar: RunningSidecar) -> None:
    """Strict validation takes their options, and the answer says what is on."""
    async with anthropic.AsyncAnthropic(
        api_key=RUNTIME_KEY, base_url=sidecar.url, _strict_response_validation=True
    ) as sdk:
        agent = await sdk.beta.agents.create(
            name="a",
            model="openai/gpt-4o",
            tools=tools(
                {"name": "web_fetch", "allowed_domains": ["docs.example.com"]},
                {"name": "web_search", "blocked_domains": ["ads.example.com/x"]},
            ),
        )
        (toolset,) = agent.tools
        assert [config.enabled for config in toolset.configs] == [True, True]
        assert toolset.configs[0].allowed_domains == ["docs.example.com"]
        again = await sdk.beta.agents.update(agent.id, tools=[toolset.to_dict()])
        assert again == agent


async def test_metrics_count_what_agents_fetched(sidecar: RunningSidecar) -> None:
    """Fetched, refused and searched."""
    async with http_client(sidecar.admin_url) as http, http.get("/metrics") as response:
        text = await response.text()
    for name in ("web_fetches_total", "web_fetches_refused_total", "web_searches_total"):
        (line,) = [one for one in text.splitlines() if f"{name} " in one and one[0] != "#"]
        assert float(line.split()[-1]) >= 1, line


async def test_without_a_search_tool_it_is_answered_as_disabled(
    gateway: DemoGateway, tmp_path: Any
) -> None:
    """Agents and sessions answer `enabled: false`, and the model is not offered the tool."""
    async with (
        sidecar_for(make_settings(tmp_path, gateway.url)) as sidecar,
        http_client(sidecar.url) as http,
    ):
        raw = RawClient(http)
        session = await raw.new_session()
        await raw.turn(session, "hello")
        assert {name for name in offered(gateway) if "web" in name} == {"web_fetch"}
        shown = await raw.call("GET", f"/v1/sessions/{session}")
        agent = await raw.call("GET", f"/v1/agents/{shown['agent']['id']}")
        for body in (shown["agent"], agent):
            (config,) = body["tools"][0]["configs"]
            assert (config["name"], config["enabled"]) == ("web_search", False)
        assert "hello" in text_of(await raw.turn(session, "[[say: hello]]"))
