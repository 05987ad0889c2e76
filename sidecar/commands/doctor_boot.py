"""The doctor's checks with the real opencode, in a scratch directory with ports of its own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import aiohttp

from sidecar.commands.doctor_checks import Check, Finding, failure, ok, warning
from sidecar.commands.doctor_gateway import GatewayChecks
from sidecar.commands.gateway import GatewayAccess
from sidecar.commands.output import CommandError
from sidecar.commands.run import Result, own_settings
from sidecar.commands.session_client import SessionClient
from sidecar.config import Settings
from sidecar.errors import SidecarError
from sidecar.gateway.relay import Relay
from sidecar.managed.agents.model_registry import model_entry
from sidecar.naming import GATEWAY_PROVIDER
from sidecar.opencode.config_file import ConfigFile, render
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.provider import ModelEntry
from sidecar.opencode.supervisor import Supervisor

_BOOT_SECONDS = 60.0
_STOP_SECONDS = 15.0
_TURN_SECONDS = 180.0
_PROMPT = "Answer with the one word: pong"


class BootChecks:
    """A scratch instance that serves no client; `scratch` is removed by the caller."""

    def __init__(
        self, access: GatewayAccess, gateway: GatewayChecks, settings: Settings, scratch: Path
    ) -> None:
        self._access = access
        self._gateway = gateway
        self._is_attached = settings.child.url is not None
        self._settings = own_settings(settings, scratch / "turn")
        self._scratch = scratch / "boot"

    def all(self, *, is_quick: bool, with_turn: bool) -> list[Check]:
        """Return them in order."""
        checks = [Check("config", self._renders)]
        if self._is_attached:
            # There may be no opencode on this machine at all.
            return [*checks, *([Check("turn", _not_here)] if with_turn else [])]
        if not is_quick:
            checks.append(Check("scratch opencode", self._boots, _BOOT_SECONDS + _STOP_SECONDS))
        if with_turn:
            checks.append(Check("turn", self._turn, _TURN_SECONDS + _BOOT_SECONDS))
        return checks

    async def _renders(self) -> Finding:
        models = self._models()
        try:
            content = render(models, default_model=self._default())
        except SidecarError as error:
            return failure(
                error.message, "the gateway says something odd about that model; exclude it"
            )
        return ok(f"opencode's config renders: {len(models)} models, {len(content)} bytes")

    async def _boots(self) -> Finding:
        child = self._settings.child.model_copy(
            update={"start_timeout_seconds": _BOOT_SECONDS, "crash_loop_limit": 1}
        )
        files = ChildFiles(self._scratch)
        await asyncio.to_thread(files.prepare)
        config_file = ConfigFile(files.config_file)
        await config_file.register(self._models(), default_model=self._default())
        relay = Relay(
            settings=self._settings.gateway,
            base_url=self._access.url,
            api_key=self._access.key,
        )
        await relay.start()
        async with aiohttp.ClientSession() as session:
            supervisor = Supervisor(
                settings=child,
                files=files,
                session=session,
                relay=lambda: RelayAccess(relay.url, relay.token),
                inherited=os.environ,
            )
            try:
                return await self._boot(supervisor)
            finally:
                await supervisor.stop()
                await relay.close()

    async def _boot(self, supervisor: Supervisor) -> Finding:
        began = time.monotonic()
        await supervisor.start()
        fix = "run `opencode-sidecar doctor --verbose` for its own words"
        try:
            client = await supervisor.wait_ready(_BOOT_SECONDS)
        except SidecarError as error:
            return failure(error.message, fix)
        booted = time.monotonic() - began
        directory = self._scratch / "workspace"
        directory.mkdir(parents=True)
        try:
            answer = await client.providers(directory.resolve())
        except SidecarError as error:
            return failure(f"opencode does not load the config: {error.message}", fix)
        providers = {p.get("id"): p for p in answer.get("providers", [])}
        loaded = set((providers.get(GATEWAY_PROVIDER) or {}).get("models") or {})
        if missing := sorted(self._models().keys() - loaded):
            return failure(
                f"opencode loads the config without {len(missing)} models, such as {missing[0]!r}",
                "exclude them with SIDECAR_GATEWAY_EXCLUDE and report it",
            )
        version = supervisor.version
        return ok(f"opencode {version} boots in {booted:.1f} s and loads all {len(loaded)} models")

    async def _turn(self) -> Finding:
        from sidecar.app import running  # noqa: PLC0415  # the server, only when it is needed

        model = self._default()
        if model is None:
            return failure("no model to ask", "see the lines above")
        settings = self._settings.model_copy(
            update={
                "gateway": self._settings.gateway.model_copy(
                    update={"base_url": self._access.url}  # also the demo gateway's
                )
            }
        )
        began = time.monotonic()
        try:
            async with running(settings) as sidecar:
                await sidecar.supervisor.wait_ready(_BOOT_SECONDS)
                key = settings.http.runtime_api_key
                result, text = await _one_turn(
                    sidecar.url, key.get_secret_value() if key else None, model
                )
        except (SidecarError, CommandError) as error:
            return failure(f"{model}: {error.message}", "see the lines above")
        if result.error is not None or result.stop_reason != "end_turn":
            why = result.error or f"it stopped with {result.stop_reason}"
            return failure(f"{model}: {why}", f'try `opencode-sidecar run -m {model} "hello"`')
        seconds = time.monotonic() - began
        return ok(f"{model} answered {text[:40]!r}; boot and turn took {seconds:.1f} s")

    def _models(self) -> dict[str, ModelEntry]:
        snapshot = self._gateway.snapshot
        if snapshot is None:
            return {}
        return {name: model_entry(snapshot.entries[name]) for name in snapshot.listed}

    def _default(self) -> str | None:
        return self._gateway.default_model


async def _not_here() -> Finding:
    return warning(
        "not possible for an opencode that runs elsewhere (OPENCODE_URL)",
        'use `opencode-sidecar run --url URL "hello"` against the running sidecar',
    )


async def _one_turn(url: str, key: str | None, model: str) -> tuple[Result, str]:
    result, text = Result(model), ""
    async with SessionClient(url, api_key=key) as client:
        await client.open(model=model, system=None, title="doctor")
        async with client.stream() as events:
            await client.prompt(_PROMPT)
            async for event in events:
                if event["type"] == "agent.message":
                    text += "".join(b["text"] for b in event["content"] if b["type"] == "text")
                if result.note(event):
                    break
    return result, " ".join(text.split())
