"""Streams that stay open while their session changes its pod."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from sidecar.aiokit import cancel_and_wait
from sidecar.cluster.ownership import OwnedElsewhereError, Owner, SharedOwnership
from sidecar.errors import NotFoundError, OwnerUnavailableError
from sidecar.http.peers import Peers
from sidecar.http.streams import JOINED, Batch, LocalStreams, Wanted
from sidecar.managed.events.log import EventLog
from sidecar.store.interface import StoreError

_POLL_SECONDS = 0.25
"""Between two owners the store is read this often."""

_JOIN_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class FollowedStreams:
    """Streams that stay open while their session changes its pod."""

    def __init__(
        self, *, peers: Peers, local: LocalStreams, log: EventLog, ownership: SharedOwnership
    ) -> None:
        self._peers = peers
        self._local = local
        self._log = log
        self._ownership = ownership
        self.moves = 0

    @asynccontextmanager
    async def open(self, wanted: Wanted) -> AsyncIterator[AsyncIterator[Batch]]:
        """Find the session and join its readers, then follow it. Raises NotFoundError.

        The client may send when it is answered, and its turn should find it among the readers. For an owner
        that does not answer it waits no longer than `_JOIN_SECONDS`.
        """
        with contextlib.suppress(OwnerUnavailableError):
            await self._peers.locate(wanted.session_id)
        async with contextlib.aclosing(self._follow(wanted)) as batches:
            joining = asyncio.create_task(
                _first(batches), name=f"stream of {wanted.session_id} joins"
            )
            try:
                await asyncio.wait([joining], timeout=_JOIN_SECONDS)
                yield _all(joining, batches)
            finally:
                await cancel_and_wait(joining)

    async def _follow(self, wanted: Wanted) -> AsyncGenerator[Batch, None]:
        session_id, silent_since = wanted.session_id, time.monotonic()
        while True:
            try:
                owner = await self._peers.locate(session_id)
                source = self._here(wanted) if owner is None else self._there(owner, wanted)
                async with contextlib.aclosing(source) as batches:
                    async for batch in batches:
                        if batch is None:
                            return
                        if batch is JOINED:
                            yield batch
                            continue
                        wanted = replace(wanted, after=batch[0])
                        silent_since = time.monotonic()
                        yield batch
                self._peers.forget(session_id)
                self.moves += 1
            except NotFoundError:
                return
            except (OwnerUnavailableError, OwnedElsewhereError, StoreError) as error:
                _log.debug("stream waits for an owner", session=session_id, error=str(error))
            # Between two owners: what is stored is shown, so that the client misses nothing.
            after, frames = await self._stored(wanted)
            wanted = replace(wanted, after=after)
            if frames:
                silent_since = time.monotonic()
                yield after, frames
            elif time.monotonic() - silent_since >= self._local.heartbeat_seconds:
                silent_since = time.monotonic()
                yield after, [b": heartbeat\n\n"]
            await asyncio.sleep(_POLL_SECONDS)

    async def _here(self, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        async with self._local.open(wanted) as batches:
            yield JOINED
            async for batch in batches:
                yield batch
        if self._ownership.owns(wanted.session_id) or self._peers.is_draining:
            yield None

    def _there(self, owner: Owner, wanted: Wanted) -> AsyncGenerator[Batch | None, None]:
        return self._peers.attach(owner, wanted)

    async def _stored(self, wanted: Wanted) -> tuple[int, list[bytes]]:
        session_id, after = wanted.session_id, wanted.after
        if after is None:
            return await self._log.last_seq(session_id), []
        frames = []
        try:
            async for event in self._log.events_after(session_id, after):
                after = event.seq
                if event.type not in wanted.hidden:
                    frames.append(event.frame)
        except StoreError as error:
            _log.warning("stream cannot be read", session=session_id, error=str(error))
        return after, frames


async def _first(batches: AsyncGenerator[Batch, None]) -> Batch | None:
    return await anext(batches, None)


async def _all(
    joining: asyncio.Task[Batch | None], batches: AsyncGenerator[Batch, None]
) -> AsyncGenerator[Batch, None]:
    first = await joining
    if first is None:
        return
    yield first
    async for batch in batches:
        yield batch
