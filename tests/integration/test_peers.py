"""Between pods: whose answer counts, keys that differ or change, and what is repeated after a lost answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from sidecar.aiokit import TaskOwner
from sidecar.cluster.boots import Boot, Heartbeat, Load
from sidecar.cluster.ownership import Owner, OwnershipLostError, SharedOwnership
from sidecar.config import HttpSettings
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies
from sidecar.http.middleware import request_context
from sidecar.http.peer_listener import PeerApi, start_peer_listener
from sidecar.http.peer_protocol import BOOT_HEADER
from sidecar.http.peers import Peers
from sidecar.http.streams import LocalStreams
from sidecar.store.postgres import PostgresStore
from tests.fakes.scripted_child import new_session
from tests.postgres import PostgresCluster

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OWNER = "boot_owner"


class Edge:
    """A pod that does not own the session, and a client of it."""

    def __init__(self, store: PostgresStore, http: aiohttp.ClientSession, key: str) -> None:
        self.store = store
        self.ownership = SharedOwnership(
            database=store, boot_id="boot_edge", home="edge", is_local=False
        )
        self.peers = Peers(
            ownership=self.ownership,
            session=http,
            key=key,
            load=Load(),
            wait_seconds=0.5,
            silence_seconds=60.0,
        )
        self.handled = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """What this pod does when it is the owner."""
        self.handled += 1
        return web.json_response({"by": "edge", "id": request.match_info["id"]})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def served(stack: AsyncExitStack, app: web.Application, host: str = "127.0.0.1") -> str:
    """Serve it; return host and port."""
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, host, 0).start()
    return f"{host}:{runner.addresses[0][1]}"


async def make_edge(stack: AsyncExitStack, postgres: PostgresCluster, key: str = "k") -> Edge:
    """Return a pod over an empty database."""
    store = PostgresStore(postgres.url())
    await store.open()
    stack.push_async_callback(store.close)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    return Edge(store, http, key)


async def owned_session(edge: Edge, address: str) -> str:
    """Store a session of another live boot at that address."""
    boot = Boot(_OWNER, "owner", "kernel/owner", address, "owner")
    heartbeat = Heartbeat(
        connect=edge.store.connect,
        boot=boot,
        load=Load(),
        lease_seconds=3600.0,
        interval_seconds=3600.0,
        beat=lambda: None,
    )
    await edge.store.write(heartbeat.register)
    session_id = await new_session(edge.store)
    query = "UPDATE sessions SET owner_boot = ?, owner_epoch = 1 WHERE id = ?"
    await edge.store.write(lambda c: c.execute(query, (_OWNER, session_id)))
    return session_id


async def asked(
    stack: AsyncExitStack, edge: Edge, session_id: str, method: str = "POST"
) -> tuple[int, Any, Any]:
    """Send a change to the edge; return status, JSON and headers."""
    route = web.RouteDef(method, "/v1/sessions/{id}", edge.handle, {})
    bounds = BodyBounds.of(HttpSettings())
    app = web.Application(middlewares=[request_context, bounded_bodies(BodyBudget(bounds))])
    app.add_routes([edge.peers.bound(route)])
    url = f"http://{await served(stack, app)}/v1/sessions/{session_id}"
    async with aiohttp.ClientSession() as http, http.request(method, url, json={}) as response:
        return response.status, await response.json(), response.headers


def program(handler: Handler) -> web.Application:
    """Return a program that answers everything in that way."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


class OwnsAll(SharedOwnership):
    """A pod to which every session belongs."""

    def owns(self, _session_id: str, /) -> bool:
        """Return True."""
        return True


@asynccontextmanager
async def peer_listener(
    edge: Edge, *keys: str, handler: Handler | None = None, boot_id: str = _OWNER
) -> AsyncIterator[str]:
    """Run the internal listener of a pod that owns all sessions; yield its address."""
    ownership = OwnsAll(database=edge.store, boot_id=boot_id, home="owner", is_local=False)
    routes = [
        web.RouteDef(m, "/v1/sessions/{id}", handler or edge.handle, {}) for m in ("POST", "DELETE")
    ]
    local = cast(LocalStreams, None)  # no stream is opened here: tests/cluster does
    api = PeerApi(ownership=ownership, local=local, load=Load(), routes=routes)
    tasks = TaskOwner("peers")
    runner, port = await start_peer_listener(
        api, host="::", port=0, keys=keys, tasks=tasks, bounds=BodyBounds.of(HttpSettings())
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await runner.cleanup()
        await tasks.close()


@pytest.mark.parametrize("boot_id", [None, "boot_of_another_pod"], ids=["no pod", "another pod"])
async def test_an_address_that_is_anothers_by_now(
    stack: AsyncExitStack, postgres: PostgresCluster, boot_id: str | None
) -> None:
    """Whatever answers there is not the owner: its answer never reaches a client."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {BOOT_HEADER: boot_id} if boot_id else {}
        return web.json_response({"of": "somebody else"}, headers=headers)

    edge = await make_edge(stack, postgres)
    session_id = await owned_session(edge, await served(stack, program(answer)))
    status, body, headers = await asked(stack, edge, session_id)
    assert status == 503
    assert "its pod does not answer" in body["error"]["message"]
    assert int(headers["retry-after"]) > 0


async def test_a_pod_with_another_key(stack: AsyncExitStack, postgres: PostgresCluster) -> None:
    """A client is not told that its own key is wrong; and a new pod hears at its start that its key is."""
    edge = await make_edge(stack, postgres, key="ours")
    address = await stack.enter_async_context(peer_listener(edge, "theirs"))
    session_id = await owned_session(edge, address)
    status, _, headers = await asked(stack, edge, session_id)
    assert status == 503
    assert int(headers["retry-after"]) > 0
    assert edge.handled == 0
    assert await edge.peers.is_refused_by(Owner(_OWNER, address))
    assert not await edge.peers.is_refused_by(Owner("boot_before_it", address))


@pytest.mark.parametrize("shown", ["old", "new"])
async def test_a_key_that_changes(
    stack: AsyncExitStack, postgres: PostgresCluster, shown: str
) -> None:
    """A pod that has both takes either."""
    edge = await make_edge(stack, postgres, key=shown)
    address = await stack.enter_async_context(peer_listener(edge, "new", "old"))
    session_id = await owned_session(edge, address)
    status, body, _ = await asked(stack, edge, session_id)
    assert (status, body["id"]) == (200, session_id)
    assert not await edge.peers.is_refused_by(Owner(_OWNER, address))


async def test_an_ipv6_address(stack: AsyncExitStack, postgres: PostgresCluster) -> None:
    """The internal listener is there for both families, and an address of the newer one is called."""
    edge = await make_edge(stack, postgres)
    address = await stack.enter_async_context(peer_listener(edge, "k"))
    session_id = await owned_session(edge, f"[::1]:{address.rpartition(':')[2]}")
    status, body, _ = await asked(stack, edge, session_id)
    assert (status, body["id"]) == (200, session_id)


async def test_an_owner_that_loses_the_session_while_it_is_asked(
    stack: AsyncExitStack, postgres: PostgresCluster
) -> None:
    """Nothing was stored: the request goes to the next owner, here the pod that was asked."""
    edge = await make_edge(stack, postgres)
    session_ids: list[str] = []

    async def lose(_request: web.Request) -> web.StreamResponse:
        query = "UPDATE sessions SET owner_boot = NULL WHERE id = ?"
        await edge.store.write(lambda c: c.execute(query, (session_ids[0],)))
        raise OwnershipLostError("it is another pod's")

    address = await stack.enter_async_context(peer_listener(edge, "k", handler=lose))
    session_ids.append(await owned_session(edge, address))
    status, body, _ = await asked(stack, edge, session_ids[0])
    assert (status, body["by"]) == (200, "edge")


async def test_a_delete_whose_answer_was_lost(
    stack: AsyncExitStack, postgres: PostgresCluster
) -> None:
    """The owner deleted the session and died: the client hears that it is deleted, not that it never was."""
    edge = await make_edge(stack, postgres)

    async def delete(request: web.Request) -> web.StreamResponse:
        query = "DELETE FROM sessions WHERE id = ?"
        session_id = request.match_info["id"]
        await edge.store.write(lambda c: c.execute(query, (session_id,)))
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    address = await stack.enter_async_context(peer_listener(edge, "k", handler=delete))
    session_id = await owned_session(edge, address)
    status, body, _ = await asked(stack, edge, session_id, "DELETE")
    assert (status, body) == (200, {"id": session_id, "type": "session_deleted"})
    status, _, _ = await asked(stack, edge, session_id, "DELETE")
    assert status == 404
