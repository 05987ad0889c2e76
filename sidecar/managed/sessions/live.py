"""The sessions in memory: one actor each, loaded at its first use and dropped when it is long unused."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from sidecar.aiokit import TaskOwner
from sidecar.managed.sessions.actor import SessionActor

_KEPT = 1000
"""Sessions kept in memory; the longest unused idle one is dropped first (it is all in the store)."""
_READERS_REMEMBERED_SECONDS = 60.0
"""A session is kept in memory this long after its last turn and its last stream: who has read the turn is
known in memory only, see `sidecar.managed.events.replay_policy`."""


class LiveSessions:
    """Iterating yields the actors. `load` makes the actor of a stored session and adds it here, `owns` says
    whether this pod may still use one that is in memory."""

    def __init__(
        self,
        *,
        load: Callable[[str], Coroutine[Any, Any, SessionActor]],
        owns: Callable[[str], bool],
        tasks: TaskOwner,
    ) -> None:
        self._load = load
        self._owns = owns
        self._tasks = tasks
        self._actors: OrderedDict[str, SessionActor] = OrderedDict()
        self._loading: dict[str, asyncio.Task[SessionActor]] = {}
        self._by_child: dict[str, SessionActor] = {}

    def __iter__(self) -> Iterator[SessionActor]:
        return iter(list(self._actors.values()))

    async def actor(self, session_id: str) -> SessionActor:
        """Return the session's actor. Raises what `load` raises, such as NotFoundError."""
        actor = self._actors.get(session_id)
        if actor is not None and self._owns(session_id):
            self._actors.move_to_end(session_id)
            return actor
        loading = self._loading.get(session_id)
        if loading is None:
            loading = self._tasks.start(
                f"load {session_id}", self._load(session_id), is_awaited=True
            )
            self._loading[session_id] = loading
            loading.add_done_callback(lambda _: self._loading.pop(session_id, None))
        return await asyncio.shield(loading)

    def peek(self, session_id: str) -> SessionActor | None:
        """Return the actor if it is in memory."""
        return self._actors.get(session_id)

    @asynccontextmanager
    async def holding(self, session_id: str) -> AsyncIterator[SessionActor]:
        """Hold the session's lock. Raises NotFoundError, also when it is deleted while we wait."""
        while True:
            actor = await self.actor(session_id)
            async with actor.hold():
                if self._actors.get(session_id) is actor:
                    yield actor
                    return

    def add(self, actor: SessionActor) -> None:
        """Keep an actor, in the place of one that is long unused."""
        self._actors[actor.record.id] = actor
        for session_id, other in list(self._actors.items())[:-_KEPT]:
            is_unused = other.turn is None and not other.is_held
            if is_unused and not other.replay_policy.is_needed(_READERS_REMEMBERED_SECONDS):
                self.forget(session_id)

    def forget(self, session_id: str) -> None:
        """Drop the actor; the store has everything."""
        actor = self._actors.pop(session_id, None)
        if actor is not None and actor.record.child_session_id is not None:
            self._by_child.pop(actor.record.child_session_id, None)

    def bind_child(self, child_session_id: str, actor: SessionActor) -> None:
        """Note which session an opencode session belongs to."""
        self._by_child[child_session_id] = actor

    def of_child(self, child_session_id: str) -> SessionActor | None:
        """Return the actor of an opencode session, if it is in memory."""
        return self._by_child.get(child_session_id)

    def unused(self) -> list[str]:
        """Return the ids of the sessions in which nothing runs."""
        return [
            id_ for id_, actor in self._actors.items() if actor.turn is None and not actor.is_held
        ]

    def running(self) -> list[str]:
        """Return the ids of the sessions with a running turn."""
        return [session_id for session_id, actor in self._actors.items() if actor.is_busy]

    @property
    def busy_count(self) -> int:
        """How many turns run; those that wait for a client do not count."""
        return sum(actor.is_busy for actor in self._actors.values())

    @property
    def prompted_count(self) -> int:
        """How many turns the child works on: without those that wait for a client, or for the child."""
        turns = (actor.turn for actor in self._actors.values() if actor.is_busy)
        return sum(turn is not None and not turn.is_preparing for turn in turns)

    @property
    def queued_count(self) -> int:
        """How many client events wait behind running turns."""
        return sum(len(actor.queue) for actor in self._actors.values())

    @property
    def waiting_count(self) -> int:
        """How many turns wait for a client's answer."""
        return sum(actor.is_paused for actor in self._actors.values())
