"""How a session looks on the terminal: the answer on stdout, everything else on stderr.

Text appears as it is written (`event_delta`); the finished message then adds only what was not shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from sidecar.commands.output import harmless

_TOOL_EVENTS = frozenset({"agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"})
_RESULT_EVENTS = frozenset({"agent.tool_result", "agent.mcp_tool_result"})
_MAIN_ARGUMENTS = ("command", "filePath", "file_path", "path", "pattern", "url", "query")
"""The argument of a built-in tool that says most about the call."""
_LINE_CHARS = 100
_RESULT_LINES = 3


class View(Protocol):
    """Shows the events of a session."""

    def waiting(self, what: str) -> None:
        """Say what is being waited for."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Show one event, or nothing."""

    def remark(self, text: str) -> None:
        """Show a remark that is not an event."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class TerminalView:
    """For people. The spinner runs only while nothing is being written, and only on a terminal."""

    def __init__(self, *, out: TextIO = sys.stdout, console: Console) -> None:
        self._out = out
        self._console = console
        self._status: Status | None = None
        self._shown: dict[str, str] = {}
        self._is_mid_line = False

    def waiting(self, what: str) -> None:
        """Show the spinner."""
        if not self._console.is_terminal or self._is_mid_line:
            return
        if self._status is None:
            self._status = self._console.status(escape(what))
            self._status.start()
        else:
            self._status.update(escape(what))

    def event(self, event: Mapping[str, Any]) -> None:
        """Show what people want to see of an event."""
        kind = event["type"]
        if kind == "event_delta":
            self._delta(event)
        elif kind == "agent.message":
            self._message(event)
        elif kind in _TOOL_EVENTS:
            self._line(f"[cyan]⚙ {_clean(event['name'])}[/cyan] {_clean(_summary(event['input']))}")
            self.waiting(f"{event['name']} is running")
        elif kind in _RESULT_EVENTS:
            self._result(event)
        elif kind == "agent.thinking":
            self.waiting("thinking")
        elif kind == "span.model_request_start":
            self.waiting("the model is working")
        elif kind == "session.status_rescheduled":
            self._line("[yellow]the gateway asked to wait; trying again[/yellow]")
        elif kind == "session.error":
            self._line(f"[red]✗ {_clean(event['error']['message'])}[/red]")

    def remark(self, text: str) -> None:
        """Print a line."""
        self._line(f"[dim]{_clean(text)}[/dim]")

    def close(self) -> None:
        """End the spinner and an unfinished line."""
        self._pause()
        self._end_line()

    def _delta(self, event: Mapping[str, Any]) -> None:
        text = event["delta"].get("content", {}).get("text", "")
        self._shown[event["event_id"]] = self._shown.get(event["event_id"], "") + text
        self._write(text)

    def _message(self, event: Mapping[str, Any]) -> None:
        text = "".join(block["text"] for block in event["content"] if block["type"] == "text")
        self._write(text.removeprefix(self._shown.pop(event["id"], "")))
        self._end_line()
        self.waiting("working")

    def _result(self, event: Mapping[str, Any]) -> None:
        content = event.get("content") or []
        text = "\n".join(block["text"] for block in content if block["type"] == "text")
        lines = text.strip().splitlines()
        style = "red" if event.get("is_error") else "dim"
        for line in lines[:_RESULT_LINES]:
            self._line(f"[{style}]  {_clean(line)}[/{style}]")
        if len(lines) > _RESULT_LINES:
            self._line(f"[dim]  … {len(lines) - _RESULT_LINES} more lines[/dim]")
        self.waiting("working")

    def _write(self, text: str) -> None:
        text = harmless(text)
        if not text:
            return
        self._pause()
        self._out.write(text)
        self._out.flush()
        self._is_mid_line = not text.endswith("\n")

    def _line(self, markup: str) -> None:
        self._pause()
        self._end_line()
        self._console.print(markup, soft_wrap=True)

    def _end_line(self) -> None:
        if self._is_mid_line:
            self._out.write("\n")
            self._out.flush()
            self._is_mid_line = False

    def _pause(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class JsonView:
    """For programs: each event of the log is one line, as the API sends it. Previews are left out."""

    def __init__(self, *, out: TextIO = sys.stdout) -> None:
        self._out = out

    def waiting(self, what: str) -> None:
        """Say nothing."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Print the event if it is one that is stored."""
        if event["type"] not in {"event_start", "event_delta"}:
            self.line(event)

    def remark(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing is left open."""

    def line(self, value: Mapping[str, Any]) -> None:
        """Print one object on one line."""
        self._out.write(json.dumps(value, separators=(",", ":")) + "\n")
        self._out.flush()


def _clean(text: str) -> str:
    line = " ".join(harmless(text).split())
    return escape(line if len(line) <= _LINE_CHARS else f"{line[:_LINE_CHARS]}…")


def _summary(arguments: Mapping[str, Any]) -> str:
    for name in _MAIN_ARGUMENTS:
        if isinstance(arguments.get(name), str):
            return str(arguments[name])
    with suppress(TypeError, ValueError):
        return json.dumps(arguments, ensure_ascii=False) if arguments else ""
    return ""
