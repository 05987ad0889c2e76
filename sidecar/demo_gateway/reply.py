"""From a conversation to the pieces of one answer, before any wire format. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.demo_gateway import script
from sidecar.demo_gateway.conversation import Conversation

_QUOTE_CHARS = 400
_PIECES = 4
_AGAIN = "call it again"
"""In a prompt without directives: the lines that say so name the calls to repeat."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text chunk, `pause_seconds` after the piece before it."""

    text: str
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Thought:
    """One reasoning chunk."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call; `id` is unique inside the conversation."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The answer stops here: it stays silent (`hang`), or its connection is dropped (`cut`)."""

    kind: Literal["hang", "cut"]


Piece = Text | Thought | ToolCall | Fault
Finish = Literal["stop", "tool_calls", "refusal"]


@dataclass(slots=True)
class Reply:
    """One answer. Token numbers are words: deterministic, not realistic."""

    pieces: list[Piece] = field(default_factory=list)
    finish: Finish = "stop"
    failure: script.Fail | None = None
    is_plain_json: bool = False
    is_page: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Words of everything written, at least 1."""
        written = (
            piece.arguments if isinstance(piece, ToolCall) else piece.text
            for piece in self.pieces
            if not isinstance(piece, Fault)
        )
        return max(1, sum(len(text.split()) for text in written))


def compose(conversation: Conversation) -> Reply:
    """Return the answer to the conversation's last prompt at its present step."""
    reply = Reply(input_tokens=conversation.input_words)
    if conversation.wants_title:
        reply.pieces = [Text("Demo conversation")]
        return reply
    try:
        steps = script.parse(conversation.prompt)
    except script.ScriptError as error:
        reply.pieces = _in_pieces(f"The demo script is wrong: {error}")
        return reply
    if steps is not None and conversation.rounds < len(steps):
        for number, action in enumerate(steps[conversation.rounds]):
            _perform(action, number, conversation, reply)
    elif conversation.rounds:
        reply.pieces = _in_pieces(_quote(conversation.last_results))
    elif _AGAIN in conversation.prompt:
        _repeat(conversation, reply)
    else:
        reply.pieces = _in_pieces(_greeting(conversation))
    return reply


def _perform(action: script.Action, number: int, talk: Conversation, reply: Reply) -> None:
    match action:
        case script.Say(text):
            reply.pieces += _in_pieces(text)
        case script.Think(text):
            reply.pieces.append(Thought(text))
        case script.Chunks(chunks, pause_seconds):
            reply.pieces += [Text(chunk, pause_seconds) for chunk in chunks]
        case script.Call(tool, arguments):
            _call(tool, arguments, f"call_{talk.key[:12]}_{number}", talk, reply)
        case script.Fail():
            reply.failure = action
        case script.Cached(tokens):
            reply.cached_tokens = tokens
        case script.Mark("refuse"):
            reply.finish = "refusal"
        case script.Mark("non-sse"):
            reply.is_plain_json = True
        case script.Mark("page"):
            reply.is_page = True
        case script.Mark(kind):
            reply.pieces.append(Fault("hang" if kind == "hang" else "cut"))


def _call(
    tool: str, arguments: dict[str, Any], call_id: str, talk: Conversation, reply: Reply
) -> None:
    name = talk.offered(tool)
    if name is None:
        offered = ", ".join(talk.tool_names) or "none"
        reply.pieces += _in_pieces(f"No tool named {tool} is offered (offered: {offered}).")
        return
    reply.pieces.append(ToolCall(call_id, name, json.dumps(arguments)))
    reply.finish = "tool_calls"


def _repeat(talk: Conversation, reply: Reply) -> None:
    """Make those of the last calls again, of which a line of the prompt says so and shows an argument."""
    lines = [line for line in talk.prompt.splitlines() if _AGAIN in line]
    for number, (name, text) in enumerate(talk.last_calls):
        arguments = json.loads(text)
        shown = [json.dumps(value) for value in arguments.values()] or [name]
        if any(value in line for value in shown for line in lines):
            _call(name, arguments, f"call_{talk.key[:12]}_{number}", talk, reply)


def _greeting(conversation: Conversation) -> str:
    said = " ".join(conversation.prompt.split())
    shown = said if len(said) <= _QUOTE_CHARS else f"{said[:_QUOTE_CHARS]}..."
    return (
        f"Hello from the demo gateway. You asked {conversation.model}: {shown!r}. "
        "I am a script, not a model; try a line such as '$ ls' to see a tool run."
    )


def _quote(results: list[str]) -> str:
    shown = "\n".join(result.strip() for result in results)
    if len(shown) > _QUOTE_CHARS:
        shown = f"{shown[:_QUOTE_CHARS]}..."
    return f"The tool answered:\n{shown}" if shown else "The tool answered nothing."


def _in_pieces(text: str) -> list[Piece]:
    """Cut text at blanks into a few chunks whose concatenation is the text."""
    words = re.findall(r"\S+\s*|\s+", text)
    size = max(1, -(-len(words) // _PIECES))
    return [Text("".join(words[at : at + size])) for at in range(0, len(words), size)]
