"""The console behind one URL of three pods."""

from __future__ import annotations

import re

import aiohttp

from tests.cluster.bed import Bed
from tests.harness import RUNTIME_KEY, http_client, text_of, until_idle, user_message
from tests.raw_client import RawClient


async def test_the_console_is_one_over_all_pods(bed: Bed) -> None:
    """Signed in at one pod, known at all; each shows a session, follows it and takes a message for it.

    Every request is a connection of its own, so page, stream and message come to different pods.
    """
    person = aiohttp.ClientSession(
        bed.front.url,
        headers={"origin": bed.front.url},
        cookie_jar=aiohttp.CookieJar(unsafe=True),
        connector=aiohttp.TCPConnector(force_close=True),
    )
    async with http_client(bed.pods[0].url) as http, person:
        session = await RawClient(http).new_session()
        async with person.post("/console/sign-in", data={"key": RUNTIME_KEY}) as answer:
            assert (answer.status, answer.url.path) == (200, "/console")
        path = f"/console/api/v1/sessions/{session}/events"
        for number in range(len(bed.pods)):
            async with person.get(f"/console/sessions/{session}") as answer:
                assert (answer.status, answer.url.path) == (200, f"/console/sessions/{session}")
                page = await answer.text()
            (token,) = re.findall(r'name="console-token" content="([^"]+)"', page)
            body = {"events": [user_message(f"[[say: {number}]]")]}
            async with person.get(f"{path}/stream?event_deltas[]=agent.message") as stream:
                assert stream.status == 200
                sent = {"x-console-token": token}
                async with person.post(path, json=body, headers=sent) as answer:
                    assert answer.status == 200, await answer.text()
                assert text_of(await until_idle(stream, seconds=120)) == str(number)
