"""The little language that scripts the demo gateway: directives inside the user's message. Pure.

    [[say: text]]                 text
    [[think: text]]               reasoning before the text
    [[repeat: ha 5]]              five identical chunks
    [[slow: 20x0.1 tick]]         twenty numbered chunks, 0.1 s before each
    [[bash: command]]             a call of the tool `bash`
    [[tool: name {json}]]         a call of any tool offered as `name` or `..._name`
    [[tools: a {json} ;; b {}]]   several calls in one response
    [[cached: 7]]                 report seven prompt tokens as read from the cache
    [[error: 429]]                that HTTP status, always; `[[error: 500 x2]]` twice, then go on;
                                  what follows is its message: `[[error: 400 no such thing]]`
    [[refuse]] [[hang]] [[cut]]   refusal; silence; connection dropped - after what stands before
    [[non-sse]]                   a streaming call gets plain JSON with status 200
    [[page]]                      it gets a page of HTML with status 200
    [[then]]                      begins the next step, taken once the tool results are there

Text around directives is for people and ignored. Without any directive a line that starts with `$ `
is a bash command; lines that say "call it again" repeat the last tool calls they show; anything else gets
a friendly answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

DEFAULT_CHUNK = "chunk"


@dataclass(frozen=True, slots=True)
class Say:
    """Text, in a few chunks."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    """Reasoning text."""

    text: str


@dataclass(frozen=True, slots=True)
class Chunks:
    """Exact text chunks with a pause, seconds, before each."""

    chunks: tuple[str, ...]
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fail:
    """An HTTP error; `times` None means always, an empty message one that names the status."""

    status: int
    times: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Cached:
    """Prompt tokens reported as read from the provider's cache."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A directive without argument: refuse, hang, cut, non-sse, page."""

    name: str


Action = Say | Think | Chunks | Call | Fail | Cached | Mark
Step = tuple[Action, ...]

_MARKS = frozenset({"refuse", "hang", "cut", "non-sse", "page"})


class ScriptError(ValueError):
    """A directive cannot be understood; the message says which and why."""


def has_directives(text: str) -> bool:
    """Whether the text holds at least one directive."""
    return next(_directives(text), None) is not None


def parse(text: str) -> list[Step] | None:
    """Return the steps scripted by a user message, None for plain text. Raises ScriptError."""
    steps: list[list[Action]] = [[]]
    found = False
    for name, argument in _directives(text):
        found = True
        if name == "then":
            steps.append([])
        else:
            steps[-1].extend(_actions(name, argument))
    if found:
        return [tuple(step) for step in steps]
    for line in text.splitlines():
        if line.startswith("$ ") and line[2:].strip():
            return [(Call("bash", bash_arguments(line[2:].strip())),)]
    return None


def bash_arguments(command: str) -> dict[str, Any]:
    """Return what opencode's bash tool requires: a command and a description."""
    return {"command": command, "description": f"Runs {command.split(maxsplit=1)[0]}"}


def _directives(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, argument). Doubled brackets nest, so `[[bash: [[ -f x ]] && ls]]` is one."""
    position = text.find("[[")
    while position >= 0:
        end = _closing(text, position)
        if end is None:
            return
        name, _, argument = text[position + 2 : end].partition(":")
        if name.strip() in _DIRECTIVES:
            yield name.strip(), argument.strip()
            position = text.find("[[", end + 2)
        else:
            position = text.find("[[", position + 2)


def _closing(text: str, start: int) -> int | None:
    depth = 0
    position = start
    while position < len(text):
        pair = text[position : position + 2]
        if pair == "[[":
            depth += 1
        elif pair == "]]":
            depth -= 1
            if depth == 0:
                return position
        else:
            position += 1
            continue
        position += 2
    return None


def _actions(name: str, argument: str) -> list[Action]:
    if name in _MARKS:
        return [Mark(name)]
    if name in {"tool", "tools"}:
        return [_call(part.strip()) for part in argument.split(";;")]
    try:
        return [_WITH_ARGUMENT[name](argument)]
    except (ValueError, IndexError) as error:
        raise ScriptError(f"[[{name}: {argument}]] cannot be read: {error}") from error


def _bash(argument: str) -> Action:
    return Call("bash", bash_arguments(argument))


def _repeat(argument: str) -> Action:
    chunk, _, count = argument.rpartition(" ")
    return Chunks((chunk,) * int(count))


def _slow(argument: str) -> Action:
    timing, _, word = argument.partition(" ")
    count, _, pause = timing.partition("x")
    word = word.strip() or DEFAULT_CHUNK
    return Chunks(tuple(f"{word}{n + 1} " for n in range(int(count))), float(pause))


def _error(argument: str) -> Action:
    status, _, rest = argument.partition(" ")
    times, _, message = rest.strip().partition(" ")
    is_counted = times.startswith("x") and times[1:].isdecimal()
    if not 400 <= int(status) <= 599:
        raise ValueError("the status must be from 400 to 599")
    if not is_counted:
        return Fail(int(status), None, rest.strip())
    return Fail(int(status), int(times[1:]), message.strip())


def _call(text: str) -> Call:
    name, _, raw = text.partition(" ")
    try:
        arguments = json.loads(raw or "{}")
    except ValueError as error:
        raise ScriptError(f"arguments of tool {name!r} are not JSON: {error}") from error
    if not name or not isinstance(arguments, dict):
        raise ScriptError(f"a tool call is written as: name {{json object}}, not {text!r}")
    return Call(name, arguments)


_WITH_ARGUMENT: dict[str, Callable[[str], Action]] = {
    "say": Say,
    "think": Think,
    "bash": _bash,
    "repeat": _repeat,
    "slow": _slow,
    "error": _error,
    "cached": lambda argument: Cached(int(argument)),
}
_DIRECTIVES = frozenset({*_MARKS, *_WITH_ARGUMENT, "tool", "tools", "then"})
