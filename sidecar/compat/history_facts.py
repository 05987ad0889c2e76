"""What moving a session to another opencode takes for granted of its sync events."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.compat.bench import CompatBench, Prompt, expect, open_bench
from sidecar.errors import ChildError
from sidecar.wire.opencode_events import SyncEvent

_SETTLED_SECONDS = 1.0
"""After a turn's end opencode still writes sums and titles; this long nothing more came."""
_LONGEST_WAIT_SECONDS = 20.0


async def history_moves(bench: CompatBench) -> None:
    """The sync events of the stream, replayed into another opencode, give it the same session: messages,
    tool calls and permissions; replayed again they change nothing."""
    prompt, events = await _turn(bench, "[[bash: echo quince]] [[then]] [[say: remembered]]")
    before = await _state(bench, prompt.session_id)
    wire = [event.to_wire() for event in events]
    async with open_bench(bench.root / "elsewhere", bench.settings) as other:
        for _ in range(2):
            await other.client.replay(prompt.directory, wire)
            after = await _state(other, prompt.session_id)
            expect(after == before, "the session that was replayed differs from the first one")
        more = await other.prompt(
            "[[say: again]]", directory=prompt.directory, session_id=prompt.session_id
        )
        await more.idle()
        asked = str(other.asked(prompt.session_id)[-1].body["messages"])
        expect("remembered" in asked, "the model was not shown what was replayed")


async def a_gap_is_refused(bench: CompatBench) -> None:
    """Sync events with one missing are refused; a session that was deleted can be replayed from its first."""
    prompt, events = await _turn(bench, "[[say: whole]]")
    before = await _state(bench, prompt.session_id)
    await bench.client.delete_session(prompt.session_id)
    wire = [event.to_wire() for event in events]
    try:
        await bench.client.replay(prompt.directory, [wire[0], *wire[2:]])
    except ChildError:
        pass
    else:
        expect(False, "events with a gap were accepted")
    await bench.client.replay(prompt.directory, wire)
    expect(
        await _state(bench, prompt.session_id) == before, "the session differs from the deleted one"
    )


async def _turn(bench: CompatBench, text: str) -> tuple[Prompt, list[SyncEvent]]:
    """Run a turn in a new session; return it and the session's events, what follows the end included."""
    all_events: list[SyncEvent] = []
    bench.pump.on_sync(lambda _directory, event: all_events.append(event))
    prompt = await bench.prompt(text)
    await prompt.idle()
    async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
        count = -1
        while count != len(all_events):
            count = len(all_events)
            await asyncio.sleep(_SETTLED_SECONDS)
    found = {event.seq: event for event in all_events if event.aggregate == prompt.session_id}
    expect(
        sorted(found) == list(range(len(found))), f"numbers of sync events: {sorted(found)[:20]}"
    )
    return prompt, [found[number] for number in sorted(found)]


async def _state(bench: CompatBench, session_id: str) -> tuple[Any, Any]:
    """Return the messages, and the session's permissions."""
    session = await bench.client.get_session(session_id)
    return await bench.client.messages(session_id), session.get("permission")
