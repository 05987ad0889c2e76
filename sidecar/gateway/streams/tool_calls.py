"""Which call each fragment of a chat completion's tool calls belongs to.

OpenAI's rule: the first fragment of a call has `index`, `id` and `function.name`, the others `index` and
further arguments. Real gateways give all parallel calls index 0 (Ollama, some vLLM parsers), no id (GLM,
NIM), the name in a later fragment (Azure), a new id for each fragment, whole arguments as an object, or the
name with the namespace in which the model's template puts its tools (gpt-oss, Kimi).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

_MAX_CALLS = 10_000


@dataclass(slots=True)
class _Call:
    index: int
    """As sent to the child; never shared by two calls."""
    source_index: int | None
    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list)
    is_sent: bool = False

    @property
    def has_begun(self) -> bool:
        return any(part.strip() for part in self.arguments)

    @property
    def is_complete(self) -> bool:
        try:
            json.loads("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True

    def may_repeat_name(self, name: str, arguments: str) -> bool:
        """Whether a fragment that names this tool again still belongs to the call."""
        has_arguments = self.has_begun or bool(arguments.strip())
        return name == self.name and has_arguments and not self.is_complete

    def is_followed_by(self, arguments: str) -> bool:
        """Whether whole arguments under the same id are those of a further call."""
        own = "".join(self.arguments)
        return self.is_complete and arguments != own and _is_object(arguments)


class ToolCalls:
    """Assigns fragments to calls, and makes of each what opencode's parser understands."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    @property
    def is_empty(self) -> bool:
        """Whether there was no call."""
        return not self._calls

    def take(self, fragment: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fragment as it should be sent: itself, another, or None while its call has no name."""
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        index = _index(fragment.get("index"))
        id_, name = _text(fragment.get("id")), _name(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        call = self._find(index, id_, name, arguments) or self._begin(index)
        # Two calls with one id would be one to opencode.
        if call.id is None and id_ is not None and all(each.id != id_ for each in self._calls):
            call.id = id_
        call.name = call.name or name
        call.arguments.append(arguments)
        if call.name is None:
            return None
        if call.is_sent:
            is_same = fragment.get("index") == call.index
            has_text = function.get("arguments") is None or function["arguments"] == arguments
            if is_same and has_text and isinstance(fragment.get("function"), dict):
                return fragment
            return {"index": call.index, "function": {"arguments": arguments}}
        call.is_sent = True
        return self._first(call, fragment)

    def take_nameless(self) -> list[dict[str, Any]]:
        """Return the calls that never got a name: opencode answers the model that there is no such tool."""
        nameless = [call for call in self._calls if not call.is_sent]
        for call in nameless:
            call.is_sent, call.name = True, ""
        return [self._first(call, {}) for call in nameless]

    def _first(self, call: _Call, fragment: dict[str, Any]) -> dict[str, Any]:
        """Return the fragment with which the call begins for the child."""
        call.id = call.id or new_call_id()
        wanted = {"name": call.name, "arguments": "".join(call.arguments)}
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        is_right = (fragment.get("index"), fragment.get("id")) == (call.index, call.id)
        if is_right and {"arguments": "", **function} == {**function, **wanted}:
            return fragment
        return {
            **fragment,
            "index": call.index,
            "id": call.id,
            "type": "function",
            "function": {**function, **wanted},
        }

    def _find(
        self, index: int | None, id_: str | None, name: str | None, arguments: str
    ) -> _Call | None:
        """Return the call that the fragment goes on with, None when it begins one."""
        known = next((call for call in reversed(self._calls) if id_ and call.id == id_), None)
        if known is not None and (index in {None, known.source_index} or name is None):
            return None if name and known.is_followed_by(arguments) else known
        same = [call for call in self._calls if index is None or call.source_index == index]
        if not same:
            return None
        last = same[-1]
        if last.name is None or name is None:
            # A name that comes late, or further arguments; an id of its own begins a call only when
            # the one before is complete.
            is_other = id_ is not None and last.id is not None and last.is_complete
            return None if is_other else last
        if id_ is None or last.id is None or known is None:
            return last if last.may_repeat_name(name, arguments) else None
        return None

    def _begin(self, index: int | None) -> _Call:
        taken = {call.index for call in self._calls}
        free = index if index is not None and index not in taken else max(taken, default=-1) + 1
        call = _Call(free, index)
        self._calls.append(call)
        return call


def new_call_id() -> str:
    """Return an id for a call that came without one."""
    return f"call_{secrets.token_hex(12)}"


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < _MAX_CALLS else None


def _text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _name(value: object) -> str | None:
    """Return the name of a tool as it was offered: models also write `functions.bash`, and blanks."""
    name = _text(value)
    return name.strip().removeprefix("functions.") or None if name else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _arguments(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
