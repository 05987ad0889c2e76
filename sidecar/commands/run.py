"""`opencode-sidecar run`: one session with one prompt, from the terminal."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from sidecar.commands import output
from sidecar.commands.gateway import as_command_error, load_settings
from sidecar.commands.run_view import JsonView, TerminalView, View
from sidecar.commands.session_client import SessionClient
from sidecar.config import Settings
from sidecar.errors import SidecarError

_TITLE_CHARS = 60
_LEAVE_AT_ONCE = 2
"""That many Ctrl-C: nothing is tidied up any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. `url` None: `SIDECAR_BASE_URL`, else a sidecar of our own."""

    prompt: str
    model: str | None = None
    system: str | None = None
    url: str | None = None
    data_dir: Path | None = None
    keep: bool = False
    as_json: bool = False
    is_verbose: bool = False


@dataclass(slots=True)
class Result:
    """How the turn ended."""

    model: str
    session_id: str = ""
    stop_reason: str | None = None
    error: str | None = None
    is_interrupted: bool = False
    usage: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """Interrupted, failed, or fine."""
        if self.is_interrupted:
            return output.EXIT_INTERRUPTED
        is_fine = self.error is None and self.stop_reason == "end_turn"
        return output.EXIT_OK if is_fine else output.EXIT_FAILED

    def note(self, event: Mapping[str, Any]) -> bool:
        """Take an event; return whether the session has come to rest."""
        kind = event["type"]
        if kind == "session.error":
            retry = event["error"].get("retry_status", {}).get("type")
            self.error = None if retry == "retrying" else event["error"]["message"]
        elif kind == "session.usage":
            self.usage = event["usage"]
        elif kind == "session.status_idle":
            self.stop_reason = event["stop_reason"]["type"]
            return True
        elif kind in {"session.status_terminated", "session.deleted"}:
            self.error = self.error or "the session ended"
            return True
        return False


def main(options: Options) -> int:
    """Run the command; return the exit code. Raises CommandError."""
    output.quiet_logs(is_verbose=options.is_verbose)
    prompt = _read_prompt(options)
    if not prompt.strip():
        raise output.CommandError("the prompt is empty", exit_code=output.EXIT_USAGE)
    view: View = JsonView() if options.as_json else TerminalView(console=output.stderr())
    try:
        result = asyncio.run(_run(options, prompt, view))
    except asyncio.CancelledError:
        return output.EXIT_INTERRUPTED
    except SidecarError as error:
        raise as_command_error(error) from error
    finally:
        view.close()
    if isinstance(view, JsonView):
        view.line(
            {
                "type": "run.result",
                "ok": result.exit_code == output.EXIT_OK,
                "exit_code": result.exit_code,
                "session_id": result.session_id,
                "model": result.model,
                "stop_reason": result.stop_reason,
                "error": result.error,
                "usage": result.usage,
            }
        )
    elif result.stop_reason == "requires_action":
        output.stderr().print("the session waits for a confirmation or a tool of the client")
    return result.exit_code


def _read_prompt(options: Options) -> str:
    try:
        prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
        prompt.encode()  # Python lets undecodable bytes pass as halves of surrogate pairs
    except UnicodeError as error:
        raise output.CommandError(
            f"the prompt is not text in {sys.stdin.encoding}; is the locale right (PYTHONIOENCODING)?",
            exit_code=output.EXIT_USAGE,
        ) from error
    return prompt


async def _run(options: Options, prompt: str, view: View) -> Result:
    async with AsyncExitStack() as stack:
        interrupts = _Interrupts(view)
        stack.callback(interrupts.close)
        url, key, default_model = await stack.enter_async_context(_sidecar(options, view))
        client = await stack.enter_async_context(SessionClient(url, api_key=key))
        model = options.model or default_model or await client.first_model()
        result = Result(model)
        try:
            await client.open(
                model=model, system=options.system, title=prompt.strip()[:_TITLE_CHARS]
            )
            result.session_id = client.session_id
            view.remark(f"{model} · {client.session_id}")
            interrupts.client = client
            async with client.stream() as events:
                await client.prompt(prompt)
                view.waiting("waiting for opencode")
                async for event in events:
                    view.event(event)
                    if result.note(event):
                        break
        finally:
            result.is_interrupted = interrupts.count > 0
            if not options.keep and interrupts.count < _LEAVE_AT_ONCE:
                await client.clean_up()
        return result


class _Interrupts:
    """Ctrl-C: the first interrupts the turn, the second (or the first before there is one) leaves."""

    def __init__(self, view: View) -> None:
        self.client: SessionClient | None = None
        self.count = 0
        self._view = view
        self._main = asyncio.current_task()
        self._sending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def close(self) -> None:
        """Give Ctrl-C back its usual meaning."""
        self._loop.remove_signal_handler(signal.SIGINT)
        if self._sending is not None:
            self._sending.cancel()

    def _interrupt(self) -> None:
        self.count += 1
        if self.count == 1 and self.client is not None:
            self._view.remark("interrupting; Ctrl-C again leaves at once")
            self._sending = self._loop.create_task(self._send(self.client))
        elif self._main is not None:
            self._main.cancel()

    async def _send(self, client: SessionClient) -> None:
        try:
            await client.interrupt()
        except output.CommandError as error:
            self._view.remark(f"cannot interrupt: {error.message}")
            if self._main is not None:
                self._main.cancel()


@asynccontextmanager
async def _sidecar(
    options: Options, view: View
) -> AsyncIterator[tuple[str, str | None, str | None]]:
    """Yield (URL, key, default model) of the sidecar to talk to."""
    url = options.url or (os.environ.get("SIDECAR_BASE_URL") or "").strip()
    if url:
        if options.data_dir is not None:
            raise output.CommandError(
                "--data-dir is for a sidecar started here, not for a running one",
                exit_code=output.EXIT_USAGE,
            )
        yield url, (os.environ.get("SIDECAR_API_KEY") or "").strip() or None, None
        return
    with tempfile.TemporaryDirectory(
        prefix="opencode-sidecar-run-", ignore_cleanup_errors=True
    ) as scratch:
        settings = own_settings(load_settings(), options.data_dir or Path(scratch))
        from sidecar.app import running  # noqa: PLC0415  # the server, only when it is needed

        view.waiting("starting a sidecar")
        async with running(settings) as sidecar:
            if sidecar.gateway.is_demo:
                view.remark("LITELLM_BASE_URL is not set: the DEMO gateway gives scripted answers")
            key = settings.http.runtime_api_key
            view.waiting("starting opencode")
            await sidecar.supervisor.wait_ready(settings.child.start_timeout_seconds)
            default = settings.gateway.default_model
            yield sidecar.url, key.get_secret_value() if key else None, default


def own_settings(settings: Settings, data_dir: Path) -> Settings:
    """Return the settings for a private sidecar: free ports, a key of its own, its own data."""
    return settings.model_copy(
        update={
            "http": settings.http.model_copy(
                update={
                    "host": "127.0.0.1",
                    "port": 0,
                    "runtime_api_key": SecretStr(secrets.token_urlsafe(24)),
                }
            ),
            "storage": settings.storage.model_copy(
                update={"data_dir": data_dir, "db_path": None, "workdir": None}
            ),
            "child": settings.child.model_copy(
                update={"port": 0, "url": None, "restart_command": None, "drain_seconds": 1.0}
            ),
            "admin": settings.admin.model_copy(update={"is_enabled": False}),
            "relay": settings.relay.model_copy(
                update={"host": "127.0.0.1", "port": 0, "token": None, "url": None}
            ),
        }
    )
