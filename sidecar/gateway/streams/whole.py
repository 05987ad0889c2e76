"""Whole answers where a stream was asked for: caches, guardrails and small gateways send them.

One JSON body becomes the events that a stream of it would have had, so that everything after this is the
same for both. Formats: `choices[].message` of chat completions; a `message` of
https://docs.anthropic.com/en/api/messages; a `response` of https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sidecar.gateway.streams.facts import Wire, is_reason
from sidecar.gateway.streams.formats import format_of
from sidecar.gateway.streams.frames import DONE, write_frame

_DECODER = json.JSONDecoder(strict=False)
_BLANKS = " \t\r\n,"
_SMALL_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def begins_as_json(beginning: bytes | bytearray) -> bool:
    """Whether a body that begins so may be JSON instead of an event stream."""
    return beginning.removeprefix(_BOM).lstrip().startswith((b"{", b"["))


def stream_of(wire: Wire, body: bytes) -> bytes | None:
    """Return a JSON body as an event stream, None when it is nothing that a model API answers.

    The body is one object, or several: in an array, or one after the other (NDJSON). Each is put into an
    event as it is; the repairs of the stream make the usual events of it.
    """
    objects = _objects(body)
    if objects is None or not all(format_of(each) and not each.get("error") for each in objects):
        return None
    if len(objects) == 1 and format_of(objects[0]) == wire:
        _end(objects[0])
    frames = [write_frame(each, is_named=False) for each in objects]
    return b"".join([*frames, b"data: " + DONE + b"\n\n"] if wire == "chat" else frames)


def is_whole(body: bytes | bytearray) -> bool:
    """Whether a body that began as JSON may be over. A large one is not looked at: that would take long."""
    return (
        len(body) <= _SMALL_BYTES
        and body.rstrip().endswith((b"}", b"]"))
        and _objects(body) is not None
    )


def response_events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a whole response of the Responses API."""
    status = response.get("status")
    last = status if status in {"incomplete", "failed"} else "completed"
    yield {"type": "response.created", "response": {**response, "output": []}}
    output = response.get("output")
    for place, item in enumerate(output if isinstance(output, list) else ()):
        if isinstance(item, dict):
            where = {"item_id": str(item.get("id") or f"item_{place}"), "output_index": place}
            yield {"type": "response.output_item.added", "output_index": place, "item": item}
            for event in _item_events(item):
                yield {**where, **event}
            yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{last}", "response": response}


def _item_events(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = item.get("type")
    if kind == "message":
        for place, text in _texts(item.get("content"), "text", "refusal"):
            yield {"type": "response.output_text.delta", "content_index": place, "delta": text}
    elif kind == "reasoning":
        for place, text in _texts(item.get("summary"), "text"):
            part = {"summary_index": place}
            yield {"type": "response.reasoning_summary_part.added", **part}
            yield {"type": "response.reasoning_summary_text.delta", **part, "delta": text}
    elif kind == "function_call":
        arguments = str(item.get("arguments") or "")
        yield {"type": "response.function_call_arguments.delta", "delta": arguments}


def _texts(parts: object, *fields: str) -> Iterator[tuple[int, str]]:
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        texts = (part.get(field) for field in fields if isinstance(part, dict))
        text = next((text for text in texts if isinstance(text, str) and text), None)
        if text is not None:
            yield place, text


def _end(whole: dict[str, Any]) -> None:
    """Give a whole answer the reason that it lacks: unlike a stream, it cannot have been cut."""
    choices = whole.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and not is_reason(choice.get("finish_reason")):
            has_calls = message.get("tool_calls") or message.get("function_call")
            choice["finish_reason"] = "tool_calls" if has_calls else "stop"
    if whole.get("type") == "message" and not is_reason(whole.get("stop_reason")):
        kinds = [block.get("type") for block in whole["content"] if isinstance(block, dict)]
        whole["stop_reason"] = "tool_use" if "tool_use" in kinds else "end_turn"


def _objects(body: bytes | bytearray) -> list[dict[str, Any]] | None:
    """Return the JSON objects that a body consists of, None when there is anything else, or nothing."""
    text = body.removeprefix(_BOM).decode("utf-8", "replace").strip(_BLANKS)
    values: list[Any] = []
    place = 0
    try:
        while place < len(text):
            value, place = _DECODER.raw_decode(text, place)
            values += value if isinstance(value, list) else [value]
            while place < len(text) and text[place] in _BLANKS:
                place += 1
    except (ValueError, RecursionError):
        return None
    return values if values and all(isinstance(each, dict) for each in values) else None
