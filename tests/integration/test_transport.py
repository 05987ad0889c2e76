"""Requests to opencode that get no answer: what is lost, and what is only late."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.errors import ChildSlowError, ChildUnavailableError
from sidecar.opencode.transport import Transport
from tests.ports import free_port


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def transport(url: object, session: aiohttp.ClientSession) -> Transport:
    return Transport(
        base_url=str(url).rstrip("/"), password="pw", session=session, request_timeout_seconds=0.2
    )


@pytest.mark.parametrize("is_begun", [False, True])
async def test_an_answer_that_does_not_come_in_time_is_late(
    session: aiohttp.ClientSession, *, is_begun: bool
) -> None:
    """Whether nothing came or only a part: opencode may have done what it was asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if is_begun:
            await response.prepare(request)
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_post("/session", answer)
    async with TestServer(app) as server:
        with pytest.raises(ChildSlowError):
            await transport(server.make_url("/"), session).call("POST", "/session", body={})


async def test_a_closed_port_is_a_loss(session: aiohttp.ClientSession) -> None:
    """Nothing was asked."""
    with pytest.raises(ChildUnavailableError) as caught:
        await transport(f"http://127.0.0.1:{free_port()}", session).call("POST", "/session")
    assert not isinstance(caught.value, ChildSlowError)


async def test_a_connection_that_breaks_is_a_loss(session: aiohttp.ClientSession) -> None:
    """opencode has ended, or is about to be found dead."""

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/session", hang_up)
    async with TestServer(app) as server:
        with pytest.raises(ChildUnavailableError) as caught:
            await transport(server.make_url("/"), session).call("POST", "/session")
    assert not isinstance(caught.value, ChildSlowError)
