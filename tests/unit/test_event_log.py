"""The event log: numbered, persisted, then published; slow readers lose nothing."""

import asyncio
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.http.streaming import pieces_of
from sidecar.managed.events.event import Draft, Preview, sse_frame, to_json
from sidecar.managed.events.log import EventLog, Head
from sidecar.managed.events.subscription import Subscription
from sidecar.store.interface import Connection, Store, StoreError
from tests.stores import ENGINES, open_store
from tests.waiting import PATIENCE_SECONDS, patience

SILENCE_SECONDS = 3600.0
"""No comment is sent where a test counts frames."""
SESSION = "sesn_1"


@pytest.fixture(params=ENGINES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    def insert(connection: Connection) -> None:
        for session in (SESSION, "sesn_2"):
            connection.execute(
                "INSERT INTO sessions (id, agent_id, agent_version, environment_id, thread_id, "
                "model_ref, status, created_at, updated_at, body) "
                "VALUES (?, 'a', 1, 'e', 't', 'litellm/m', 'idle', 'now', 'now', '{}')",
                (session,),
            )

    async with open_store(request, tmp_path) as opened:
        await opened.write(insert)
        yield opened


@pytest.fixture
def log(database: Store) -> EventLog:
    return EventLog(database=database)


def drafts(*types: str) -> list[Draft]:
    return [Draft(type_) for type_ in types]


async def frames(reader: Subscription, count: int) -> list[bytes]:
    """Read so many frames; heartbeats do not count."""
    found: list[bytes] = []
    async with patience():
        async for frame in reader.frames(SILENCE_SECONDS):
            found.append(frame)
            if len(found) == count:
                break
    return found


def data_of(frame: bytes) -> Any:
    return json.loads(frame.split(b"data: ", 1)[1])


def preview(type_: str, event_id: str, kind: str = "agent.message") -> Preview:
    return Preview(kind, event_id, type_, to_json({"type": type_, "event_id": event_id}))


async def test_events_get_numbers_ids_and_strictly_growing_times(log: EventLog) -> None:
    """Also when the clock stands still or went back since the last event."""
    head = Head(0, 4_000_000_000_000_000)  # a last event in the year 2096
    first = await log.append(SESSION, head, drafts("a", "b"))
    second = await log.append(SESSION, head, drafts("c"))
    events = [*first, *second]
    assert [event.seq for event in events] == [1, 2, 3]
    assert [event.processed_us for event in events] == [
        4_000_000_000_000_000 + n for n in (1, 2, 3)
    ]
    assert len({event.id for event in events}) == 3
    assert (head.seq, head.processed_us) == (3, events[-1].processed_us)
    for event in events:
        assert event.body["id"] == event.id
        datetime.fromisoformat(event.body["processed_at"])


async def test_a_failed_append_changes_nothing(log: EventLog, database: Store) -> None:
    """When the accompanying write fails, no event is stored or shown and the head stays."""
    head = Head(0, 0)

    def fails(_connection: Connection) -> None:
        raise StoreError("no")

    with log.subscribe(SESSION, after=0) as reader:
        with pytest.raises(StoreError):
            await log.append(SESSION, head, drafts("lost"), also=fails)
        assert head == Head(0, 0)
        await log.append(SESSION, head, drafts("kept"))
        (frame,) = await frames(reader, 1)
    assert data_of(frame)["type"] == "kept"


async def test_an_event_is_stored_before_anybody_is_told(log: EventLog, database: Store) -> None:
    """A reader that sees it on the stream finds it in the store."""
    with log.subscribe(SESSION, after=0) as reader:
        appending = asyncio.create_task(log.append(SESSION, Head(0, 0), drafts("a")))
        (frame,) = await frames(reader, 1)
        stored = await database.read(lambda c: c.execute("SELECT id FROM events").fetchall())
        await appending
    assert [row["id"] for row in stored] == [data_of(frame)["id"]]


async def test_a_reader_gets_what_is_after_its_position(log: EventLog) -> None:
    """Past and future, once each, in order, and only of its own session."""
    head = Head(0, 0)
    await log.append(SESSION, head, drafts("a", "b", "c"))
    with log.subscribe(SESSION, after=1) as reader:
        await log.append("sesn_2", Head(0, 0), drafts("other"))
        await log.append(SESSION, head, drafts("d"))
        assert [data_of(f)["type"] for f in await frames(reader, 3)] == ["b", "c", "d"]


async def test_a_reader_that_sleeps_through_thousands_misses_none(log: EventLog) -> None:
    """More events than are kept in memory or read at once: all arrive, in order."""
    head = Head(0, 0)
    with log.subscribe(SESSION, after=0) as slow:
        for _ in range(13):
            await log.append(SESSION, head, drafts(*["e"] * 100))
        found = await frames(slow, 1300)
    assert len({data_of(frame)["id"] for frame in found}) == 1300


async def test_frames_are_ascii_and_named(log: EventLog) -> None:
    """`event:` is the type, `data:` is one line of escaped JSON, and a blank line ends the frame."""
    with log.subscribe(SESSION, after=0) as reader:
        await log.append(SESSION, Head(0, 0), [Draft("agent.message", {"text": "grüße\n🦄"})])
        (frame,) = await frames(reader, 1)
    assert frame.isascii()
    name, data, *end = frame.split(b"\n")
    assert name == b"event: agent.message"
    assert json.loads(data.removeprefix(b"data: "))["text"] == "grüße\n🦄"
    assert end == [b"", b""]


async def test_silence_is_filled_with_comments(log: EventLog) -> None:
    """A heartbeat is a comment, which no client takes for an event."""
    with log.subscribe(SESSION, after=0) as reader:
        async for frame in reader.frames(0.01):
            assert frame.startswith(b":")
            assert frame.endswith(b"\n\n")
            break


async def test_news_put_the_comment_off(log: EventLog) -> None:
    """Silence counts from the last frame, not from the first."""
    head, silence_seconds, news = Head(0, 0), 0.2, 6
    clock = asyncio.get_running_loop().time
    found: list[tuple[float, bool]] = []

    async def read() -> None:
        async for frame in reader.frames(silence_seconds):
            found.append((clock(), is_comment := frame.startswith(b":")))
            if is_comment and sum(not comment for _, comment in found) == news:
                break

    with log.subscribe(SESSION, after=0) as reader:
        reading = asyncio.create_task(read())
        for _ in range(news):
            await asyncio.sleep(0.06)
            await log.append(SESSION, head, drafts("a"))
        await asyncio.wait_for(reading, PATIENCE_SECONDS)
    # A machine under load may leave room for more comments; none may come too early.
    gaps = [after - at for (at, _), (after, is_comment) in pairwise(found) if is_comment]
    assert min(gaps) > silence_seconds - 0.01


async def test_closing_ends_a_stream_after_what_is_logged(log: EventLog) -> None:
    """Everything appended before the close arrives, then the last frame, then the end."""
    with log.subscribe(SESSION, after=0) as reader:
        await log.append(SESSION, Head(0, 0), drafts("a"))
        log.close_readers(SESSION, b"event: session.deleted\ndata: {}\n\n")
        found = [frame async for frame in reader.frames(SILENCE_SECONDS)]
    assert [frame.split(b"\n")[0] for frame in found] == [b"event: a", b"event: session.deleted"]


async def test_readers_are_counted(log: EventLog) -> None:
    """Per session and over all, and no longer when they have gone."""
    with log.subscribe(SESSION, after=0), log.subscribe("sesn_2", after=0):
        assert (log.reader_count(SESSION), log.reader_count()) == (1, 2)
    assert log.reader_count() == 0


async def test_previews_go_only_to_those_who_asked(log: EventLog) -> None:
    """By kind; they are not stored, and precede the event they announce."""
    asked = log.subscribe(SESSION, after=0, previews=frozenset({"agent.message"}))
    with asked as wants, log.subscribe(SESSION, after=0) as plain:
        log.preview(SESSION, [preview("event_start", "e1"), preview("event_delta", "e1")])
        log.preview(SESSION, [preview("event_start", "e2", "agent.thinking")])
        await log.append(SESSION, Head(0, 0), [Draft("agent.message", {}, "e1")])
        kinds = [data_of(frame)["type"] for frame in await frames(wants, 3)]
        assert kinds == ["event_start", "event_delta", "agent.message"]
        assert [data_of(f)["type"] for f in await frames(plain, 1)] == ["agent.message"]


async def test_a_preview_is_a_prefix_or_nothing(log: EventLog) -> None:
    """One who comes in the middle gets no deltas; one who lags loses the rest, never a piece between."""
    kinds = frozenset({"agent.message"})
    with log.subscribe(SESSION, after=0, previews=kinds) as late:
        log.preview(SESSION, [preview("event_delta", "earlier")])
        log.preview(SESSION, [preview("event_start", "e1")])
        for number in range(3000):
            delta = to_json({"type": "event_delta", "number": number})
            log.preview(SESSION, [Preview("agent.message", "e1", "event_delta", delta)])
        log.close()
        found = [data_of(frame) async for frame in late.frames(SILENCE_SECONDS)]
    assert found[0]["type"] == "event_start"
    numbers = [frame["number"] for frame in found[1:]]
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 3000


async def test_a_cancelled_append_never_leads_to_the_same_number_twice(log: EventLog) -> None:
    """An interrupt may cancel a commit that is under way; the next append must still succeed."""
    head = Head(0, 0)
    append = asyncio.create_task(log.append(SESSION, head, drafts("session.status_running")))
    await asyncio.sleep(0)
    append.cancel()
    await asyncio.gather(append, return_exceptions=True)
    (event,) = await log.append(SESSION, head, drafts("session.status_idle"))

    assert event.seq == 2


async def test_what_is_there_together_comes_as_one_batch(log: EventLog) -> None:
    """Previews and events of one moment are one write; a long history is cut into pieces."""
    head, kinds = Head(0, 0), frozenset({"agent.message"})
    long = [Draft("e", {"text": "x" * 40_000})] * 5
    with log.subscribe(SESSION, after=0, previews=kinds) as reader:
        log.preview(SESSION, [preview("event_start", "e1"), preview("event_delta", "e1")])
        await log.append(SESSION, head, drafts("a", "b"))
        await log.append(SESSION, head, long)
        log.close()
        sizes = [len(batch) async for batch in reader.batches(SILENCE_SECONDS)]
    assert sizes == [6, 2, 1]


async def test_readers_of_a_large_event_share_one_copy(log: EventLog) -> None:
    """However many streams are at a large event, it is in memory once, encoded once."""
    await log.append(SESSION, Head(0, 0), [Draft("e", {"text": "x" * 2_000_000})])
    with ExitStack() as stack:
        readers = [stack.enter_context(log.subscribe(SESSION, after=0)) for _ in range(5)]
        reading = [reader.batches(SILENCE_SECONDS) for reader in readers]
        batches = [await anext(batches) for batches in reading]
        assert len({id(frame) for batch in batches for frame in batch}) == 1


@pytest.mark.parametrize("letter", ["é", "漢", "😀"])
async def test_a_long_text_is_stored_as_short_as_it_is(
    log: EventLog, database: Store, letter: str
) -> None:
    """As text in UTF-8, from the bytes of the frame: an escape has six characters, an emoji two of them."""
    text = letter * 1_100_000
    (event,) = await log.append(SESSION, Head(0, 0), [Draft("user.message", {"text": text})])
    body = await database.read(lambda c: c.execute("SELECT body FROM events").fetchone()[0])
    assert isinstance(body, str)
    assert json.loads(body)["text"] == text
    assert len(body.encode()) < len(text.encode()) + 1000
    assert event.size == len(body.encode())
    with log.subscribe(SESSION, after=0) as reader:
        (frame,) = await frames(reader, 1)
    assert data_of(frame) == event.body == json.loads(event.text)
    assert b"".join(pieces_of([frame], is_ascii=True)) == sse_frame(
        "user.message", to_json(event.body)
    )


async def test_what_is_kept_for_readers_is_bounded_by_its_size(log: EventLog) -> None:
    """Large events that no reader holds leave the memory, and are read from the disk again."""
    head = Head(0, 0)
    with log.subscribe(SESSION, after=0) as reader:
        kept = []
        for _ in range(20):
            kept += [
                weakref.ref(event)
                for event in await log.append(SESSION, head, [Draft("e", {"text": "x" * 400_000})])
            ]
        assert sum(event() is not None for event in kept) <= 3
        log.close()
        assert len([frame async for frame in reader.frames(SILENCE_SECONDS)]) == 20
