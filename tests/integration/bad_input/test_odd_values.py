"""Every field of every request, given what does not belong there.

An odd value is refused with a sentence that names the field, in the words of the API, or it is taken, and
then the answer shows it as it is in force. It is never a failure of ours, and never silently dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from sidecar.ids import new_id
from tests.document_walk import Field, Path, Walk
from tests.integration.bad_input.server import AGENT, Server
from tests.openapi_check import STREAM, document

pytestmark = pytest.mark.timeout(1800)  # ten thousand requests

FEW = ("null", "1.5", "{}", '"\\u0000"', '"\\ud800"', '{"odd_key": "odd value"}')
"""For a field that another operation has as well."""
MANY = (
    *FEW,
    *("true", "0", "-0", "-1", "18446744073709551616", "9" * 400, "1e400", "NaN", "-Infinity"),
    *('""', '" "', '"\\u001b[31m\\u0007"', '"\\u202egnp.exe"', '"\\u0430lways_ask"', '"unknown"'),
    *('"../../etc/passwd"', f'"{"x" * 200_000}"', "[]", "[null]", "[[]]", '["x", "x"]'),
    *('{"type": "unknown"}', '{"type": null}', '{"type": ["a"]}', '{"type": "a", "type": "b"}'),
    *(json.dumps(new_id(kind)) for kind in ("agent", "env", "sesn", "vlt")),
)
IN_QUERIES = (
    *("", " ", "\0", "\x1b[31m", "\u202e", "null", "-0", "1e400", "NaN", "9" * 400, "x" * 5000),
    *("%ff", "{}", "../x", "\u0661", new_id("sesn")),
)
VALIDATORS_WORDS = (
    *("union", "discriminator", "pydantic", "Input should", "literal", "NoneType", "dictionary"),
    *("validation error", "None", "value_error", "Traceback", "Exception", " object at "),
)
UNSHOWN = {"token", "secret_value", "authorization_token", "version", "initial_events", "auth"}
"""Secrets, conditions, and what is answered elsewhere."""
FREE = {"metadata", "input_schema", "citations"}
"""Objects with any keys."""
NOWHERE = "http://127.0.0.1:9/owner/app"


@dataclass(frozen=True, slots=True)
class Operation:
    """A route that takes a body, and the body's schema."""

    path: str
    schema: dict[str, Any]


def operations() -> Iterable[Operation]:
    for path, methods in document()["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if path.startswith("/v1/") and body and not path.endswith("/archive"):
            yield Operation(path, body["content"]["application/json"]["schema"])


class Site:
    """The resources that the requests are about."""

    def __init__(self, server: Server) -> None:
        self.call = server.raw.call
        self.agent = self.place = ""

    async def set_up(self, path: str) -> str:
        """Make what a path names; return the path."""
        self.agent = (await self.call("POST", "/v1/agents", AGENT))["id"]
        self.place = (await self.call("POST", "/v1/environments", {"name": "e"}))["id"]
        if "{" not in path:
            return path
        own = {"agents": self.agent, "environments": self.place, "models": AGENT["model"]}
        kind = path.split("/")[2]
        if kind in own:
            return path.format(id=own[kind])
        if kind == "vaults":
            vault = (await self.call("POST", "/v1/vaults", {"display_name": "v"}))["id"]
            auth = {"type": "static_bearer", "mcp_server_url": "https://m.test/", "token": "t"}
            made = await self.call("POST", f"/v1/vaults/{vault}/credentials", {"auth": auth})
            return path.format(id=vault, credential=made["id"])
        clone = {"type": "github_repository", "url": NOWHERE}
        body = {"agent": self.agent, "environment_id": self.place, "resources": [clone]}
        session = await self.call("POST", "/v1/sessions", body)
        threads = await self.call("GET", f"/v1/sessions/{session['id']}/threads")
        resource, thread = session["resources"][0]["id"], threads["data"][0]["id"]
        return path.format(id=session["id"], resource=resource, thread_id=thread)

    def sample(self, path: Path) -> Any:
        """Return a right value for a plain field, None for the default one of its type."""
        name = next((step for step in reversed(path) if isinstance(step, str)), "")
        is_item = isinstance(path[-1], int)
        if name == "id" and "model" not in path:
            return self.agent
        if name == "name":
            return "hub"
        lists = {
            "allowed_domains": "docs.example.com",
            "blocked_domains": "ads.example.com",
            "pip": "requests",
            "npm": "left-pad",
        }
        if name in lists:
            return lists[name] if is_item else [lists[name]]
        special = {
            "agent": self.agent,
            "environment_id": self.place,
            "model": AGENT["model"],
            "id": AGENT["model"],
            "url": NOWHERE,
            "mcp_server_name": "hub",
            "country": "DE",
            "mcp_server_url": "https://mcp.test/x",
            "mount_path": "/workspace/app",
            "secret_name": "A_NAME",
            "sha": "0123456789",
            "data": "aGVsbG8=",
            "media_type": "image/png",
        }
        return special.get(name)


def with_partners(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with what its MCP servers and toolsets need beside them."""
    agent = body.get("agent")
    if isinstance(agent, dict):
        return {**body, "agent": with_partners(agent)}
    tools, added = body.get("tools"), dict[str, Any]()
    if body.get("mcp_servers"):
        added["tools"] = [{"type": "mcp_toolset", "mcp_server_name": "hub"}]
    elif tools and tools[0].get("type") == "mcp_toolset":
        added["mcp_servers"] = [{"name": "hub", "url": NOWHERE}]
    return body | added


async def test_an_odd_value_is_refused_by_name_or_shown_as_it_holds(server: Server) -> None:
    """Each field that the document describes, in each kind of object that has it."""
    site, problems, known, sent = Site(server), list[str](), set[str](), 0
    for operation in operations():
        path = await site.set_up(operation.path)
        for field in Walk(document(), site.sample).fields(operation.schema):
            whole = Field(field.path, with_partners(field.body), field.kind)
            odds = [*(FEW if field.kind in known else MANY)]
            if isinstance(whole.value, dict):
                odds.append(json.dumps({**whole.value, "odd_key": "odd value"}))
            known.add(field.kind)
            for odd in odds:
                async with server.http.post(path, data=whole.body_with(odd)) as response:
                    answer, status = await response.json(), response.status
                sent += 1
                if problem := problem_of(whole, odd, status, answer):
                    where = f"{operation.path}: {field.name} = {odd[:60]}"
                    problems.append(f"{where}: {problem}: {json.dumps(answer)[:300]}")
                if status == 200 and "{" in operation.path:
                    path = await site.set_up(operation.path)
    assert problems == [], "\n".join(problems)
    assert sent > 5000


async def test_odd_queries_are_refused_by_name(server: Server) -> None:
    """Each parameter of each list, once and twice."""
    site, problems, sent = Site(server), list[str](), 0
    for template, methods in document()["paths"].items():
        operation = methods.get("get")
        if operation is None or not template.startswith("/v1/"):
            continue
        if STREAM in operation["responses"]["200"]["content"]:
            continue
        path = await site.set_up(template)
        names = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
        for name in names:
            for odd in IN_QUERIES:
                part = f"{quote(name)}={quote(odd, safe='%')}"
                for query in (part, f"{part}&{part}"):
                    url = URL(f"{server.url}{path}?{query}", encoded=True)
                    async with server.http.get(url) as response:
                        answer, status = await response.json(), response.status
                    sent += 1
                    if problem := problem_of_refusal([name], status, answer):
                        problems.append(f"{url}: {problem}: {json.dumps(answer)[:300]}")
    assert problems == [], "\n".join(problems)
    assert sent > 1000


def problem_of(field: Field, odd: str, status: int, answer: Any) -> str:
    """Return what is wrong with an answer, nothing when it is right."""
    if status != 200:
        return problem_of_refusal(field.path, status, answer)
    try:
        value = json.loads(odd)
    except ValueError:
        return "taken, though it is no JSON"
    if "odd_key" in json.dumps(answer) and not FREE & set(field.path):
        return "an unknown key is shown as if it meant something"
    return problem_of_echo(field, value, answer)


def problem_of_refusal(path: Iterable[str | int], status: int, answer: Any) -> str:
    """Return what is wrong with a refusal, nothing when it is right or is none."""
    if status == 200:
        return ""
    if status not in {400, 404, 409, 413}:
        return f"status {status}"
    message = answer["error"]["message"]
    for word in VALIDATORS_WORDS:
        if word in message:
            return f"speaks of {word!r}"
    is_of_all = status in {404, 413} or message.startswith("the body ")
    names = [step.removesuffix("[]") for step in path if isinstance(step, str)]
    return "" if is_of_all or any(name in message for name in names) else "names no field"


def problem_of_echo(field: Field, value: Any, answer: Any) -> str:
    """Return what is wrong with how an answer shows a value that was taken."""
    if value is None or value in ("", {}, []):
        return ""  # it was left out, or cleared: what is shown is the default
    shown: Any = {"events": answer["data"]} if "data" in answer else answer
    for step in field.path:
        is_there = step < len(shown) if isinstance(shown, list) else step in shown
        if not is_there:
            return "" if UNSHOWN & set(field.path) else "taken, and not shown"
        shown = shown[step]
    return "" if agrees(value, shown) else "shown as something else"


def agrees(sent: Any, shown: Any) -> bool:
    """Whether what is shown is what was sent, or what a short form stands for."""
    if isinstance(sent, str):
        text = sent.replace("\0", "\N{REPLACEMENT CHARACTER}")
        is_short = isinstance(shown, dict) and text in shown.values()
        return shown in (text, [{"type": "text", "text": text}]) or is_short
    if isinstance(sent, list):
        return len(sent) == len(shown) and all(map(agrees, sent, shown))
    if isinstance(sent, dict):
        return all(agrees(value, shown[key]) for key, value in sent.items() if key in shown)
    return bool(sent == shown and type(sent) is type(shown))
