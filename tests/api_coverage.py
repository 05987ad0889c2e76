"""What this sidecar makes of every call of the SDK's managed agents API: `python -m tests.api_coverage`.

Each case of `tests.sdk_surface` is sent to a running sidecar with the SDK itself. What was sent comes back,
or it is refused by name, or there is no such route; for what has no trace in its answer, `SEEN` names the
test that sees its effect. Anything else is a silence, and fails `tests/integration/test_api_coverage.py`.
Writes docs/api-coverage.md.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import anthropic

from sidecar.demo_gateway import DemoGateway
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, make_settings, sidecar_for
from tests.sdk_surface import Case, cases, methods
from tests.waiting import PATIENCE_SECONDS

Result = Literal["right", "refused", "absent", "SILENT"]

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "api-coverage.md"
SERVED = ("agents", "environments", "sessions", "vaults", "models")
NEIGHBOURS = (
    *("files", "skills", "memory_stores", "deployments", "deployment_runs", "dreams", "tunnels"),
    "user_profiles",
)
NEVER_READY = ROOT / "tests" / "fakes" / "child_never_ready.py"
MODEL = "claude-sonnet-4-5"
NOWHERE = "http://127.0.0.1:9/owner/app"
"""A turn begins by cloning repositories; nothing of a test leaves this machine."""
SECRET = "a-secret-of-the-coverage"
CUSTOM = {"type": "custom", "name": "t", "description": "d", "input_schema": {"type": "object"}}
_SENTENCES = ("not offered", "cannot", "not supported", "only allowed", "not an option")


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one case. `remark` is the sidecar's sentence, or the test that sees the effect."""

    method: str
    path: str
    result: Result
    remark: str


_QUERIES = "tests/integration/bad_input/test_queries.py"
_SMOKE = "tests/e2e/test_smoke_client.py"
_SECRETS = "tests/integration/test_vaults_api.py"
SEEN: dict[str, str] = {
    "*.list(limit)": _QUERIES,
    "*.list(page)": _QUERIES,
    "*.list(include_archived)": _SMOKE,
    "*.list(created_at_*)": _QUERIES,
    "*.list(order*)": _QUERIES,
    "agents.retrieve(version)": _SMOKE,
    "agents.update(version)": _SMOKE,
    "models.list(*)": "tests/integration/test_models_api.py",
    "sessions.list(agent*)": _SMOKE,
    "sessions.list(statuses*)": _SMOKE,
    "sessions.list(deployment_id)": "tests/integration/test_api_coverage.py",
    "sessions.list(memory_store_id)": "tests/integration/test_api_coverage.py",
    "sessions.threads.list(statuses*)": _QUERIES,
    "sessions.events.list(types*)": _QUERIES,
    "sessions.events.stream(event_deltas*)": "tests/e2e/test_faults.py",
    "sessions.threads.events.stream(event_deltas*)": "tests/integration/test_api_coverage.py",
    "sessions.create(initial_events*)": "tests/e2e/test_sdk_turns.py",
    "sessions.create(resources*authorization_token)": "tests/e2e/test_session_resources.py",
    "sessions.resources.update(authorization_token)": "tests/e2e/test_session_resources.py",
    "sessions.events.send(events[[]].user.tool_confirmation*)": "tests/e2e/test_confirmations.py",
    "sessions.events.send(events[[]].user.custom_tool_result*)": "tests/e2e/test_custom_tools.py",
    "sessions.events.send(events[[]].system.message*)": "tests/e2e/test_sequences.py",
    "sessions.*user.message.content[[]].document.source.*": "tests/e2e/test_input_content.py",
    "vaults.credentials.*(auth*)": _SECRETS,
}
"""What has no trace in its own answer: the pattern of a case, and the test that sees its effect. A secret is
never answered."""


@asynccontextmanager
async def sidecar_and_sdk(data_dir: Path) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Run a sidecar without an opencode that works: none is needed for answers."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    child = data_dir / "opencode"
    child.write_text(f'#!/bin/sh\nexec {sys.executable} {NEVER_READY} "$@"\n')
    child.chmod(0o755)
    settings = make_settings(
        data_dir / "data",
        gateway.url,
        child={"binary": child, "drain_seconds": 0.1},
        web={"search_tool": "search"},
    )
    try:
        async with (
            sidecar_for(settings, is_ready=False) as sidecar,
            anthropic.AsyncAnthropic(
                base_url=sidecar.url, api_key=RUNTIME_KEY, max_retries=0, timeout=PATIENCE_SECONDS
            ) as sdk,
        ):
            await sidecar.catalogue.refresh()
            yield sdk
    finally:
        await gateway.close()


class Site:
    """The resources that the calls are about."""

    def __init__(self, sdk: anthropic.AsyncAnthropic) -> None:
        self._sdk = sdk.beta
        self.ids: dict[str, str] = {}

    async def renew(self, room: str = "") -> None:
        """Make new ones, or those of a room: a call may have changed, archived or deleted the last."""
        beta = self._sdk
        if room == "agents":
            self.ids["agent_id"] = (await beta.agents.create(name="a", model=MODEL)).id
            return
        if room == "environments":
            self.ids["spare"] = (await beta.environments.create(name="unused")).id
            return
        agent = await beta.agents.create(name="a", model=MODEL)
        place = await beta.environments.create(name="e")
        vault = await beta.vaults.create(display_name="v")
        auth: Any = {"type": "environment_variable", "secret_name": "A", "secret_value": SECRET}
        credential = await beta.vaults.credentials.create(vault.id, auth=auth)
        resource: Any = {"type": "github_repository", "url": NOWHERE}
        session = await beta.sessions.create(
            agent=agent.id, environment_id=place.id, resources=[resource]
        )
        threads = [thread async for thread in beta.sessions.threads.list(session.id)]
        self.ids = {
            "agent_id": agent.id,
            "agent": agent.id,
            "environment_id": place.id,
            "vault_id": vault.id,
            "vault_ids": [vault.id],
            "credential_id": credential.id,
            "spare": (await beta.environments.create(name="unused")).id,
            "session_id": session.id,
            "resource_id": session.resources[0].id,
            "thread_id": threads[0].id,
            "model_id": MODEL,
        }

    def path_ids(self, case: Case) -> dict[str, Any]:
        """Return the ids in the call's path, as they are now."""
        names = [name for name in case.arguments if name.endswith("_id") and name in self.ids]
        return {name: self.sample(case.method, name) for name in names}

    def sample(self, method: str, path: str) -> Any:
        """Return a value for a plain field, None for the default one of its type."""
        name = path.rpartition(".")[2].removesuffix("[]").removesuffix("[]")
        if name == "id" and ".agent" in path and ".model" not in path:
            return self.ids["agent_id"]
        if path.endswith(".document.source"):
            return {"type": "text", "media_type": "text/plain", "data": "a text"}
        if path == "auth":
            return {"type": "environment_variable", "secret_name": "A_NAME", "secret_value": SECRET}
        if name.startswith("created_at"):
            return "2026-01-01T00:00:00Z"
        special: dict[str, Any] = {
            **{k: v for k, v in self.ids.items() if isinstance(v, str)},
            "environment_id": self.ids["spare" if "environments." in method else "environment_id"],
            "session_thread_id": self.ids["thread_id"],
            "model": MODEL,
            "id": MODEL,
            "vault_ids": self.ids["vault_id"],
            "url": NOWHERE,
            "mcp_server_name": "hub",
            "mcp_server_url": "https://mcp.example.com/x",
            "name": "hub" if "mcp_servers" in path or "mcp_toolset" in path else "a_name",
            "mount_path": "/workspace/app",
            "allowed_domains": "docs.example.com",
            "blocked_domains": "ads.example.com",
            "country": "DE",
            "pip": "requests==2.32.0",
            "npm": "left-pad@1",
            "secret_name": "A_NAME",
            "secret_value": SECRET,
            "token": SECRET,
            "authorization_token": SECRET,
            "sha": "0123456789abcdef",
            "data": "aGVsbG8=",
            "media_type": "application/pdf" if ".document" in path else "image/png",
            "file": b"x",
            "files": b"x",
            "version": 1,
            "agent_version": 1,
        }
        return special.get(name)


def _completed(case: Case) -> dict[str, Any]:
    """Return the call's arguments with what a field needs beside it to make sense."""
    given = dict(case.arguments)
    holder = given
    if isinstance(given.get("agent"), dict):
        holder = given["agent"] = dict(given["agent"])
    kinds = {t.get("type") for t in holder.get("tools") or () if isinstance(t, dict)}
    if "mcp_toolset" in kinds and not holder.get("mcp_servers"):
        holder["mcp_servers"] = [{"type": "url", "name": "hub", "url": "https://mcp.example.com/x"}]
    if holder.get("mcp_servers") and "mcp_toolset" not in kinds:
        holder["tools"] = [
            *(holder.get("tools") or ()),
            {"type": "mcp_toolset", "mcp_server_name": "hub"},
        ]
    if case.path.endswith(".deny_message"):
        given["events"] = [{**given["events"][0], "result": "deny"}]
    if case.path == "agent_version":
        given["agent_id"] = "agent_id"
    return given


async def _answer(case: Case, site: Site) -> Any:
    given = _completed(case)
    if given.get("agent_id") == "agent_id":
        given["agent_id"] = site.ids["agent_id"]
    result = case.call(**given)
    if hasattr(result, "__aiter__") and not asyncio.iscoroutine(result):
        page = await result
        return page.model_dump(mode="json") if hasattr(page, "model_dump") else {}
    answer = await result
    if isinstance(answer, anthropic.AsyncStream):
        await answer.close()
        return {}
    return answer.model_dump(mode="json")


def _is_echoed(case: Case, answer: Any) -> bool:
    """Whether the parameter comes back under its name, with all that was sent in it."""
    name = case.path.partition(".")[0].partition("[")[0].partition("=")[0]
    name = {"events": "data"}.get(name, name)
    return any(key == name and _fits(value, case.value) for key, value in _pairs(answer))


def _fits(answered: Any, sent: Any) -> bool:
    if isinstance(sent, dict) and isinstance(answered, dict):
        shown = {k: v for k, v in sent.items() if v != "agent_with_overrides"}
        return all(k in answered and _fits(answered[k], v) for k, v in shown.items())
    if isinstance(sent, list) and isinstance(answered, list):
        return all(any(_fits(a, s) for a in answered) for s in sent)
    if isinstance(answered, dict) and not isinstance(sent, dict):
        return sent in answered.values()  # a short form
    return bool(answered == sent)


def _pairs(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield key, inside
            yield from _pairs(inside)
    elif isinstance(value, list):
        for item in value:
            yield from _pairs(item)


async def classify(case: Case, site: Site) -> Row:
    """Send one case; return what became of it."""
    row = (case.method, case.path)
    seen = next((test for pattern, test in SEEN.items() if fnmatchcase(case.name, pattern)), None)
    try:
        answer = await _answer(case, site)
    except anthropic.NotFoundError as error:
        is_route = "route" in str(error.body) or "no such" in str(error.body)
        return Row(*row, "absent" if is_route else "SILENT", _sentence(error))
    except anthropic.APIStatusError as error:
        said = _sentence(error)
        is_clear = error.status_code == 400 and any(part in said for part in _SENTENCES)
        if seen is not None and not is_clear:
            return Row(*row, "right", seen)
        return Row(*row, "refused" if is_clear else "SILENT", said)
    if seen is not None:
        return Row(*row, "right", seen)
    if not case.path or _is_echoed(case, answer):
        return Row(*row, "right", "")
    return Row(*row, "SILENT", json.dumps(answer)[:200])


def _sentence(error: anthropic.APIStatusError) -> str:
    body: Any = error.body
    said = str(body["error"]["message"]) if isinstance(body, dict) else str(error)
    return re.sub(r"\b([a-z]+)_01[0-9A-Z]{24}\b", r"\1_...", said)


async def survey(sdk: anthropic.AsyncAnthropic) -> list[Row]:
    """Send every case."""
    site, rows = Site(sdk), []
    await site.renew()
    for name in (*SERVED, *NEIGHBOURS):
        for method, call in methods(getattr(sdk.beta, name), name):
            refused: list[str] = []
            if name in SERVED:
                await site.renew()  # no method finds the turns that another one began
            for case in cases(method, call, site.sample):
                if case.path.startswith(tuple(f"{p}{sign}" for p in refused for sign in ".=")):
                    continue
                if name in NEIGHBOURS and case.path:
                    break
                now = case
                if method.endswith((".update", "credentials.create")):
                    await site.renew(name)
                    now = replace(case, arguments=case.arguments | site.path_ids(case))
                row = await classify(now, site)
                rows.append(row)
                if row.result == "refused":
                    refused.append(case.path)
                if row.result == "absent":
                    break
                if method.endswith((".archive", ".delete")):
                    await site.renew()
                    break
    return rows


def document(rows: Sequence[Row]) -> str:
    """Return docs/api-coverage.md."""
    counts = Counter(row.result for row in rows)
    shown = ", ".join(f"{counts[result]} {result}" for result in ("right", "refused", "absent"))
    lines = [
        "# Coverage of the API",
        "",
        f"What this sidecar makes of every method and parameter of the Python SDK {anthropic.__version__}:",
        f"{shown}. Made by `python -m tests.api_coverage`, which sends each with the SDK;",
        "a test compares it, so that a newer SDK cannot bring something that is silently ignored.",
        "",
        "*right*: it is done; what has no trace in the answer names the test that sees its effect.",
        "*refused*: 400 with this sentence. *absent*: 404, there is no such route here. `betas` and",
        "`workspace_id`, which every method takes, are headers: no beta is needed, and the key belongs to",
        "the one workspace there is.",
        "",
    ]
    for name in (*SERVED, *NEIGHBOURS):
        own = [row for row in rows if row.method.partition(".")[0] == name]
        lines += [f"## {name}", "", "| Method | Parameter | Result | |", "|---|---|---|---|"]
        lines += [
            f"| `{row.method}` | {f'`{row.path}`' if row.path else ''} | {row.result} | {_cell(row)} |"
            for row in own
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row.result == "right":
        return f"`{row.remark}`" if row.remark else ""
    return "" if row.result == "absent" else row.remark.replace("|", "\\|")


async def surveyed() -> list[Row]:
    """Run a sidecar and send it every case."""
    with tempfile.TemporaryDirectory() as folder:
        async with sidecar_and_sdk(Path(folder)) as sdk:
            return await survey(sdk)


if __name__ == "__main__":
    made = asyncio.run(surveyed())
    for each in made:
        if each.result == "SILENT":
            sys.stderr.write(f"SILENT {each.method}({each.path}) {each.remark}\n")
    DOCUMENT.write_text(document(made), encoding="utf-8")
