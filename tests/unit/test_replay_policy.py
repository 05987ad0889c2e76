"""Which past events a new stream is given."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from sidecar.managed.events.replay_policy import OpenStream, ReplayPolicy

GRACE = 15.0


def joins(
    replay_policy: ReplayPolicy, last_seq: int, *, is_sdk: bool = False, is_paused: bool = False
) -> OpenStream:
    return replay_policy.join(
        last_seq=last_seq,
        is_paused=is_paused,
        grace_seconds=GRACE,
        replay_finished=not is_sdk,
    )


@pytest.fixture
def replay_policy() -> ReplayPolicy:
    return ReplayPolicy()


def served(stream: OpenStream) -> int:
    """Return where the stream begins when no prompt comes."""
    return asyncio.run(stream.settle(0, 0))


def test_before_the_first_turn_a_stream_is_live(replay_policy: ReplayPolicy) -> None:
    """Nothing to replay yet."""
    assert served(joins(replay_policy, 3)) == 3


def test_an_open_turn_is_replayed_to_every_stream(replay_policy: ReplayPolicy) -> None:
    """From its first event, however many streams are there, official SDKs included."""
    replay_policy.turn_began(5)
    assert [joins(replay_policy, 8).after for _ in range(3)] == [4, 4, 4]
    assert joins(replay_policy, 8, is_sdk=True).after == 4


def test_a_finished_turn_that_no_stream_saw_is_replayed(replay_policy: ReplayPolicy) -> None:
    """To the drain that comes late, and to every reader that comes soon after it, each after a moment."""
    replay_policy.turn_began(5)
    replay_policy.turn_finished()
    drain = joins(replay_policy, 9)
    assert (drain.after, drain.replay_after) == (9, 4)
    replay_policy.leave(drain)
    late = joins(replay_policy, 9)
    assert (late.after, late.replay_after) == (9, 4)
    replay_policy.leave(late)
    assert served(joins(replay_policy, 9)) == 4


def test_streams_that_are_open_do_not_keep_the_late_reader_from_the_turn(
    replay_policy: ReplayPolicy,
) -> None:
    """A page that reads it, too, and a drain whose leaving was not noticed yet."""
    replay_policy.turn_began(5)
    assert [joins(replay_policy, 6).after for _ in range(2)] == [4, 4]
    replay_policy.turn_finished()
    assert served(joins(replay_policy, 9)) == 4
    assert served(joins(replay_policy, 9)) == 4, "a page may have come between them"


def seen_by_channel(replay_policy: ReplayPolicy) -> None:
    """Play a turn as a channel does: open, post, drain, leave."""
    channel = joins(replay_policy, 0)
    assert served(channel) == 0
    replay_policy.turn_began(1)
    drain = joins(replay_policy, 4)
    assert drain.after == 0
    replay_policy.leave(drain)
    replay_policy.turn_finished()
    replay_policy.leave(channel)


def test_after_a_channel_the_pause_is_longer(replay_policy: ReplayPolicy) -> None:
    """The channel's next reader opens before its prompt, which may be slow; a late reader is served, too."""
    seen_by_channel(replay_policy)
    reader = joins(replay_policy, 9)
    assert reader.is_after_channel
    assert served(reader) == 0


def test_a_page_is_no_channel(replay_policy: ReplayPolicy) -> None:
    """It opened during a turn, or saw the one before: that it is closed does not lengthen the pause."""
    replay_policy.turn_began(1)
    page = joins(replay_policy, 2)
    replay_policy.turn_finished()
    replay_policy.turn_began(5)
    replay_policy.leave(joins(replay_policy, 6))
    replay_policy.turn_finished()
    replay_policy.leave(page)
    reader = joins(replay_policy, 9)
    assert not reader.is_after_channel
    assert served(reader) == 4


def test_no_rule_can_tell_a_late_reader_from_a_channel_whose_prompt_is_late() -> None:
    """The same calls in the same order: a page is closed and the sub-agent's reader comes, or a channel's
    next reader comes and its prompt does not come within the pause. One wants the turn again, one must
    not have it. The turn is given: the one would wait without end, the other only reads it twice."""
    histories = []
    for kind in ("late", "channel"):
        world = World()
        first = world.open("browser" if kind == "late" else "channel", -1)
        world.post()
        drain = world.open("drain", 0)
        world.end()
        world.leave(drain)
        world.leave(first)
        reader = world.open("late" if kind == "late" else "channel", int(kind == "channel"))
        histories.append((world.policy_as_seen(), reader.stream.replay_after))
    assert histories[0] == histories[1]
    assert histories[0][1] == 0


@pytest.mark.parametrize("has_left", [True, False])
def test_a_stream_that_was_only_open_at_the_start_is_no_reader(
    replay_policy: ReplayPolicy, has_left: bool
) -> None:
    """A page, or a channel whose turn was over before its drain came: the drain gets the turn."""
    page = joins(replay_policy, 0)
    replay_policy.turn_began(1)
    replay_policy.turn_finished()
    if has_left:
        replay_policy.leave(page)
    drain = joins(replay_policy, 4)
    assert (drain.after, drain.replay_after) == (4, 0)
    assert served(drain) == 0


def test_a_page_that_stays_open_does_not_keep_the_late_reader_from_the_turn(
    replay_policy: ReplayPolicy,
) -> None:
    """It was open at the start and is open still, so it was no channel."""
    joins(replay_policy, 0)
    replay_policy.turn_began(1)
    replay_policy.turn_finished()
    replay_policy.leave(joins(replay_policy, 4))
    assert served(joins(replay_policy, 4)) == 0


async def test_a_prompt_drops_the_replay_that_waits(replay_policy: ReplayPolicy) -> None:
    """The reader opened before its prompt: it gets what comes, and nothing older."""
    replay_policy.turn_began(5)
    replay_policy.turn_finished()
    replay_policy.leave(joins(replay_policy, 9))
    channel = joins(replay_policy, 9)
    settled = asyncio.create_task(channel.settle(60, 60))
    replay_policy.turn_began(10)
    assert await settled == 9


async def test_the_first_reader_of_a_turn_may_be_the_channel_of_the_next(
    replay_policy: ReplayPolicy,
) -> None:
    """No stream saw the turn: a reader that opens before its prompt gets what comes, and nothing older."""
    replay_policy.turn_began(5)
    replay_policy.turn_finished()
    channel = joins(replay_policy, 9)
    settled = asyncio.create_task(channel.settle(60, 60))
    replay_policy.turn_began(10)
    assert await settled == 9


def test_replays_end_with_the_grace(replay_policy: ReplayPolicy) -> None:
    """Long after the end, or after the last reader left, a stream is live only."""
    replay_policy.turn_began(5)
    replay_policy.turn_finished()
    assert replay_policy.turn_ended is not None
    assert replay_policy.is_needed(GRACE)
    replay_policy.turn_ended -= GRACE + 1
    assert not replay_policy.is_needed(GRACE)
    assert served(joins(replay_policy, 9)) == 9

    replay_policy.turn_began(10)
    stream = joins(replay_policy, 10)
    replay_policy.turn_finished()
    replay_policy.leave(stream)
    replay_policy.turn_ended -= GRACE + 1
    assert joins(replay_policy, 14).replay_after == 9, "it has left just now"
    replay_policy.last_left -= GRACE + 1
    assert served(joins(replay_policy, 14)) == 14


def test_official_sdks_never_get_a_finished_turn(replay_policy: ReplayPolicy) -> None:
    """Their loops stop at an idle event, which an old turn would bring."""
    replay_policy.turn_began(5)
    replay_policy.turn_finished()
    assert served(joins(replay_policy, 9, is_sdk=True)) == 9


def test_a_turn_that_waits_for_the_client_has_shown_an_idle(replay_policy: ReplayPolicy) -> None:
    """For SDKs it is live only, for the others it is still the open turn."""
    replay_policy.turn_began(5)
    assert joins(replay_policy, 9, is_sdk=True, is_paused=True).after == 9
    assert joins(replay_policy, 9, is_paused=True).after == 4


def test_a_new_turn_starts_the_count_again(replay_policy: ReplayPolicy) -> None:
    """What was seen of the turn before does not matter."""
    replay_policy.turn_began(1)
    stream = joins(replay_policy, 1)
    replay_policy.turn_finished()
    replay_policy.leave(stream)
    replay_policy.turn_began(10)
    replay_policy.turn_finished()
    stream = joins(replay_policy, 15)
    assert (served(stream), stream.is_after_channel) == (9, False)


# -- every order that LAP's own programs can produce -----------------------------------------------

Kind = Literal["drain", "channel", "late", "browser"]


@dataclass(eq=False)
class Reader:
    """One stream of LAP, and what it was given."""

    kind: Kind
    turn: int
    """The number of the turn it is there for; a browser has none."""
    stream: OpenStream
    begins_after: int | None = None


@dataclass
class World:
    """One session. A turn is three events; the third ends it."""

    replay_policy: ReplayPolicy = field(default_factory=ReplayPolicy)
    seq: int = 0
    first_seqs: list[int] = field(default_factory=list)
    is_running: bool = False
    readers: list[Reader] = field(default_factory=list)

    def policy_as_seen(self) -> dict[str, object]:
        """Return what the policy knows, but for clocks."""
        policy = self.replay_policy
        return {
            "first": policy.turn_first_seq,
            "attached": policy.attached,
            "has_channel_left": policy.has_channel_left,
            "open": [(s.turn, s.turns, s.is_after_channel) for s in policy.open_streams],
        }

    def post(self) -> int:
        assert not self.is_running, "LAP's lock on the thread"
        self.replay_policy.turn_began(self.seq + 1)
        self.first_seqs.append(self.seq + 1)
        self.seq += 2
        self.is_running = True
        return len(self.first_seqs) - 1

    def end(self) -> None:
        if self.is_running:
            self.seq += 1
            self.replay_policy.turn_finished()
            self.is_running = False

    def open(self, kind: Kind, turn: int) -> Reader:
        reader = Reader(kind, turn, joins(self.replay_policy, self.seq))
        self.readers.append(reader)
        return reader

    def settle(self, reader: Reader) -> None:
        """The moment is over: the stream begins now, unless it did."""
        if reader.begins_after is None:
            has_prompt = reader.stream.next_turn.is_set()
            replay = None if has_prompt else reader.stream.replay_after
            reader.begins_after = reader.stream.after if replay is None else replay

    def leave(self, reader: Reader) -> None:
        self.replay_policy.leave(reader.stream)
        self.readers = [other for other in self.readers if other is not reader]

    def check(self, reader: Reader) -> None:
        """The first end that the reader sees is its own turn's, and it sees that turn from its start."""
        self.settle(reader)
        order = [r.kind for r in self.readers]
        assert reader.begins_after == self.first_seqs[reader.turn] - 1, (reader.kind, order)


def play(draw: st.DrawFn, world: World) -> None:
    """Play one prompt with the readers that LAP opens for it, and browsers in between."""
    browsers = [reader for reader in world.readers if reader.kind == "browser"]

    def between() -> None:
        what = draw(st.sampled_from(["nothing", "open", "leave", "end"]))
        if what == "open":  # the page saw no idle event yet, which may have come since
            browsers.append(world.open("browser", -1))
        elif what == "leave" and browsers:
            world.leave(browsers.pop())
        elif what == "end":
            world.end()

    program = draw(st.sampled_from(["drain", "channel", "late", "another client"]))
    channel = world.open("channel", len(world.first_seqs)) if program == "channel" else None
    turn = world.post()
    between()
    if program == "another client":  # which reads lists only
        world.end()
        between()
        return
    drain = world.open("drain", turn)
    between()
    readers = [drain]
    if draw(st.booleans()):  # its leaving is noticed late
        world.end()
        world.check(drain)
    else:
        world.end()
        world.check(drain)
        world.leave(drain)
        readers = []
    between()
    if channel is not None:
        world.check(channel)
        world.leave(channel)
    between()
    if program == "late":
        late = world.open("late", turn)
        world.check(late)
        readers.append(late)
    for reader in [*readers, *browsers[:1]]:
        world.leave(reader)


@settings(max_examples=500)
@given(st.data(), st.integers(1, 4))
def test_every_reader_of_lap_gets_its_own_turn(data: st.DataObject, prompts: int) -> None:
    """Drain, channel and late reader, in any order of opening, posting, ending and leaving, with browsers
    that come and go, and turns of clients that open no stream: the first end that each sees is that of its
    own turn, from its start."""
    world = World()
    for _ in range(prompts):
        play(data.draw, world)
