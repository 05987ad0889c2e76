"""Which call each fragment of a chat completion's tool calls belongs to.

OpenAI's rule: the first fragment of a call has `index`, `id` and `function.name`, the others `index` and
further arguments. Real gateways give all parallel calls index 0 (Ollama, some vLLM parsers), no id (GLM,
NIM), the name in a later fragment (Azure), a new id for each fragment, whole arguments as an object, or the
name with the namespace in which the model's template puts its tools (gpt-oss, Kimi).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sidecar.wire.scalars import read_whole

_MAX_CALLS = 10_000
_NO_JSON = object()


@dataclass(frozen=True, slots=True)
class _Fragment:
    """A fragment of a call, or in a message a whole call, as it came and as it is meant."""

    raw: dict[str, Any]
    index: int | None
    id: str | None
    name: str | None
    arguments: str

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        function = _function(raw)
        return cls(
            raw,
            _index(raw.get("index")),
            _text(raw.get("id")),
            _name(function.get("name")),
            _arguments(function.get("arguments")),
        )


@dataclass(slots=True)
class _Call:
    index: int
    """As sent to the child; never shared by two calls."""
    source_index: int | None
    id: str | None = None
    has_own_id: bool = False
    """Whether the gateway gave the id."""
    name: str | None = None
    parts: list[str] = field(default_factory=list)
    """Of the arguments."""
    is_sent: bool = False

    @property
    def arguments(self) -> str:
        return "".join(self.parts)

    @property
    def has_begun(self) -> bool:
        return any(part.strip() for part in self.parts)

    @property
    def is_complete(self) -> bool:
        return _value(self.arguments) is not _NO_JSON

    def may_repeat_name(self, fragment: _Fragment) -> bool:
        """Whether a fragment that names a tool still belongs to the call."""
        has_arguments = self.has_begun or bool(fragment.arguments.strip())
        return fragment.name == self.name and has_arguments and not self.is_complete

    def is_followed_by(self, fragment: _Fragment) -> bool:
        """Whether whole arguments under the same id are those of a further call."""
        is_object = isinstance(_value(fragment.arguments), dict)
        return is_object and self.is_complete and fragment.arguments != self.arguments

    def may_be(self, whole: _Fragment) -> bool:
        """Whether a whole call in a message, which has all its arguments so far, is this one."""
        if whole.id is not None and self.has_own_id and whole.id != self.id:
            return False
        if whole.name is not None and self.name not in {None, whole.name}:
            return False
        own, other = self.arguments, whole.arguments
        if other.startswith(own) or own.startswith(other):
            return True
        value = _value(own)
        return value is _NO_JSON or value == _value(other)

    def missing(self, whole: _Fragment) -> str:
        """Return the arguments of such a call that were not passed on yet."""
        own, other = self.arguments, whole.arguments
        if other.startswith(own):
            return other[len(own) :]
        return "" if own.startswith(other) or self.is_complete else other


class ToolCalls:
    """Assigns fragments to calls, and makes of each what opencode's parser understands."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    @property
    def is_empty(self) -> bool:
        """Whether there was no call."""
        return not self._calls

    def take(self, raw: dict[str, Any]) -> dict[str, Any] | None:
        """Return the fragment as it should be sent: itself, another, or None while its call has no name."""
        fragment = _Fragment.of(raw)
        return self._add(self._find(fragment) or self._begin(fragment.index), fragment)

    def take_whole(self, place: int, raw: dict[str, Any]) -> dict[str, Any] | None:
        """Return what the call at this place of a message adds to what was passed on, None when nothing.

        Such a call has all its arguments so far.
        """
        whole = _Fragment.of(raw)
        known = [call for call in self._calls if whole.id and call.id == whole.id]
        candidates = [*self._calls[place : place + 1], *known]
        call = next((each for each in candidates if each.may_be(whole)), None)
        if call is None:
            return self._add(self._begin(None), whole)
        missing = call.missing(whole)
        if not missing and call.is_sent:
            return None
        function = {**_function(raw), "arguments": missing}
        rest = {**raw, "index": call.index, "function": function}
        return self._add(call, replace(whole, raw=rest, arguments=missing))

    def _add(self, call: _Call, fragment: _Fragment) -> dict[str, Any] | None:
        raw, function = fragment.raw, _function(fragment.raw)
        # Two calls with one id would be one to opencode.
        is_taken = any(each.id == fragment.id for each in self._calls)
        if call.id is None and fragment.id is not None and not is_taken:
            call.id, call.has_own_id = fragment.id, True
        call.name = call.name or fragment.name
        call.parts.append(fragment.arguments)
        if call.name is None:
            return None
        if call.is_sent:
            is_same = raw.get("index") == call.index
            has_text = (
                function.get("arguments") is None or fragment.arguments == function["arguments"]
            )
            if is_same and has_text and isinstance(raw.get("function"), dict):
                return raw
            return {"index": call.index, "function": {"arguments": fragment.arguments}}
        call.is_sent = True
        return self._first(call, raw)

    def take_nameless(self) -> list[dict[str, Any]]:
        """Return the calls that never got a name: opencode answers the model that there is no such tool."""
        nameless = [call for call in self._calls if not call.is_sent]
        for call in nameless:
            call.is_sent, call.name = True, ""
        return [self._first(call, {}) for call in nameless]

    def _first(self, call: _Call, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the fragment with which the call begins for the child."""
        call.id = call.id or new_call_id()
        wanted = {"name": call.name, "arguments": call.arguments}
        function = _function(raw)
        is_right = (raw.get("index"), raw.get("id")) == (call.index, call.id)
        if is_right and {"arguments": "", **function} == {**function, **wanted}:
            return raw
        return {
            **raw,
            "index": call.index,
            "id": call.id,
            "type": "function",
            "function": {**function, **wanted},
        }

    def _find(self, fragment: _Fragment) -> _Call | None:
        """Return the call that the fragment goes on with, None when it begins one."""
        index, id_, name = fragment.index, fragment.id, fragment.name
        known = next((call for call in reversed(self._calls) if id_ and call.id == id_), None)
        if known is not None and (index in {None, known.source_index} or name is None):
            return None if name and known.is_followed_by(fragment) else known
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
            return last if last.may_repeat_name(fragment) else None
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
    index = read_whole(value)
    return index if index is not None and 0 <= index < _MAX_CALLS else None


def _text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _name(value: object) -> str | None:
    """Return the name of a tool as it was offered: models also write `functions.bash`, and blanks."""
    name = _text(value)
    return name.strip().removeprefix("functions.") or None if name else None


def _function(raw: dict[str, Any]) -> dict[str, Any]:
    function = raw.get("function")
    return function if isinstance(function, dict) else {}


def _value(text: str) -> Any:
    """Return what a JSON text says, `_NO_JSON` for any other."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _arguments(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
