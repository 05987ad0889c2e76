"""What the relay takes for granted of opencode's decision to try a model request again."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
from pathlib import Path

from sidecar.compat.bench import CompatBench, Prompt, expect
from sidecar.wire.opencode_retries import without_retry_words

_SENTENCES = (
    "max_tokens: 50000 is too many",
    "the rate increased too quickly",
    "no rate limit is left",
    "the server error has a name",
    "the network error is ours",
    "the request timed out",
    "the resource exhausted itself",
    "please try again later",
    "it is temporarily at capacity",
)
"""One for each kind of word."""
_MARK = b"/rate increased too quickly|"
_LIST_SHA256 = "deee599f78ac4fa43fa8600ad0bcd4ffa1a0f8e5cb76ec1eb1077900e7301e3c"
"""Of the list of patterns in opencode 1.18.33, from which `sidecar.wire.opencode_retries` was written."""
_LIST_BYTES = 4096


async def words_are_tried_again(bench: CompatBench) -> None:
    """A refusal with status 400 is tried again when its text has one of certain words or digits."""
    directory = bench.directory()
    prompts = [
        await bench.prompt(f"[[error: 400 x1 {sentence}]] [[say: fine]]", directory=directory)
        for sentence in _SENTENCES
    ]
    for sentence, prompt in zip(_SENTENCES, prompts, strict=True):
        await prompt.idle()
        expect(_has_retried(prompt), f"{sentence!r} was not tried again")


async def hidden_words_are_not_tried_again(bench: CompatBench) -> None:
    """With an invisible character inside each of them the same refusals end the turn at once."""
    prompt = await bench.prompt(f"[[error: 400 {without_retry_words('; '.join(_SENTENCES))}]]")
    await prompt.idle()
    expect(not _has_retried(prompt), "a hidden word was seen")
    expect(len(bench.asked(prompt.session_id)) == 1, "the request was sent again")


async def list_of_words_is_the_known_one(bench: CompatBench) -> None:
    """The list of those words in the program is the one that we hide; read it again when it changes."""
    files = {(Path("/proc") / str(pid) / "exe").resolve() for pid in bench.supervisor.pids}
    lists = [await asyncio.to_thread(_list_in, file) for file in sorted(files)]
    found = next((each for each in lists if each), b"")
    expect(found, "the program has no such list")
    is_known = hashlib.sha256(found).hexdigest() == _LIST_SHA256
    expect(is_known, f"the list is now {found.decode(errors='replace')}")


def _has_retried(prompt: Prompt) -> bool:
    statuses = (e.properties["status"] for e in prompt.events if e.type == "session.status")
    return any(status["type"] == "retry" for status in statuses)


def _list_in(program: Path) -> bytes:
    """Return the JavaScript array of patterns, empty when there is none."""
    with (
        program.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        place = content.find(_MARK)
        begin = content.rfind(b"[/", max(0, place - _LIST_BYTES), place)
        end = content.find(b"/i]", place, place + _LIST_BYTES)
        return bytes(content[begin : end + 3]) if min(place, begin, end) >= 0 else b""
